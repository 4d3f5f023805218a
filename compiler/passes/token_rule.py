"""What a rule is: the two halves of what is known of a token-wise operator.

It must not know any operator. Next: `token_rules.py`, the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import fx

from .axes import Axis, Layout, Unreadable
from .token_axes import TokenAxes


class Packs(Protocol):
    """What a rule needs of the packer."""

    axes: TokenAxes

    def aligned(self, arg: Any, layout: Layout) -> Any: ...
    def rows(self, node: Any) -> fx.Node: ...
    def axis(self, node: Any, dim: int) -> int: ...
    def call(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node: ...
    def rearranged(self, node: fx.Node, old: Layout, new: Layout) -> fx.Node: ...
    def expanded(self, node: fx.Node, layout: Layout) -> fx.Node: ...
    def attention(self, node: fx.Node) -> fx.Node: ...


@dataclass(frozen=True)
class Rule:
    """The two halves of what is known of an operator."""

    layout: Callable[[fx.Node, TokenAxes], Layout | list[Layout]]
    pack: Callable[[fx.Node, Packs], fx.Node]


def only_argument(node: fx.Node, axes: TokenAxes, at: int = 0) -> Layout:
    """The layout of the one argument, number `at`, that may have tokens."""
    layout = axes.layout(node.args[at])
    others = [n for n in node.all_input_nodes if n is not node.args[at]]
    if layout is None or any(n in axes.layouts for n in others):
        raise Unreadable("something else than its first argument has tokens")
    return layout


def without_tokens(axes: TokenAxes, *among: Axis) -> None:
    if any(axes.tokens.has(axis) for axis in among):
        raise Unreadable("it works along the token axis")
