"""`FileLog`: a durable log in one file, a line of JSON for what was appended together.

A line is written and synced before `append` returns; a last line that a kill has cut off is
dropped. One process may have it open; the kernel frees the lock of one that dies. It must not know
what runs the search. Next: `log.py`, which has the laws.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import Fenced, SpecError
from ..result import Result
from ..search_spec import SearchSpec
from ..spec import ArchSpec
from ..spec_json import canonical_json
from ..trial import Trial, TrialState, follows
from .log import MemoryLog

CHANGING = ("state", "attempt", "rung", "values", "details", "error")


class FileLog(MemoryLog):
    """The log of the search `spec` at `path`, made if it is not there.

    Raises SpecError if the file is of another search or not of this kind, Fenced if another process
    has it open.
    """

    def __init__(self, path: str | Path, spec: SearchSpec, earlier: Iterable[Result] = ()) -> None:
        super().__init__(earlier)
        self._path, self._reading, self._begun, self._end = Path(path), True, False, 0
        self._made: dict[int, Trial] = {}
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read(spec)
        except BlockingIOError as error:
            self.close()
            raise Fenced(f"{self._path}: another process runs this search") from error
        except BaseException:
            self.close()
            raise

    def _read(self, spec: SearchSpec) -> None:
        text = b"".join(iter(lambda: os.read(self._file, 1 << 20), b""))
        whole = text[: text.rfind(b"\n") + 1]
        first = _encoded({"spec": spec.to_dict()})
        try:
            if not whole and not first.startswith(text):
                raise SpecError("its first line has no end")
            for line in whole.splitlines():
                self._take(json.loads(line), spec)
        except (ValueError, KeyError, TypeError, AttributeError, Fenced) as error:
            raise SpecError(f"not a log of this search: {error}", str(self._path)) from error
        os.ftruncate(self._file, len(whole))  # the rest was never acknowledged
        self._end, self._reading = len(whole), False
        if not whole:
            self._write(first)
            folder = os.open(self._path.absolute().parent, os.O_RDONLY)
            os.fsync(folder)  # so that the file itself is there after a power cut
            os.close(folder)

    def _take(self, line: Any, spec: SearchSpec) -> None:
        if "spec" in line:
            if SearchSpec.from_dict(line["spec"]) != spec:
                raise SpecError(f"it is of {canonical_json(line['spec'])}")
            self._begun = True
        elif not self._begun:
            raise SpecError("it does not say of which search it is")
        else:
            self.append(*map(self._trial, line["trials"]))
            if line.get("cancelled"):
                self._unwanted = "cancelled"

    def _keep(self, trials: Sequence[Trial], cancelled: bool = False) -> None:
        if self._reading or not (trials or cancelled):
            return
        line: dict[str, Any] = {"trials": [_row(trial) for trial in trials]}
        self._write(_encoded(line | {"cancelled": True} if cancelled else line))

    def close(self) -> None:
        """Lets others open it; nothing can be appended any more."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
            self._file = -1

    def _write(self, line: bytes) -> None:
        """Whole, or not at all."""
        try:
            written = 0
            while written < len(line):
                written += os.pwrite(self._file, line[written:], self._end + written)
            os.fdatasync(self._file)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise
        self._end += len(line)

    def _trial(self, row: Mapping[str, Any]) -> Trial:
        """The inverse of `_row`: what a trial is made of stands where it was new."""
        number = row["number"]
        if "architecture" in row:
            params, architecture = row["params"], ArchSpec.from_dict(row["architecture"])
            self._made[number] = Trial(number, params, architecture)
        kept = {name: row[name] for name in CHANGING} | {"state": TrialState(row["state"])}
        return replace(self._made[number], **kept)


def _encoded(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line).encode() + b"\n"


def _row(trial: Trial) -> dict[str, Any]:
    row = {"number": trial.number, **{name: getattr(trial, name) for name in CHANGING}}
    if follows(trial, None):
        row |= {"params": dict(trial.params), "architecture": trial.architecture.to_dict()}
    return row
