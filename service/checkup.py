"""What `formwright doctor` looks at: each check returns one row, and none of them changes anything.

It must not load torch or ray; their versions are read from what pip wrote. Next: `probe.py`,
`store/examine.py`; `cli/doctor.py` shows the rows.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ..errors import FormwrightError, one_line, unknown
from ..extras import MissingExtraError, needs
from ..search import cache_folder
from .configured import DEFAULT, Value, resolve
from .errors import SettingError
from .settings import SETTINGS, with_port

PACKAGE = "formwright"
EXTRAS = ("", "client", "compiler", "search", "service", "postgresql")  # "": what all need
ENOUGH, LITTLE = 2**30, 2**26  # bytes of a disk: below the one a warning, below the other a failure


class Status(StrEnum):
    """How a check ended; only what failed makes the exit code 1."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is, and what to do where it is not well."""

    name: str
    status: Status
    said: str


def of_python() -> Check:
    """Whether it is one that the package declares."""
    version = platform.python_version()
    wanted = ""
    if installed := _installed(PACKAGE):
        wanted = installed.metadata["Requires-Python"] or ""
    fits = SpecifierSet(wanted).contains(version)
    said = f"{version}, wanted {wanted or 'any'}"
    return Check("python", Status.OK if fits else Status.FAILED, said)


def of_packages() -> Iterator[Check]:
    """Each package that an extra of ours declares: whether it is there, and in the range."""
    installed = _installed(PACKAGE)
    if installed is None:
        said = f"{PACKAGE} runs from its source; the ranges of its packages are not known"
        yield Check("packages", Status.WARNING, f"{said}: pip install -e .")
        return
    for requirement, extra in _declared(installed.requires or []):
        found = _installed(requirement.name)
        wanted = str(requirement.specifier)
        install = f"pip install '{PACKAGE}[{extra}]'" if extra else f"pip install {PACKAGE}"
        if found is None:
            part = f"the part {extra!r}" if extra else "every part"
            said = f"not installed; {part} needs {wanted}: {install}"
            status = Status.WARNING if extra else Status.FAILED
        elif requirement.specifier.contains(found.version, prereleases=True):
            status, said = Status.OK, f"{found.version}, wanted {wanted}"
        else:
            status, said = Status.FAILED, f"{found.version}, wanted {wanted}: {install}"
        yield Check(requirement.name, status, said)


def _declared(requires: list[str]) -> Iterator[tuple[Requirement, str]]:
    """What is required, and the first of the extras that requires it."""
    seen: set[str] = set()
    for extra in EXTRAS:
        for text in requires:
            requirement = Requirement(text)
            marker = requirement.marker
            here = marker is None or marker.evaluate({"extra": extra})
            if here and requirement.name not in {PACKAGE, *seen}:
                seen.add(requirement.name)
                yield requirement, extra


def _installed(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def of_compiler() -> Check:
    """The C++ compiler that generates code: for every target but eager."""
    given = os.environ.get("CXX") or "g++"
    if path := shutil.which(given):
        return Check("c++", Status.OK, path)
    said = f"no {given}; the target inductor needs it: install it, or use the target eager"
    return Check("c++", Status.WARNING, said)


def of_cores() -> Check:
    """Cores that we may use, and what the environment says about threads."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    given = os.environ.get("OMP_NUM_THREADS", "")
    said = f"{cores} of {os.cpu_count()}; OMP_NUM_THREADS {given or 'not set'}"
    if cores and given.isdecimal() and int(given) > cores:
        return Check("cores", Status.WARNING, f"{said}: more threads than cores")
    return Check("cores", Status.OK, said)


def of_variables() -> Check:
    """Variables with our prefix that nobody reads."""
    known = [setting.variable for setting in SETTINGS.values()]
    for name in sorted(os.environ):
        if name.startswith("FORMWRIGHT_") and name not in known:
            return Check("variables", Status.WARNING, unknown("variable", name, known))
    return Check("variables", Status.OK, f"{sum(name in os.environ for name in known)} are set")


def of_cache() -> Check:
    """Whether the folder of trainings and latencies can be written, or made."""
    folder = cache_folder("").absolute()
    if _writable(folder):
        return Check("cache", Status.OK, str(folder))
    said = f"cannot write in {folder}; name another folder in {SETTINGS['cache'].variable}"
    return Check("cache", Status.FAILED, said)


def of_settings() -> Check:
    """Whether the file and the environment can be read."""
    try:
        sources = {resolve(setting).source for setting in SETTINGS.values()} - {DEFAULT}
    except SettingError as error:
        return Check("settings", Status.FAILED, str(error))
    return Check("settings", Status.OK, f"from {', '.join(sorted(sources)) or 'defaults only'}")


def of_database(option: str | None) -> Iterator[Check]:
    """Whether it opens, and what is in it. One that nobody has named need not be there."""
    wanted = _wanted("database", option)
    if isinstance(wanted, Check):
        yield wanted
        return
    named = wanted.source != DEFAULT
    try:
        with needs("service", "the store"):
            from .store.examine import examine
        found = examine(str(wanted.value))
    except MissingExtraError as error:
        yield Check("database", Status.FAILED if named else Status.WARNING, str(error))
        return
    except FormwrightError as error:
        yield Check("database", Status.FAILED, str(error))
        return
    schema = f"{found.where}, schema {found.found}"
    if not found.exists:
        said = f"there is no {found.where}; `formwright serve` makes it"
        yield Check("database", Status.WARNING if named else Status.OK, said)
    elif not found.found:
        said = f"{found.where} opens and has no searches yet; `formwright serve` makes the tables"
        yield Check("database", Status.WARNING, said)
    elif not found.known:
        said = f"{schema} is newer than ours, {found.newest}: use a newer formwright"
        yield Check("database", Status.FAILED, said)
    elif found.found != found.newest:
        said = f"{schema} is older than ours, {found.newest}: the next server brings it up to date"
        yield Check("database", Status.WARNING, said)
    else:
        yield Check("database", Status.OK, schema)
    if found.file is not None:
        yield _disk(found.file)


def _disk(file: Path) -> Check:
    """Where the database is, or will be."""
    folder = file.parent
    free = shutil.disk_usage(folder).free
    said = f"{free / 2**30:.1f} GiB free in {folder}"
    if not os.access(file if file.exists() else folder, os.W_OK):
        return Check("disk", Status.FAILED, f"cannot write {file}")
    if free < ENOUGH:
        status = Status.WARNING if free >= LITTLE else Status.FAILED
        return Check("disk", status, f"{said}: make room, or name another --database")
    return Check("disk", Status.OK, said)


def of_server(option: str | None, timeout_s: float = 5.0) -> Check:
    """Whether it answers, is well and knows our calls. One that nobody has named need not run."""
    wanted = _wanted("server", option)
    if isinstance(wanted, Check):
        return wanted
    server = with_port(str(wanted.value))
    named = wanted.source != DEFAULT
    try:
        with needs("client", "a client"):
            from .client import Trust
            from .probe import probe
    except MissingExtraError as error:
        return Check("server", Status.FAILED if named else Status.WARNING, str(error))
    try:
        found = probe(server, timeout_s, Trust.by_settings(server))
    except SettingError as error:
        return Check("server", Status.FAILED, str(error))
    if isinstance(found, str):
        why = "" if found.startswith("failed to connect") else f" ({one_line(found, 120)})"
        said = f"no answer from {server}{why}; is `formwright serve` running there?"
        return Check("server", Status.FAILED if named else Status.WARNING, said)
    if found.health != "SERVING":
        said = f"{server} says {found.health}: its log and its database say why"
        return Check("server", Status.FAILED, said)
    if found.lacks or found.more:
        older = f"it lacks {', '.join(found.lacks)}" if found.lacks else "it knows more calls"
        return Check("server", Status.WARNING, f"{server} is of another version: {older}")
    return Check("server", Status.OK, f"{server} is SERVING and knows every call")


def _wanted(name: str, option: str | None) -> Value | Check:
    """The option, or what the settings say; a check that failed if they say nothing sensible."""
    if option is not None:
        return Value(option, "option")
    try:
        return resolve(SETTINGS[name])
    except SettingError as error:
        return Check(name, Status.FAILED, f"not looked at: {error}")


def _writable(folder: Path) -> bool:
    """Itself, or the nearest folder above it that is there."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
