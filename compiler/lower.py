"""From a graph to something that runs: Inductor by default, or any backend that Dynamo knows.

It must not know the passes or the dispatch. Inductor's own attention patterns are switched off for
our graphs, because they are unsound on this release (see `torch_inductor.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar

from torch import fx

from .errors import OptionError, UnknownNameError
from .torch_compat import list_backends, lookup_backend
from .torch_inductor import inductor_lower, inductor_mode, inductor_option_names

SELF = "formwright"


@dataclass(frozen=True)
class Target:
    """A code generator with its options. Called with a graph and inputs (real or fake), it returns
    what runs them; it takes ownership of the graph."""

    name: str
    options: Mapping[str, Any]
    mode: str | None = None

    makes: ClassVar[str] = "compiled"
    """What the report says of a variant that went through here."""

    def __call__(self, graph: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        if self.name == "inductor":
            return inductor_lower(graph, inputs, {**inductor_mode(self.mode), **dict(self.options)})
        keywords: dict[str, Any] = {}
        if self.options:
            keywords["options"] = dict(self.options)
        if self.mode:
            keywords["mode"] = self.mode
        return lookup_backend(self.name)(graph, list(inputs), **keywords)


def target(name: str, options: Mapping[str, Any], mode: str | None = None) -> Target:
    """The target called `name`. Raises UnknownNameError for an unknown target or mode, OptionError
    for an unknown Inductor option, naming what is known."""
    if name == SELF:
        raise OptionError(f"{SELF!r} cannot be its own target")
    known = [n for n in list_backends(exclude_tags=()) if n != SELF]
    if name not in known:
        raise UnknownNameError("target", name, known)
    if name == "inductor":
        names = set(inductor_option_names()) if options else set()
        for option in options:
            if str(option).replace("-", "_") not in names:
                raise _unknown_inductor_option(option, names)
        try:
            inductor_mode(mode)
        except KeyError as error:
            raise UnknownNameError("mode", mode, error.args[0]) from None
    return Target(name, options, mode)


def _unknown_inductor_option(option: object, names: set[str]) -> OptionError:
    """Inductor has hundreds of options: name the nearest, and where to find all."""
    near = get_close_matches(str(option), sorted(names), n=3)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    return OptionError(
        f"unknown Inductor option {option!r}{hint}; all: torch._inductor.list_options()"
    )
