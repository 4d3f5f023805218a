"""Resource names: `searches/{id}`, `searches/{id}/trials/{n}`, that with `/artifact`, and
`architectures/{fingerprint}`.

The only place that makes and reads them. It must not know the store or the wire.
"""

from __future__ import annotations

import re
import socket
import uuid

from .errors import InvalidRequest

_SEARCH = re.compile(r"searches/([0-9a-z][0-9a-z-]{0,62})", re.ASCII)
_TRIAL = re.compile(r"searches/([0-9a-z][0-9a-z-]{0,62})/trials/([0-9]{1,9})", re.ASCII)
_ARTIFACT = re.compile(r"searches/([0-9a-z][0-9a-z-]{0,62})/trials/([0-9]{1,9})/artifact", re.ASCII)
_ARCHITECTURE = re.compile(r"architectures/(a[0-9]{1,3}:[0-9a-f]{64})", re.ASCII)


def new_owner() -> str:
    """A name for who runs searches, of this host and of nobody else."""
    return f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"


def search_name(id: str) -> str:
    return f"searches/{id}"


def trial_name(id: str, number: int) -> str:
    return f"searches/{id}/trials/{number}"


def artifact_name(id: str, number: int) -> str:
    return f"{trial_name(id, number)}/artifact"


def architecture_name(fingerprint: str) -> str:
    return f"architectures/{fingerprint}"


def search_id(name: str, field: str = "name") -> str:
    """The id in a search's name. Raises InvalidRequest.

    >>> search_id("searches/0a1b")
    '0a1b'
    """
    return _read(_SEARCH, name, "a search; wanted searches/{id}", field)[0]


def trial_id(name: str, field: str = "name") -> tuple[str, int]:
    """The search's id and the number in a trial's name. Raises InvalidRequest.

    >>> trial_id("searches/0a1b/trials/7")
    ('0a1b', 7)
    """
    wanted = "a trial; wanted searches/{id}/trials/{number}"
    id, number = _read(_TRIAL, name, wanted, field)
    return id, int(number)


def artifact_id(name: str, field: str = "name") -> tuple[str, int]:
    """The search's id and the trial's number in an artefact's name. Raises InvalidRequest."""
    wanted = "an artifact; wanted searches/{id}/trials/{number}/artifact"
    id, number = _read(_ARTIFACT, name, wanted, field)
    return id, int(number)


def ids_in(name: str) -> dict[str, str]:
    """The `search`, `trial` and `artifact` that a name of either is about; empty for any other.

    >>> ids_in("searches/0a1b/trials/7")
    {'search': '0a1b', 'trial': '7'}
    """
    if found := _SEARCH.fullmatch(name):
        return {"search": found[1]}
    if found := _TRIAL.fullmatch(name) or _ARTIFACT.fullmatch(name):
        whole = {} if name.endswith(found[2]) else {"artifact": name}
        return {"search": found[1], "trial": found[2], **whole}
    return {}


def fingerprint(name: str, field: str = "name") -> str:
    """The fingerprint in an architecture's name. Raises InvalidRequest."""
    wanted = "an architecture; wanted architectures/{fingerprint}"
    return _read(_ARCHITECTURE, name, wanted, field)[0]


def _read(form: re.Pattern[str], name: str, wanted: str, field: str) -> tuple[str, ...]:
    found = form.fullmatch(name)
    if not found:
        raise InvalidRequest(f"{name[:100]!r} is not the name of {wanted}", field)
    return found.groups()
