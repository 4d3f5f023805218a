"""What is decided at run time: the one mechanism for everything that the graph cannot tell.

A compiled graph is a tree. A `Choice` asks its derivation (the prologue: small, eager, outside
autograd) and goes to one of two sides; a `Leaf` is a graph, lowered at its first use. The side
where every derivation holds is lowered while Dynamo still compiles, so that its shape guards are
Dynamo's; the other sides are made when they are first needed, and check the guards they add.

    Choice(prepared) ── holds ──> Leaf("prepared")   takes the derived values as further inputs
                     └─ else ───> Leaf("general")

It must not know any pass. Next: `pipeline.py` builds the tree, `lower.py` makes a leaf run.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from .passes.contract import Derivation

log = logging.getLogger(__name__)

Executable = Callable[..., Any]
# (graph, name of the variant, real inputs) -> what runs it, and the guards that it needs
Lower = Callable[[fx.GraphModule, str, Sequence[Any]], tuple[Executable, list[Callable[..., bool]]]]


@dataclass
class Leaf:
    """One variant: a graph, and what runs it once it has been lowered."""

    name: str
    graph: fx.GraphModule
    executable: Executable | None = None
    guards: list[Callable[..., bool]] = field(default_factory=list)


@dataclass
class Choice:
    """Go to `holds` with the derived values as further inputs, or to what `otherwise` makes."""

    derivation: Derivation
    holds: Leaf | Choice
    make_otherwise: Callable[[], Leaf | Choice]
    otherwise: Leaf | Choice | None = None


class Dispatcher:
    """Runs a tree of variants. Several threads may call it at once."""

    def __init__(self, root: Leaf | Choice, lower: Lower, fallback: Executable) -> None:
        self._root = root
        self._lower = lower
        self._fallback = fallback
        self._lock = threading.RLock()

    def __call__(self, *inputs: Any) -> Any:
        node: Leaf | Choice = self._root
        derived: tuple[Any, ...] = ()
        while isinstance(node, Choice):
            values = _derive(node.derivation, inputs)
            if values is None:
                node = node.otherwise or self._otherwise(node)
            else:
                node, derived = node.holds, derived + values
        if node.executable is None:
            self._lower_once(node, (*inputs, *derived))
        assert node.executable is not None
        if node.guards and not all(holds(*inputs, *derived) for holds in node.guards):
            return self._fallback(*inputs)
        return node.executable(*inputs, *derived)

    @property
    def first(self) -> Leaf:
        """The variant for which every derivation holds."""
        node = self._root
        while isinstance(node, Choice):
            node = node.holds
        return node

    def _lower_once(self, leaf: Leaf, inputs: Sequence[Any]) -> None:
        """Lower a leaf, once, whoever comes first."""
        with self._lock:
            if leaf.executable is None:
                executable, guards = self._lower(leaf.graph, leaf.name, inputs)
                leaf.guards = guards  # first: who sees an executable asks no lock for its guards
                leaf.executable = executable

    def _otherwise(self, choice: Choice) -> Leaf | Choice:
        with self._lock:
            if choice.otherwise is None:
                choice.otherwise = choice.make_otherwise()
            return choice.otherwise


def _derive(derivation: Derivation, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """What a derivation gives. One that fails does not hold: if it is the inputs that are wrong,
    the graph itself will say so, in the user's terms."""
    try:
        return derivation.derive(inputs)
    except Exception:
        log.debug("derivation %s failed", derivation.name, exc_info=True)
        return None
