"""A table of names that can be extended from outside: built-in rows, and installed entry points.

A row says where the thing is (`module:attribute`), so that listing names imports nothing; it is
loaded at first use. It must not know what the things are. Next: the tables in `blocks/`,
`space/`, `tasks/`, `propose/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from ..extras import needs
from .errors import SpecError, UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names of one `kind`, each loaded on first use. Built-in rows win over entry points of
    `group`, so that an installed package cannot replace what is ours."""

    def __init__(self, kind: str, group: str, wanted: type[T], rows: Mapping[str, str]) -> None:
        self.kind = kind
        self._group = group
        self._wanted = wanted
        self._rows = rows
        self._loaded: dict[str, T] = {}

    def names(self) -> list[str]:
        """Every known name, sorted; nothing is imported."""
        return sorted({*self._rows, *(e.name for e in entry_points(group=self._group))})

    def check(self, name: object, field: str = "") -> None:
        """Raises UnknownNameError unless `name` is known; imports nothing."""
        if isinstance(name, str) and name in self._rows:
            return  # without a look at what is installed, which takes milliseconds
        if not isinstance(name, str) or name not in self.names():
            raise UnknownNameError(self.kind, name, self.names(), field)

    def load(self, name: str, field: str = "") -> T:
        """What is called `name`. Raises UnknownNameError, or SpecError if an installed one is
        broken."""
        if name not in self._loaded:
            self.check(name, field)
            self._loaded[name] = self._import(name)
        return self._loaded[name]

    def _import(self, name: str) -> T:
        if name in self._rows:
            module, _, attribute = self._rows[name].partition(":")
            with needs("search", f"the {self.kind} {name!r}"):
                found = getattr(import_module(module, __package__), attribute)
        else:
            (entry,) = entry_points(group=self._group, name=name)
            try:
                found = entry.load()
            except (Exception, SystemExit) as error:
                why = f"{type(error).__name__}: {error}"
                raise SpecError(f"{self.kind} {name!r} ({entry.value}) fails: {why}") from error
        if not isinstance(found, self._wanted):
            kind = type(found).__name__
            raise SpecError(f"{self.kind} {name!r} is a {kind}, not a {self._wanted.__name__}")
        return found
