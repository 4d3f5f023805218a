"""Measured latencies on disk, so that a layer is compiled and measured once on a machine.

    <folder>/latency/<code>-<reference>/<machine>/b<batch>/<kind>/<architecture>.json

One file per measured architecture, written whole or not at all; what cannot be read is as good as
not there. A machine is its fingerprint, which holds the versions of torch and of this package, the
threads and the target. It must not know what is measured, nor
torch. Next: `layer_latency.py`.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ..errors import EvaluationError
from .cache import VARIABLE, cache_folder
from .code import code_digest
from .failure import Deadline

NAP_S = 0.05

_read: dict[Path, Entry | None] = {}


@dataclass(frozen=True)
class Entry:
    """What was measured of one architecture: its canonical JSON, the median in ms, the median in
    calls of the reference, and what that took."""

    architecture: str
    median_ms: float
    ratio: float
    reference_ms: float


@dataclass(frozen=True)
class Store:
    """The entries of one machine and batch."""

    folder: Path

    @classmethod
    def of(cls, machine: str, batch: int, reference: str) -> Store:
        """`machine` is a fingerprint."""
        name = machine.replace(":", "-")
        of = cache_folder("latency") / f"{code_digest()}-{reference}"
        return cls(of / name / f"b{batch}")

    def get(self, kind: str, fingerprint: str) -> Entry | None:
        """None if it is not there, or cannot be read. What was read once is kept in memory."""
        path = self._path(kind, fingerprint)
        if _read.get(path) is None:
            _read[path] = _entry(path)
        return _read[path]

    def put(self, kind: str, fingerprint: str, entry: Entry) -> None:
        """Replaces what was there. Raises EvaluationError where the folder cannot be written."""
        path = self._path(kind, fingerprint)
        with _writing(path):
            file, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
            try:
                with os.fdopen(file, "w", encoding="utf-8") as out:
                    json.dump(asdict(entry), out)
                os.replace(name, path)
            except BaseException:
                os.unlink(name)
                raise
        _read[path] = entry

    def newest(self, kind: str, most: int) -> list[Entry]:
        """The `most` that were written last, in that order."""
        found = [(_written(path), path) for path in (self.folder / kind).glob("*.json")]
        paths = [path for _, path in sorted(found)[-most:]]
        entries = (self.get(kind, path.stem.replace("-", ":")) for path in paths)
        return [entry for entry in entries if entry is not None]

    @contextmanager
    def locked(self, kind: str, fingerprint: str, deadline: Deadline) -> Iterator[None]:
        """One process or thread at a time; the kernel frees the locks of the dead. Raises
        EvaluationError if the time is up while another one measures."""
        path = self._path(kind, fingerprint).with_suffix(".lock")
        with _writing(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            file = os.open(path, flags, 0o600)
        try:
            while not _taken(file):
                deadline.check("waiting for a layer that another worker measures")
                time.sleep(NAP_S)
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)  # a forked child has the same opening
        finally:
            os.close(file)

    def _path(self, kind: str, fingerprint: str) -> Path:
        return self.folder / kind / f"{fingerprint.replace(':', '-')}.json"


def _entry(path: Path) -> Entry | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        entry = Entry(**data)
    except (OSError, TypeError, ValueError):
        return None
    numbers = [getattr(entry, field.name) for field in fields(Entry)][1:]
    good = all(type(n) in (int, float) and 0 < n < math.inf for n in numbers)
    return entry if good and isinstance(entry.architecture, str) else None


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # it was replaced just now
        return math.inf


def _taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield
    except OSError as error:
        why = f"cannot keep measured layers in {path.parent}: {error}"
        raise EvaluationError(f"{why}; name another folder in {VARIABLE}") from error
