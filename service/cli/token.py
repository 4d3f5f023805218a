"""`formwright token create | list | revoke`: who may call a server, in its database.

Only who can open the database can do this; no call makes a token. Next: `../store/tokens.py`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...extras import needs
from ..access import SCOPES
from ..errors import InvalidRequest
from ..rows import Row
from .common import add_setting, parser, run
from .output import add_format, show

if TYPE_CHECKING:
    from ..access import TokenRecord
    from ..store import Store

NAMES = ("id", "owner", "scope", "state", "created", "expires")
NEVER = "never"
EXPIRES = "90d"
_SPAN = re.compile(r"([1-9][0-9]{0,4})([mhdy])", re.ASCII)
_UNIT = {
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "y": timedelta(days=365),
}


def token_parser() -> argparse.ArgumentParser:
    made = parser("token", "Who may call a server: tokens in its database.", server=False)
    actions = made.add_subparsers(dest="action", required=True, metavar="create | list | revoke")
    create = actions.add_parser("create", help="print a new token, once", description=_CREATE)
    create.add_argument("--owner", required=True, help="whose searches it sees and makes")
    create.add_argument("--scope", choices=list(SCOPES), default="submit", help="(default: submit)")
    create.add_argument(
        "--expires", default=EXPIRES, metavar="SPAN", help=f"as 12h, 90d, 1y, never ({EXPIRES})"
    )
    listed = actions.add_parser("list", help="all tokens, without their secrets")
    add_format(listed)
    revoke = actions.add_parser("revoke", help="make a token good for nothing")
    revoke.add_argument("id", help="of the token, as `list` shows it")
    for each in (create, listed, revoke):
        add_setting(each, "database", metavar="FILE")
    return made


_CREATE = (
    "read: see what the owner's searches have found. submit: make, change and end them too. "
    "admin: the same with everybody's. The token is printed once; only its hash is kept."
)


def token(arguments: list[str]) -> int:
    return run(token_parser(), arguments, _token)


def _token(given: argparse.Namespace, console: Console) -> int:
    with needs("service", "`formwright token`"):
        from ..store import open_store
    expires = expiry(given.expires, datetime.now(UTC)) if given.action == "create" else None
    store = open_store(given.database)
    try:
        return _ACTIONS[given.action](given, console, store, expires)
    finally:
        store.close()


def _create(
    given: argparse.Namespace, console: Console, store: Store, expires: datetime | None
) -> int:
    text, record = store.access.create(given.owner, SCOPES[given.scope], expires)
    until = f"until {expires:%Y-%m-%d %H:%M} UTC" if expires else "for ever"
    said = f"token {record.id}: {given.scope} for {given.owner}, {until}; it is shown only now"
    print(said, file=sys.stderr)
    print(text)
    return 0


def _list(
    given: argparse.Namespace, console: Console, store: Store, expires: datetime | None
) -> int:
    now, records = datetime.now(UTC), store.access.list()
    rows = [_row(record, now) for record in records]
    show(given, console, rows, lambda: _table(rows))
    return 0


def _revoke(
    given: argparse.Namespace, console: Console, store: Store, expires: datetime | None
) -> int:
    record = store.access.revoke(given.id)
    console.print(f"token {record.id} of {record.owner} is revoked", highlight=False, markup=False)
    return 0


_ACTIONS = {"create": _create, "list": _list, "revoke": _revoke}


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in NAMES:
        table.add_column(name)
    for row in rows:
        table.add_row(*(Text(_plain(name, str(row[name] or ""))) for name in NAMES))
    return table


def _plain(name: str, value: str) -> str:
    """A time to the minute."""
    return value[:16].replace("T", " ") if name in NAMES[-2:] else value


def _row(record: TokenRecord, now: datetime) -> Row:
    created = record.created.isoformat(timespec="minutes")
    expires = record.expires.isoformat(timespec="minutes") if record.expires else None
    values = (record.id, record.owner, record.scope.word, record.state(now), created, expires)
    return dict(zip(NAMES, values, strict=True))


def expiry(span: str, now: datetime) -> datetime | None:
    """The end of a span from now on; None for never. Raises InvalidRequest.

    >>> expiry("12h", datetime(2026, 1, 31, tzinfo=UTC)).isoformat()
    '2026-01-31T12:00:00+00:00'
    """
    if span == NEVER:
        return None
    found = _SPAN.fullmatch(span)
    if not found:
        raise InvalidRequest(f"expires: wanted a span as 12h, 90d, 1y, or never; got {span!r}")
    try:
        return now + int(found[1]) * _UNIT[found[2]]
    except OverflowError:
        raise InvalidRequest(f"expires: {span} is too far away; never is a word too") from None
