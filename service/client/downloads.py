"""Artefacts on their way into a folder: half of one stays where it is, so that the rest can follow.

All of it comes into a folder beside the one that is wanted, whose name says which content it is of,
and which gets the name that is wanted once everything is there. It must not know where pieces come
from. Next: `sync.py`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from contextlib import suppress
from pathlib import Path

from ..errors import Failed, InternalError, InvalidRequest
from ..records import ArtifactFile, ArtifactRecord, ArtifactState

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


def is_open(record: ArtifactRecord) -> bool:
    """Whether it is still to come."""
    return record.state in (ArtifactState.QUEUED, ArtifactState.RUNNING)


def check_folder(to: str | Path, record: ArtifactRecord | None) -> None:
    """Raises InvalidRequest if the folder holds anything but this whole artefact; None for one that
    nobody has asked for yet."""
    folder = Path(to)
    if folder.exists() and not folder.is_dir():
        raise InvalidRequest(f"{folder} is not a folder", "to")
    if folder.is_dir() and any(folder.iterdir()) and not _is_whole(folder, record):
        raise InvalidRequest(f"{folder} holds something else; name a new one", "to")


class Download:
    """Of a whole artefact. Raises Failed if there is none to be had, InvalidRequest as
    `check_folder`, InternalError for names of files that lead elsewhere."""

    def __init__(self, to: str | Path, record: ArtifactRecord) -> None:
        if record.state is ArtifactState.FAILED:
            raise Failed(f"trial {record.number} could not be kept: {record.error}")
        check_folder(to, record)
        self._to, self._record = Path(to).absolute(), record
        self._done = _is_whole(self._to, record)
        content = "".join(f"{file.path} {file.sha256}\n" for file in record.files)
        digest = hashlib.sha256(content.encode()).hexdigest()[:12]
        self._half = self._to.parent / f".{self._to.name}.{digest}.part"
        self._parts = [Part(self._half, file) for file in record.files]
        self._held, self._closed = -1, False

    def missing(self) -> list[Part]:
        """What is to be fetched; makes the folder for it, and keeps others away from it until
        `close()`. Raises InvalidRequest if somebody else fetches the same to the same place."""
        if self._done:
            return []
        self._half.mkdir(parents=True, exist_ok=True)
        self._hold()
        if _is_whole(self._to, self._record):  # which has ended meanwhile
            with suppress(OSError):  # it may be the one that became whole
                self._half.rmdir()
            self._done = True
            return []
        return [part for part in self._parts if not part.is_there()]

    def _hold(self) -> None:
        """Of this machine; where a file system knows no locks, whoever fetches takes care."""
        try:
            held = os.open(self._half, os.O_RDONLY)  # whoever ends lets go of it
        except FileNotFoundError as error:  # it has got its name just now
            raise self._taken() from error
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(held)
            raise self._taken() from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(held)
                raise
        self._held = held
        if self._closed:  # while a thread was on its way here
            self.close()

    def _taken(self) -> InvalidRequest:
        said = f"another process fetches it to {self._to} now; wait for it, or name another"
        return InvalidRequest(said, "to")

    def finish(self) -> Path:
        """The folder, under its name. Everything is there."""
        if not self._done:
            if self._to.is_dir():  # and empty
                self._to.rmdir()
            self._half.rename(self._to)
        return self._to

    def close(self) -> None:
        """Others may go on."""
        self._closed, held, self._held = True, self._held, -1
        if held >= 0:
            with suppress(OSError):
                fcntl.flock(held, fcntl.LOCK_UN)  # also for who was forked meanwhile
            os.close(held)


class Part:
    """A file of an artefact."""

    def __init__(self, folder: Path, file: ArtifactFile) -> None:
        if Path(file.path).name != file.path or file.path in ("", ".", "..") or "\\" in file.path:
            raise InternalError(f"the artifact has a file with the name {file.path[:100]!r}")
        self.file, self._whole = file, folder / file.path
        self._half = folder / f".{file.path}.part"
        self._was_wrong = False

    def is_there(self) -> bool:
        """Whether the whole file is, with the right content."""
        return self._whole.is_file() and _digest(self._whole) == self.file.sha256

    @property
    def offset(self) -> int:
        """How much of it is there."""
        size = self._half.stat().st_size if self._half.is_file() else 0
        return size if size <= self.file.size else 0

    def add(self, offset: int, data: bytes) -> None:
        """What follows at `offset`."""
        with self._half.open("r+b" if offset else "wb") as half:
            half.seek(offset)
            half.write(data)

    def finish(self) -> None:
        """Gives the file its name, if it has the right content; else it is to be fetched again,
        from the beginning. Raises InternalError if that was so before."""
        if not self._half.exists():
            self._half.touch()
        if _digest(self._half) == self.file.sha256:
            self._half.replace(self._whole)
            return
        self._half.unlink()
        if self._was_wrong:
            raise InternalError(f"{self.file.path} does not come as it was sent")
        self._was_wrong = True


def _is_whole(folder: Path, record: ArtifactRecord | None) -> bool:
    if record is None or not record.files or not folder.is_dir():
        return False
    wanted = {file.path: file.sha256 for file in record.files}
    found = {path.name: path for path in folder.iterdir()}
    return set(found) == set(wanted) and all(
        path.is_file() and _digest(path) == wanted[name] for name, path in found.items()
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
