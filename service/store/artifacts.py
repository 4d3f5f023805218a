"""`Artifacts`: what is kept of trials. Asked for by users, made by whoever claims it, and its files
by content, in pieces, so that a part of one can be read. One method is one transaction.

Rows of one content are there once; a lock keeps those who add some and those who remove some
apart. It must not know how an artefact is made. Next: `../keeper.py`, which makes them.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Update,
    and_,
    delete,
    insert,
    select,
    update,
)

from ...errors import one_line
from ...search import Fenced, SearchSpec, TrialState
from ..errors import InternalError, NotAllowed, NotFound, OutOfRange
from ..records import ArtifactClaim, ArtifactFile, ArtifactRecord, ArtifactState
from .engine import Database, clock, lock_all
from .leased import claimable, released
from .queries import readable, search_of, search_row, trials_of
from .requests import is_first
from .schema import artifacts, files, pieces, searches, trials

PIECE = 256 << 10  # bytes
SEEDS = 3  # trainings, where nobody says how many
TRIES = 3  # makers that may be lost before it has failed
METHOD = "KEEP"  # of request ids
LOCK = "pieces"


class Artifacts:
    """A part of the store, `Store.artifacts`. Raises DatabaseError where the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, search_id: str, number: int, seeds: int, request_id: str = ""
    ) -> ArtifactRecord:
        """Queued, if there is none or the one that is there has failed; else as it is. With 0
        seeds, as many as that has, or `SEEDS`. Raises NotFound; NotAllowed if the trial has not
        succeeded, or the one that is there is of another number of seeds; AlreadyExists as for
        every request id."""
        with self._database.write() as connection:
            now = clock(connection)
            asked = (number, seeds)
            first = is_first(connection, request_id, METHOD, asked, search_id, now)
            key = search_row(connection, search_id, lock=True).key
            found = _row(connection, key, number)
            if first and found is None:
                _check_succeeded(connection, key, search_id, number)
                row = {"search_key": key, "number": number, "created": now, "epoch": 0}
                connection.execute(insert(artifacts).values(row | _queued(seeds or SEEDS, now)))
            elif first and found is not None and found.state == ArtifactState.FAILED:
                connection.execute(_change(key, number, _queued(seeds or found.seeds, now)))
            elif found is not None and seeds not in (0, found.seeds):
                raise NotAllowed(
                    f"trial {number} of {search_id} is kept from {found.seeds} seeds, not {seeds}"
                )
            return _record(connection, key, search_id, number)

    def get(self, search_id: str, number: int) -> ArtifactRecord:
        """Raises NotFound."""
        with self._database.read() as connection:
            key = search_row(connection, search_id).key
            return _record(connection, key, search_id, number)

    def piece(
        self, search_id: str, number: int, path: str, offset: int
    ) -> tuple[ArtifactFile, bytes]:
        """What a file has from a byte on, up to the end of a piece; nothing at its end. Raises
        NotFound, NotAllowed if it is not ready, OutOfRange behind the end."""
        with self._database.read() as connection:
            key = search_row(connection, search_id).key
            record = _record(connection, key, search_id, number)
            if record.state is not ArtifactState.READY:
                raise NotAllowed(f"the artifact of trial {number} is {record.state}, not READY")
            file = next((file for file in record.files if file.path == path), None)
            if file is None:
                known = ", ".join(file.path for file in record.files)
                raise NotFound(f"the artifact has no file {path[:100]!r}; it has {known}")
            if not 0 <= offset <= file.size:
                raise OutOfRange(f"offset: {path} has {file.size} bytes, not {offset}", "offset")
            p, begin = pieces.c, offset - offset % PIECE
            wanted = select(p.data).where(p.sha256 == file.sha256, p.at == begin)
            data = connection.execute(wanted).scalar_one_or_none()
            if data is None and offset < file.size:
                raise InternalError(f"a piece of {path} is missing, at {begin}")
            return file, (data or b"")[offset - begin :]

    # claims: who makes one

    def waiting(self) -> bool:
        """Whether there is one that could be claimed."""
        with self._database.read() as connection:
            some = select(artifacts.c.number).where(claimable(artifacts, clock(connection)))
            return connection.execute(some.limit(1)).first() is not None

    def claim(self, owner: str, lease_s: float) -> ArtifactClaim | None:
        """The one that has waited longest, or whose maker let its lease end; None if there is none.
        One that cannot be read, or has lost too many makers, has failed."""
        a = artifacts.c
        with self._database.write() as connection:
            now = clock(connection)
            wanted = select(artifacts).where(claimable(artifacts, now)).order_by(a.updated).limit(1)
            row = connection.execute(wanted.with_for_update(skip_locked=True)).one_or_none()
            if row is None:
                return None
            at: tuple[int, int] = row.search_key, row.number
            new: dict[str, Any] = {"updated": now}
            if row.tries >= TRIES:
                said = f"whoever made it was lost, {TRIES} times"
                connection.execute(_change(*at, new | _ended(ArtifactState.FAILED, said)))
                return None
            new |= {"state": ArtifactState.RUNNING.value, "owner": owner, "error": ""}
            new |= {"epoch": row.epoch + 1, "tries": row.tries + 1}
            new["lease_expires"] = now + timedelta(seconds=lease_s)
            connection.execute(_change(*at, new))
            try:
                id, spec = _of_search(connection, row.search_key)
                (trial,) = trials_of(connection, row.search_key, trials.c.number == row.number)
            except InternalError as error:  # nobody can make it
                failed = _ended(ArtifactState.FAILED, one_line(str(error)))
                connection.execute(_change(*at, failed))
                return None
        return ArtifactClaim(id, spec, trial, row.seeds, owner, row.epoch + 1)

    def renew(self, claim: ArtifactClaim, lease_s: float) -> bool:
        """Whether the claim still holds; its lease then ends in `lease_s` seconds."""
        with self._database.write() as connection:
            expires = clock(connection) + timedelta(seconds=lease_s)
            return _change_claimed(connection, claim, {"lease_expires": expires})

    def tell(self, claim: ArtifactClaim, done: int, total: int, step: str) -> bool:
        """How far it is; whether the claim still holds."""
        with self._database.write() as connection:
            new = {"done": done, "total": total, "step": one_line(step, 200)}
            return _change_claimed(connection, claim, new | {"updated": clock(connection)})

    def finish(self, claim: ArtifactClaim, folder: Path) -> None:
        """With the files of a folder, which has no folders. Raises Fenced."""
        contents = {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        with self._database.write() as connection:
            lock_all(connection, LOCK)
            done = _ended(ArtifactState.READY) | {"step": "", "updated": clock(connection)}
            _end_claimed(connection, claim, done)
            key = search_row(connection, claim.search_id).key
            for name, content in contents.items():
                _add_content(connection, digests[name], content)
                row = {"search_key": key, "number": claim.trial.number, "path": name}
                row |= {"size": len(content), "sha256": digests[name]}
                connection.execute(insert(files).values(row))

    def lost(self, owner: str) -> None:
        """Whoever made something for this owner is gone: it can be claimed at once, and counts as a
        try."""
        with self._database.write() as connection:
            connection.execute(released(artifacts, owner))

    def fail(self, claim: ArtifactClaim, error: str) -> None:
        """Raises Fenced."""
        with self._database.write() as connection:
            failed = _ended(ArtifactState.FAILED, one_line(error))
            _end_claimed(connection, claim, failed | {"updated": clock(connection)})


def let_go(connection: Connection, owner: str) -> None:
    """This owner ends: what it was making can be claimed at once, and does not count as a try."""
    connection.execute(released(artifacts, owner).values(tries=artifacts.c.tries - 1))


def delete_artifacts(connection: Connection, key: int, number: int | None = None) -> None:
    """Those of a search, or of one of its trials, and the content that nobody else has."""
    lock_all(connection, LOCK)
    these, of_these = artifacts.c.search_key == key, files.c.search_key == key
    if number is not None:
        these &= artifacts.c.number == number
        of_these &= files.c.number == number
    had = set(connection.execute(select(files.c.sha256).where(of_these)).scalars())
    connection.execute(delete(files).where(of_these))
    still = select(files.c.sha256).where(files.c.sha256.in_(had))
    left = had - set(connection.execute(still).scalars())
    connection.execute(delete(pieces).where(pieces.c.sha256.in_(left)))
    connection.execute(delete(artifacts).where(these))


def _queued(seeds: int, now: datetime) -> dict[str, Any]:
    fresh = {"done": 0, "total": 0, "step": "", "tries": 0, "updated": now}
    return fresh | {"seeds": seeds} | _ended(ArtifactState.QUEUED)


def _ended(state: ArtifactState, error: str = "") -> dict[str, Any]:
    """Nobody makes it any more."""
    return {"state": state.value, "error": error, "owner": "", "lease_expires": None}


def _change(key: int, number: int, new: dict[str, Any]) -> Update:
    a = artifacts.c
    return update(artifacts).where(a.search_key == key, a.number == number).values(new)


def _change_claimed(connection: Connection, claim: ArtifactClaim, new: dict[str, Any]) -> bool:
    """Changes what is claimed; False, and no change, if the claim does not hold."""
    a = artifacts.c
    own = select(searches.c.key).where(searches.c.id == claim.search_id).scalar_subquery()
    current = and_(
        a.search_key == own,
        a.number == claim.trial.number,
        a.state == ArtifactState.RUNNING.value,
        a.owner == claim.owner,
        a.epoch == claim.epoch,
    )
    changed = update(artifacts).where(current).values(new).returning(a.number)
    return connection.execute(changed).first() is not None


def _end_claimed(connection: Connection, claim: ArtifactClaim, new: dict[str, Any]) -> None:
    """Raises Fenced if the claim does not hold."""
    if not _change_claimed(connection, claim, new):
        raise Fenced(f"the artifact of trial {claim.trial.number} is left to others")


def _add_content(connection: Connection, sha256: str, content: bytes) -> None:
    """Unless it is there."""
    known = select(pieces.c.at).where(pieces.c.sha256 == sha256).limit(1)
    if connection.execute(known).first() is None:
        for at in range(0, len(content), PIECE):
            piece = {"sha256": sha256, "at": at, "data": content[at : at + PIECE]}
            connection.execute(insert(pieces).values(piece))


def _row(connection: Connection, key: int, number: int) -> Row[Any] | None:
    a = artifacts.c
    wanted = select(artifacts).where(a.search_key == key, a.number == number)
    return connection.execute(wanted).one_or_none()


def _record(connection: Connection, key: int, search_id: str, number: int) -> ArtifactRecord:
    """Raises NotFound."""
    row = _row(connection, key, number)
    if row is None:
        raise NotFound(f"nobody has asked for an artifact of trial {number} of {search_id}")
    f = files.c
    of_this = select(files).where(f.search_key == key, f.number == number).order_by(f.path)
    found = tuple(ArtifactFile(r.path, r.size, r.sha256) for r in connection.execute(of_this))
    return readable(
        f"artifact {search_id}/{number}",
        lambda: ArtifactRecord(
            search_id=search_id,
            number=number,
            state=ArtifactState(row.state),
            error=row.error,
            seeds=row.seeds,
            done=row.done,
            total=row.total,
            step=row.step,
            files=found,
            created=row.created,
            updated=row.updated,
        ),
    )


def _check_succeeded(connection: Connection, key: int, search_id: str, number: int) -> None:
    """Raises NotFound, NotAllowed."""
    t = trials.c
    state = connection.execute(
        select(t.state).where(t.search_key == key, t.number == number)
    ).scalar_one_or_none()
    if state is None:
        raise NotFound(f"the search {search_id} has no trial {number}")
    if state != TrialState.SUCCEEDED:
        said = f"trial {number} of {search_id} is {state}; only one that SUCCEEDED can be kept"
        raise NotAllowed(said)


def _of_search(connection: Connection, key: int) -> tuple[str, SearchSpec]:
    row = connection.execute(select(searches).where(searches.c.key == key)).one()
    return row.id, search_of(row).spec
