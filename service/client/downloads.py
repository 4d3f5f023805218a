"""Files that come in pieces: half of one stays where it is, so that the rest can follow.

It must not know where pieces come from. Next: `sync.py`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import Failed, InternalError, InvalidRequest
from ..records import ArtifactFile, ArtifactRecord, ArtifactState


class Part:
    """A file of an artefact on its way into a folder."""

    def __init__(self, folder: Path, file: ArtifactFile) -> None:
        """Raises InternalError for a name that would lead elsewhere."""
        if Path(file.path).name != file.path or file.path in ("", ".", "..") or "\\" in file.path:
            raise InternalError(f"the artifact has a file with the name {file.path[:100]!r}")
        self.file, self._whole = file, folder / file.path
        self._half = folder / f".{file.path}.part"

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
        """Gives the file its name. Raises InternalError, and begins again the next time, if its
        content is not what was promised."""
        if not self._half.exists():
            self._half.touch()
        if _digest(self._half) != self.file.sha256:
            self._half.unlink()
            raise InternalError(f"{self.file.path} has not come as it was sent; try again")
        self._half.replace(self._whole)


def is_open(record: ArtifactRecord) -> bool:
    """Whether it is still to come."""
    return record.state in (ArtifactState.QUEUED, ArtifactState.RUNNING)


def check_folder(folder: str | Path, record: ArtifactRecord) -> None:
    """Raises InvalidRequest if the folder holds what is not of this artefact."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InvalidRequest(f"{folder} is not a folder", "to")
    names = {name for file in record.files for name in (file.path, f".{file.path}.part")}
    if folder.is_dir() and (others := sorted({path.name for path in folder.iterdir()} - names)):
        raise InvalidRequest(f"{folder} holds something else, {others[0]}; name a new one", "to")


def prepared(folder: str | Path, record: ArtifactRecord) -> list[Part]:
    """Makes the folder; the files that are not there yet. Raises Failed if the artefact could not
    be made, InvalidRequest as `check_folder`."""
    if record.state is ArtifactState.FAILED:
        raise Failed(f"trial {record.number} could not be kept: {record.error}")
    parts = [Part(Path(folder), file) for file in record.files]
    check_folder(folder, record)
    Path(folder).mkdir(parents=True, exist_ok=True)
    return [part for part in parts if not part.is_there()]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
