"""Axis facts: where the batch and the token axis are in each value, and which calls are token-wise.

Shapes: B batch, L padded length. The layout of a value (`axes.py`) with both atoms in it says that
its cell (b, l) belongs to token l of sequence b. A call is *token-wise* if that cell of its result
depends on cells (b, l) of its arguments only. So it may be computed for the wanted tokens alone,
whatever its values mean: what is read from here is never a guess.

Values that start the analysis are those whose first axes are proven to be B and L, in either order.
It must not know what is done with the tokens. Next: `token_rules.py` holds a row per operator,
`token_demand.py` says which cells are read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import fx

from ..facts import Facts
from ..graph import fake, is_call, same_size
from .attention_read import CALLS
from .axes import Atom, Axis, Layout, Unreadable, atoms, flat, is_one, new_axis


@dataclass(frozen=True, eq=False)
class Tokens:
    """The two axes that this is about."""

    batch: Atom
    token: Atom

    def has(self, axis: Axis) -> Axis:
        """The atoms of an axis that are one of the two."""
        return tuple(a for a in atoms(axis) if a in (self.batch, self.token))

    def rest(self, axis: Axis) -> Axis:
        """The other atoms of an axis."""
        return tuple(a for a in atoms(axis) if a not in (self.batch, self.token))

    def is_gone(self, axis: Axis) -> bool:
        """Whether a packed value has nothing in place of this axis."""
        return bool(axis) and not self.rest(axis)

    def kept(self, layout: Layout) -> list[int]:
        """The axes of a value that its packed form has too, behind the rows."""
        return [i for i, axis in enumerate(layout) if not self.is_gone(axis)]

    def is_usual(self, layout: Layout | None) -> bool:
        """Whether a value is [B, heads, L, width], as attention wants it."""
        usual = ((self.batch,), (self.token,))
        return layout is not None and len(layout) == 4 and (layout[0], layout[2]) == usual

    def selected(self, node: fx.Node, layout: Layout) -> int | None:
        """The position that `select(x, dim, i)` takes, if it does so along the tokens of an x with
        this layout."""
        dim, index = node.args[1:3]
        if not isinstance(dim, int) or layout[dim] != (self.token,) or not isinstance(index, int):
            return None
        if index >= 0:
            return index
        return index + self.token.size if isinstance(self.token.size, int) else None

    def placed(self, layout: Layout, node: fx.Node) -> Layout:
        """`layout` of a batch of one, whose axis may be put anywhere: where a size is one."""
        value = fake(node)
        if value is None or not is_one(self.batch.size):
            return layout
        found = [tuple(a for a in atoms(axis) if a is not self.batch) for axis in layout]
        ones = (i for i, n in enumerate(value.shape) if is_one(n))
        place = next(ones, next((i for i, a in enumerate(found) if self.token in a), 0))
        found[place] = (self.batch, *found[place])
        return tuple(found)

    def whole(self, layout: Layout) -> Layout:
        """`layout`, if it has both axes, each once and in one piece. Raises Unreadable else."""
        if self.batch.parts or self.token.parts:
            self.batch.parts = self.token.parts = ()
            raise Unreadable("it cuts the token axis")
        found = [a for a in flat(layout) if a in (self.batch, self.token)]
        if sorted(map(id, found)) != sorted((id(self.batch), id(self.token))):
            raise Unreadable("it has not both axes once")
        return layout


@dataclass
class TokenAxes:
    """`layouts` of all values that have both axes (of a call with several values: a list);
    `tokenwise` are the calls among them; `blocked` says why a call on such values is not. `mixed`
    are those computed from attention along these axes, so that they surely are what they seem: that
    a value begins with these two sizes may be chance."""

    tokens: Tokens
    layouts: dict[fx.Node, Layout | list[Layout]] = field(default_factory=dict)
    tokenwise: set[fx.Node] = field(default_factory=set)
    blocked: dict[fx.Node, str] = field(default_factory=dict)
    mixed: set[fx.Node] = field(default_factory=set)

    def layout(self, node: Any) -> Layout | None:
        """The layout of a value that has both axes; None for any other."""
        found = self.layouts.get(node) if isinstance(node, fx.Node) else None
        return found if isinstance(found, tuple) else None


def token_axes(graph: fx.Graph, facts: Facts, batch: Any, length: Any) -> TokenAxes:
    """The facts of `graph` for sequences of `length` in batches of `batch`."""
    from .token_rules import rule_of

    tokens = Tokens(Atom(batch), Atom(length))
    found = TokenAxes(tokens)
    for node in graph.nodes:
        if node.op not in ("call_function", "placeholder") or facts.is_written(node):
            continue
        if any(n in found.layouts for n in node.all_input_nodes):
            rule = rule_of(node)
            try:
                if rule is None:
                    raise Unreadable("no rule says that it is token-wise")
                found.layouts[node] = rule.layout(node, found)
                found.tokenwise.add(node)
                if is_call(node, *CALLS) or not found.mixed.isdisjoint(node.all_input_nodes):
                    found.mixed.add(node)
                continue
            except Unreadable as error:
                tokens.batch.parts = tokens.token.parts = ()
                found.blocked[node] = str(error)
        source = _source(node, tokens)
        if source is not None:
            found.layouts[node] = source
    return found


def _source(node: fx.Node, tokens: Tokens) -> Layout | None:
    """The layout of a value that comes from elsewhere and begins with both axes."""
    value = fake(node)
    if value is None or value.dim() < 2 or node.meta.get("weight"):
        return None
    pair = (tokens.batch, tokens.token)
    for order in (pair, pair[::-1]):
        if same_size(value.shape[:2], [a.size for a in order]):
            return ((order[0],), (order[1],), *map(new_axis, value.shape[2:]))
    return None
