"""The tables, as typed models. Statements elsewhere use the tables behind them (Core, no sessions).

What is filtered or sorted by has a column; what is only carried along is JSON text, which every
database keeps as it was written. A change here needs a migration, and
`tests/service/test_migrations.py` compares the two. It must not know how tables are used.
Next: `migrations/versions/`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

PREFIX = "formwright_"
NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcTime(TypeDecorator[datetime]):
    """An aware time. SQLite has no time zones: there it is kept as UTC without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    @property
    def python_type(self) -> type[datetime]:
        return datetime

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Carries the metadata of our tables, and of no others."""

    metadata = MetaData(naming_convention=NAMES)


class SearchRow(Base):
    """A search and its lease. `key` is the order in which searches came; `owner` is empty and
    `lease_expires` NULL while nobody runs it; `epoch` counts the claims, `revision` the changes
    that users made. `asked` is a digest of what `request_id` asked for. The counts are of its
    trials, so that nobody has to count them. `belongs_to` names whose token made it."""

    __tablename__ = f"{PREFIX}searches"

    key: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    request_id: Mapped[str] = mapped_column(Text, unique=True)
    asked: Mapped[str] = mapped_column(String(64), server_default="")
    display_name: Mapped[str] = mapped_column(Text)
    spec: Mapped[str] = mapped_column(Text)
    space: Mapped[str] = mapped_column(Text)
    task: Mapped[str] = mapped_column(Text)
    priority: Mapped[int] = mapped_column(server_default="0")
    revision: Mapped[int] = mapped_column(server_default="1")
    state: Mapped[str] = mapped_column(String(16))
    error: Mapped[str] = mapped_column(Text)
    owner: Mapped[str] = mapped_column(Text)
    epoch: Mapped[int]
    lease_expires: Mapped[datetime | None] = mapped_column(UtcTime)
    last_sequence: Mapped[int]
    pending: Mapped[int] = mapped_column(server_default="0")
    running: Mapped[int] = mapped_column(server_default="0")
    succeeded: Mapped[int] = mapped_column(server_default="0")
    pruned: Mapped[int] = mapped_column(server_default="0")
    failed: Mapped[int] = mapped_column(server_default="0")
    created: Mapped[datetime] = mapped_column(UtcTime)
    updated: Mapped[datetime] = mapped_column(UtcTime)
    belongs_to: Mapped[str] = mapped_column(String(63), server_default="")

    __table_args__ = (Index(None, "state", "priority", "key"), Index(None, "belongs_to", "key"))


class RequestRow(Base):
    """A request that has had its effect, by the id that its sender gave it; one that made a search
    stands with that while it is there. `asked` is a digest of it, `result` the search."""

    __tablename__ = f"{PREFIX}requests"

    id: Mapped[str] = mapped_column(String(100), primary_key=True)
    method: Mapped[str] = mapped_column(String(32))
    asked: Mapped[str] = mapped_column(String(64))
    result: Mapped[str] = mapped_column(String(64))
    created: Mapped[datetime] = mapped_column(UtcTime)


class ArchitectureRow(Base):
    """An architecture by its fingerprint, once, whichever searches propose it."""

    __tablename__ = f"{PREFIX}architectures"

    fingerprint: Mapped[str] = mapped_column(String(80), primary_key=True)
    spec: Mapped[str] = mapped_column(Text)


class TrialRow(Base):
    """The newest state of a trial. Its values are in `MetricRow`."""

    __tablename__ = f"{PREFIX}trials"

    search_key: Mapped[int] = mapped_column(ForeignKey(SearchRow.key), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    attempt: Mapped[int]
    rung: Mapped[int] = mapped_column(server_default="0")
    fingerprint: Mapped[str] = mapped_column(ForeignKey(ArchitectureRow.fingerprint))
    machine: Mapped[str] = mapped_column(String(80), server_default="")
    params: Mapped[str] = mapped_column(Text)
    details: Mapped[str] = mapped_column(Text)
    error: Mapped[str] = mapped_column(Text)
    created: Mapped[datetime] = mapped_column(UtcTime)
    updated: Mapped[datetime] = mapped_column(UtcTime)

    __table_args__ = (Index(None, "search_key", "state"), Index(None, "fingerprint", "state"))


class MetricRow(Base):
    """One finite value of one trial, those of a metric side by side; the best of a metric is the
    end of an index."""

    __tablename__ = f"{PREFIX}metrics"

    search_key: Mapped[int] = mapped_column(primary_key=True)
    metric: Mapped[str] = mapped_column(String(64), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float] = mapped_column(Double)

    __table_args__ = (
        ForeignKeyConstraint(["search_key", "number"], [TrialRow.search_key, TrialRow.number]),
        Index(None, "search_key", "metric", "value"),
        Index(None, "search_key", "number"),
        {"sqlite_with_rowid": False},
    )


class FrontRow(Base):
    """A trial on the front of its search, by the search's own objectives: among what one machine
    has measured where they are of a machine, else `machine` is empty."""

    __tablename__ = f"{PREFIX}front"

    search_key: Mapped[int] = mapped_column(primary_key=True)
    machine: Mapped[str] = mapped_column(String(80), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)

    __table_args__ = (
        ForeignKeyConstraint(["search_key", "number"], [TrialRow.search_key, TrialRow.number]),
    )


class EventRow(Base):
    """One change of a search. `number` is NULL for a change of the search itself; `payload` is
    what was new, as JSON. `sequence` is counted per search, in the transaction of the change: a
    database's own sequence commits out of order, and a reader would skip events."""

    __tablename__ = f"{PREFIX}events"

    search_key: Mapped[int] = mapped_column(ForeignKey(SearchRow.key), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    time: Mapped[datetime] = mapped_column(UtcTime)
    number: Mapped[int | None]
    payload: Mapped[str] = mapped_column(Text)

    __table_args__ = (
        ForeignKeyConstraint(["search_key", "number"], [TrialRow.search_key, TrialRow.number]),
        Index(None, "search_key", "number"),
    )


class ArtifactRow(Base):
    """What is kept of a trial, and the lease of who makes it. `tries` counts the claims since
    somebody has asked for it; `epoch` all of them."""

    __tablename__ = f"{PREFIX}artifacts"

    search_key: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    seeds: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))
    error: Mapped[str] = mapped_column(Text)
    done: Mapped[int]
    total: Mapped[int]
    step: Mapped[str] = mapped_column(Text)
    owner: Mapped[str] = mapped_column(Text)
    epoch: Mapped[int]
    tries: Mapped[int]
    lease_expires: Mapped[datetime | None] = mapped_column(UtcTime)
    created: Mapped[datetime] = mapped_column(UtcTime)
    updated: Mapped[datetime] = mapped_column(UtcTime)

    __table_args__ = (
        ForeignKeyConstraint(["search_key", "number"], [TrialRow.search_key, TrialRow.number]),
        Index(None, "state", "updated"),
    )


class FileRow(Base):
    """A file of an artefact; its content is in `PieceRow`."""

    __tablename__ = f"{PREFIX}files"

    search_key: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(String(200), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64), index=True)

    __table_args__ = (
        ForeignKeyConstraint(
            ["search_key", "number"], [ArtifactRow.search_key, ArtifactRow.number]
        ),
    )


class PieceRow(Base):
    """A piece of a content, by its SHA-256, once, whichever files have it; `at` is its place."""

    __tablename__ = f"{PREFIX}pieces"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    at: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[bytes] = mapped_column(LargeBinary)


class TokenRow(Base):
    """A token: `hash` is all that is kept of its secret. None is ever removed, so that an id means
    one token for ever."""

    __tablename__ = f"{PREFIX}tokens"

    id: Mapped[str] = mapped_column(String(12), primary_key=True)
    owner: Mapped[str] = mapped_column(String(63))
    scope: Mapped[int]
    hash: Mapped[str] = mapped_column(String(64))
    created: Mapped[datetime] = mapped_column(UtcTime)
    expires: Mapped[datetime | None] = mapped_column(UtcTime)
    revoked: Mapped[datetime | None] = mapped_column(UtcTime)


class SessionRow(Base):
    """Somebody who looks at the page, let in by a token."""

    __tablename__ = f"{PREFIX}sessions"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    token: Mapped[str] = mapped_column(ForeignKey(TokenRow.id))
    expires: Mapped[datetime] = mapped_column(UtcTime)


searches = cast(Table, SearchRow.__table__)
architectures = cast(Table, ArchitectureRow.__table__)
requests = cast(Table, RequestRow.__table__)
trials = cast(Table, TrialRow.__table__)
front = cast(Table, FrontRow.__table__)
metrics = cast(Table, MetricRow.__table__)
events = cast(Table, EventRow.__table__)
artifacts = cast(Table, ArtifactRow.__table__)
files = cast(Table, FileRow.__table__)
pieces = cast(Table, PieceRow.__table__)
tokens = cast(Table, TokenRow.__table__)
sessions = cast(Table, SessionRow.__table__)
