"""Tokens and other secrets: who may read the files that hold them, and whether the server takes
ours.

What is said never holds a secret. Next: `server.py`, which asks the server.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from ...errors import FormwrightError, one_line
from ...extras import MissingExtraError, needs
from ..access import read_token
from ..configured import Value, read_file
from ..settings import SETTINGS
from .finding import Finding, failed, ok, warning
from .look import Look
from .server import address_of, asked, reached, trust

SOON = timedelta(days=14)
CREATE = "formwright token create"


def of_files(look: Look) -> Iterator[Finding]:
    """Who may read what is secret."""
    found = [*_of_token(look), *_of_token_file(look), *_of_settings_file(look)]
    yield from found or [ok("secrets", "no file here shows one to others")]


def _of_token(look: Look) -> Iterator[Finding]:
    given = look.text("token")
    if given and read_token(given) is None:
        variable = SETTINGS["token"].variable
        said = f"{variable} holds no token; one looks like fw_ID_SECRET"
        yield failed("token", said, f"unset {variable}, or set it to what `{CREATE}` printed")


def _of_token_file(look: Look) -> Iterator[Finding]:
    given = look.text("token_file")
    if not given:
        return
    path = Path(given).expanduser()
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        said = f"cannot read the token in {path}: {why}"
        remedy = (
            f"{CREATE} ... > {path}; chmod 600 {path}; or {look.variable('token_file', 'FILE')}"
        )
        yield failed("token file", said, remedy)
        return
    if read_token(text) is None:
        yield failed("token file", f"{path} holds no token", f"{CREATE} ... > {path}")
    yield from _of_readers("token file", path, "your token")


def _of_settings_file(look: Look) -> Iterator[Finding]:
    name, values = read_file()
    database = str(values.get("serve.database", ""))
    if name and Value(database, name).shown() != database:
        yield from _of_readers("settings file", Path(name), "the password of the database")


def _of_readers(name: str, path: Path, secret: str) -> Iterator[Finding]:
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o044:
        yield warning(name, f"others may read {secret} in {path} ({mode:o})", f"chmod 600 {path}")


def of_token(look: Look) -> Iterator[Finding]:
    """Whether the server wants one, and takes ours."""
    try:
        with needs("client", "a client"):
            from ..probe import Probed
    except MissingExtraError:  # the check of the server says so
        return
    if not reached(look):
        return
    found, token, address = asked(look), trust(look).token, address_of(look)
    if not isinstance(found, Probed):
        return
    code, why = found.token
    get = f"{CREATE} --owner YOU --scope submit, where the database is; then "
    get += look.variable("token_file", "FILE")
    if not code and not found.without[0]:
        said = f"{address} asks for none" + (", and ours is sent for nothing" if token else "")
        yield ok("token", said)
    elif not code:
        yield _of_expiry(look, token, address)
    elif not token:
        yield failed("token", f"{address} wants one, and we have none", get)
    else:
        yield failed("token", f"{address} does not take ours: {one_line(why, 200)}", get)


def _of_expiry(look: Look, token: str, address: str) -> Finding:
    """How long ours is still good, where the database is at hand."""
    said = f"{address} takes ours"
    id, _ = read_token(token) or ("", "")
    ends = None
    with suppress(FormwrightError, ImportError):
        from ..store.health import token_ends

        ends = token_ends(look.text("database"), id)
    if ends is None:
        return ok("token", f"{said}, {id}")
    left = ends - look.clock()
    said = f"{said}, {id}, until {ends:%Y-%m-%d %H:%M} UTC"
    if left < SOON:
        remedy = f"{CREATE} another, put it in place, then: formwright token revoke {id}"
        return warning("token", f"{said}, {max(0, left.days)} days", remedy)
    return ok("token", said)
