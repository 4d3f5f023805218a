"""The search service: gRPC server, store, scheduler and client.

It may import what `formwright.search` exports; it must not import ray. The flow: `cli/` or
`client/` -> the wire -> `servicer.py` -> `rpc/` -> `store/`, from where `scheduler.py`
takes searches and runs them. Everything is loaded on first use (PEP 562), so that a client needs
no SQLAlchemy and no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ != "formwright.service":
    raise ImportError("import formwright.service, not service")

from ..extras import needs

if TYPE_CHECKING:
    from .client import AsyncClient as AsyncClient
    from .client import Client as Client
    from .client import Trust as Trust
    from .embedded import local_server as local_server
    from .errors import ServiceError as ServiceError
    from .exports import study_of as study_of
    from .records import ArtifactRecord as ArtifactRecord
    from .records import ArtifactState as ArtifactState
    from .records import Event as Event
    from .records import SearchRecord as SearchRecord
    from .records import SearchState as SearchState
    from .records import TrialRecord as TrialRecord
    from .results import result_of as result_of
    from .results import to_frame as to_frame
    from .server import serve as serve
    from .settings import Settings as Settings
    from .store.backups import backup as backup
    from .store.restoring import restore as restore

# name -> the module that owns it
_LAZY = {
    "Client": ".client",
    "AsyncClient": ".client",
    "Trust": ".client",
    "SearchRecord": ".records",
    "SearchState": ".records",
    "TrialRecord": ".records",
    "ArtifactRecord": ".records",
    "ArtifactState": ".records",
    "Event": ".records",
    "ServiceError": ".errors",
    "Settings": ".settings",
    "result_of": ".results",
    "to_frame": ".results",
    "study_of": ".exports",
    "serve": ".server",
    "local_server": ".embedded",
    "backup": ".store.backups",
    "restore": ".store.restoring",
}
_OF_A_SERVER = ("serve", "backup", "restore")  # need more than a client does

__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needs("service" if name in _OF_A_SERVER else "client", f"{__name__}.{name}"):
        return getattr(import_module(_LAZY[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
