"""`labels`: what a piece of work is about, said once and written with everything that it logs.

They hold for the task or thread that entered the block, and for what it starts by `carried`; two
calls never see each other's. It must not know how they are written. Next: `logs.py`.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType, TracebackType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# the ids there are, in the order in which they are written. `caller` is an owner and the id of a
# token, never the token; `call` is the id that an INTERNAL error names.
IDS = ("call", "method", "caller", "search", "trial", "artifact")
_NONE: Mapping[str, str] = MappingProxyType({})
_current: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar(
    "formwright_labels", default=_NONE
)


class labels:
    """`with labels(search=id): ...`; those of an outer block stay. An empty one is none."""

    __slots__ = ("_ids", "_token")

    def __init__(self, **ids: object) -> None:
        self._ids = ids

    def __enter__(self) -> None:
        new = {name: str(value) for name, value in self._ids.items() if value != ""}
        self._token = _current.set({**_current.get(), **new})

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _current.reset(self._token)


def add(**ids: object) -> None:
    """More for the innermost block that holds here, seen by whoever opened it too: a thread finds
    out what a call is about, and the call says so at its end. Nothing outside of any block."""
    here = _current.get()
    if isinstance(here, dict):
        here.update((name, str(value)) for name, value in ids.items())


def current() -> dict[str, str]:
    """The labels that hold here; a copy, for others may add to them."""
    return dict(_current.get())


def carried(call: Callable[P, T]) -> Callable[P, T]:
    """The same function with the labels that hold now, for a thread or an executor, which would
    begin without any."""
    return partial(contextvars.copy_context().run, call)
