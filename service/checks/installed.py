"""Python, the packages, the compiler, what the environment says: what is installed here.

It must not load torch or ray; their versions are read from what pip wrote. Next: `machine.py`.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ...errors import unknown
from ..configured import DEFAULT, resolve
from ..errors import SettingError
from ..settings import SETTINGS
from .finding import Finding, failed, ok, warning, wrong
from .look import Look

PACKAGE = "formwright"
# whose packages are looked for; "": what all need
EXTRAS = ("", "client", "compiler", "report", "search", "service", "postgresql")


def of_python(look: Look) -> Iterator[Finding]:
    """Whether it is one that the package declares."""
    version, wanted = platform.python_version(), ""
    if found := installed(PACKAGE):
        wanted = found.metadata["Requires-Python"] or ""
    said = f"{version}, wanted {wanted or 'any'}"
    if SpecifierSet(wanted).contains(version):
        yield ok("python", said)
    else:
        yield failed("python", said, f"make a virtual environment with a Python {wanted}")


def of_packages(look: Look) -> Iterator[Finding]:
    """Each package that an extra of ours declares: whether it is there, and in the range."""
    ours = installed(PACKAGE)
    if ours is None:
        said = f"{PACKAGE} runs from its source; the ranges of its packages are not known"
        yield warning("packages", said, "pip install -e .")
        return
    for requirement, extra in _declared(ours.requires or []):
        found, wanted = installed(requirement.name), str(requirement.specifier)
        remedy = f"pip install '{PACKAGE}[{extra}]'" if extra else f"pip install {PACKAGE}"
        if found is None:
            part = f"the part {extra!r}" if extra else "every part"
            said = f"not installed; {part} needs {wanted or 'it'}"
            yield wrong(requirement.name, not extra, said, remedy)
        elif requirement.specifier.contains(found.version, prereleases=True):
            yield ok(requirement.name, f"{found.version}, wanted {wanted or 'any'}")
        else:
            yield failed(requirement.name, f"{found.version}, wanted {wanted}", remedy)


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


def installed(name: str) -> metadata.Distribution | None:
    """What pip wrote of it, if it is there."""
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def of_compiler(look: Look) -> Iterator[Finding]:
    """The C++ compiler that generates code: for every target but eager."""
    given = os.environ.get("CXX") or "g++"
    if path := shutil.which(given):
        yield ok("c++", path)
        return
    said = f"no {given}; the target inductor needs it"
    yield warning("c++", said, "install it (apt-get install g++), or use the target eager")


def of_settings(look: Look) -> Iterator[Finding]:
    """Whether the file and the environment can be read."""
    try:
        sources = {resolve(setting).source for setting in SETTINGS.values()} - {DEFAULT}
    except SettingError as error:
        remedy = "mend it; `formwright config` shows each setting and where it comes from"
        yield failed("settings", str(error), remedy)
        return
    yield ok("settings", f"from {', '.join(sorted(sources)) or 'defaults only'}")


def of_variables(look: Look) -> Iterator[Finding]:
    """Variables with our prefix that nobody reads."""
    known = [setting.variable for setting in SETTINGS.values()]
    for name in sorted(os.environ):
        if name.startswith("FORMWRIGHT_") and name not in known:
            yield warning("variables", unknown("variable", name, known), f"unset {name}")
            return
    yield ok("variables", f"{sum(name in os.environ for name in known)} are set")
