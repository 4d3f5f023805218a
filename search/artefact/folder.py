"""An artefact on disk: five files, whole or not there.

    spec.json           the architecture
    model.safetensors   its weights
    report.json         what the compiler did to it
    metrics.json        what was measured, how, and a digest of each file above
    README.md           the same for people

`metrics.json` is written last, and the folder gets its name when all is there. A digest finds what
was damaged or exchanged; it is no signature. It must not know how anything is trained or measured.
Next: `../weights.py`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from .. import weights
from ..errors import SpecError
from ..model import Model
from ..spec import ArchSpec
from ..spec_json import inside, parse_json
from ..weights import SPEC, WEIGHTS

REPORT, METRICS, README = "report.json", "metrics.json", "README.md"
DIGESTED = (SPEC, WEIGHTS, REPORT)
HALF = "half"  # how the name of one ends that is being made


def load(folder: str | Path) -> tuple[ArchSpec, Model]:
    """The architecture and its trained model, in evaluation, of a folder that `keep` made. Raises
    SpecError, naming the file, where one is missing or malformed or is not what was kept."""
    where = Path(folder)
    kept = _kept(where / METRICS)
    for name in (SPEC, WEIGHTS):
        if digest(where / name) != kept.get(name):
            raise SpecError("it is not what was kept: its digest differs", f"{where / name}")
    return weights.load(where)


def digests(folder: Path) -> dict[str, str]:
    """What `metrics.json` says of the files beside it."""
    return {name: digest(folder / name) for name in DIGESTED}


def digest(path: Path) -> str:
    """SHA-256 of a file. Raises SpecError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SpecError(error.strerror or str(error), str(path)) from error


def _kept(path: Path) -> Mapping[str, object]:
    """File -> digest."""
    try:
        with inside(str(path)):
            made = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"not an artefact, or half of one: {error}", str(path)) from error
    files = made.get("files") if isinstance(made, Mapping) else None
    if not isinstance(files, Mapping):
        raise SpecError("it says nothing of the files beside it", str(path))
    return files


@contextmanager
def making(folder: str | Path) -> Iterator[Path]:
    """A folder to write into, which becomes `folder` at the end of the `with`, and goes away with
    all in it where that raises. One that a kill has left goes when the next is made.

    Raises SpecError if there is something in `folder`, or it cannot be made.
    """
    where = Path(os.path.abspath(folder))
    _free(where)
    half = where.with_name(f".{where.name}.{secrets.token_hex(4)}.{HALF}")
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        _clear(where)
        half.mkdir()
        lock = _locked(half)
    except OSError as error:
        raise SpecError(f"cannot be made: {error.strerror or error}", str(where)) from error
    try:
        yield half
        for path in (*half.iterdir(), half):
            _to_disk(path)
        _free(where)  # somebody may have been faster
        os.rename(half, where)
        _to_disk(where.parent)
    finally:
        shutil.rmtree(half, ignore_errors=True)
        os.close(lock)


def _free(where: Path) -> None:
    if where.is_mount():  # nothing can be renamed to it
        raise SpecError("something is mounted there; name a folder inside it", str(where))
    if where.exists() and not (where.is_dir() and not any(where.iterdir())):
        raise SpecError(
            "there is something already; name a folder that is new or empty", str(where)
        )


def _clear(where: Path) -> None:
    """Removes what others have left half made whose process is gone: the kernel has freed their
    locks."""
    for left in where.parent.glob(f".{escape(where.name)}.*.{HALF}"):
        with suppress(OSError):
            os.close(_locked(left))
            shutil.rmtree(left, ignore_errors=True)


def _locked(folder: Path) -> int:
    """The open folder. Raises OSError if another process holds it."""
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise
    return file


def _to_disk(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
