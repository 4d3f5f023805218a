"""Values packed: the wanted tokens of a padded batch, one row each.

Shapes: B batch, L padded length, T wanted tokens. The packed form of a value has T rows first, then
its axes other than B and L.

    varies along both     picked by rows [T]         along the tokens only    by position [T]
    along the batch only  by sequence [T]            along neither            as it is

It happens at the first call that joins a value with a packed one. What is read whole again is put
back among zeros. It must not know what is packed, or why (`remove_padding.py`, `demand_tokens.py`),
or which calls may be (`token_rules.py`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

from torch import fx

from ..facts import Facts
from ..graph import aten, fake, same_layout
from .axes import Atom, Layout, aligned, extent, flat
from .rearrange import Writer
from .token_axes import TokenAxes
from .token_rules import rule_of


@dataclass(frozen=True)
class Rows:
    """What picks the wanted tokens, each int64 [T]: rows b * L + l, sequences b, positions l."""

    rows: fx.Node
    sequence: fx.Node
    position: fx.Node


Attend = Callable[[fx.Node, "Packer"], fx.Node]  # how attention with packed queries is written


class Packer:
    """Writes packed values in front of one call; `packed` are those there are so far."""

    def __init__(
        self, graph: fx.Graph, facts: Facts, axes: TokenAxes, rows: Rows, attend: Attend
    ) -> None:
        self.axes = axes
        self.tokens = axes.tokens
        self.at = rows
        self.packed: dict[fx.Node, fx.Node] = {}
        value = fake(rows.rows)
        assert value is not None
        self.row = Atom(value.shape[0])
        self._graph, self.facts = graph, facts
        self._known = [rows.rows, *facts.inputs]
        self._made: dict[Any, fx.Node] = {}
        self._attend = attend

    def pack(self, node: fx.Node) -> None:
        """Compute a call on packed values. Calls come in their order in the graph."""
        rule = rule_of(node)
        assert rule is not None
        self.packed[node] = rule.pack(node, self.before(node))

    def before(self, node: fx.Node) -> Packer:
        """Write in front of `node` from here on."""
        self.write = Writer(self._graph, self.facts, node, self._known, self._made)
        return self

    def call(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """The call that takes the place of the one in front of which it stands."""
        if target is operator.getitem:
            return self.write.item(*args)
        return self.write.new(target, *args, **kwargs)

    # --- what the rules ask for -----------------------------------------------------------------

    def rows(self, node: Any) -> fx.Node:
        """A value with both axes in its packed form."""
        if node in self.packed:
            return self.packed[node]
        layout = self.axes.layout(node)
        assert layout is not None
        return self.picked(node, layout, layout)

    def axis(self, node: Any, dim: int) -> int:
        """Where axis `dim` of a value is in its packed form."""
        layout = self.axes.layout(node)
        assert layout is not None
        return 1 + self.tokens.kept(layout).index(dim % len(layout))

    def form(self, layout: Layout) -> Layout:
        """The layout of the packed form."""
        kept = self.tokens.kept(layout)
        return ((self.row,), *(self.tokens.rest(layout[i]) for i in kept))

    def aligned(self, arg: Any, layout: Layout) -> Any:
        """An operand that broadcasts to a value with `layout`, so that its packed form does to the
        packed form."""
        value = fake(arg) if isinstance(arg, fx.Node) else None
        if value is None or value.dim() == 0:
            return arg
        if arg not in self.packed:
            shape = [extent(axis) for axis in layout]
            return self.picked(arg, aligned(layout, shape, value.shape), layout)
        own = self.axes.layout(arg)
        assert own is not None
        missing = len(self.tokens.kept(layout)) - len(self.tokens.kept(own))
        return self._with_ones(self.packed[arg], 1, missing)

    def rearranged(self, node: fx.Node, old: Layout, new: Layout) -> fx.Node:
        """A packed value of which only the axes are arranged anew."""
        return self.write.from_groups(node, self.form(old), self.form(new))

    def expanded(self, node: fx.Node, layout: Layout) -> fx.Node:
        """A packed value broadcast to `layout`."""
        size = [extent(axis) for axis in self.form(layout)]
        return self.write.call(aten.expand.default, node, self.write.sizes(size))

    def attention(self, node: fx.Node) -> fx.Node:
        """An attention whose queries are packed."""
        return self._attend(node, self)

    # --- in and out -----------------------------------------------------------------------------

    def picked(self, node: fx.Node, own: Layout, layout: Layout) -> fx.Node:
        """The wanted tokens of a value whose axes, `own`, are the last ones of `layout` or one."""
        write, offset = self.write, len(layout) - len(own)
        here = self.tokens.has(flat(own))
        rest = [
            self.tokens.rest(axis)
            for i, axis in enumerate(own)
            if not self.tokens.is_gone(layout[offset + i])
        ]
        if not here:
            if len(rest) == len(own):
                return node
            return write.from_groups(node, own, ((), *rest))
        order = tuple(a for a in (self.tokens.batch, self.tokens.token) if a in here)
        index = {
            2: self.at.rows,
            1: self.at.sequence if order[0] is self.tokens.batch else self.at.position,
        }
        flatted = write.from_groups(node, own, (order, *rest))
        picked = write.call(aten.index_select.default, flatted, 0, index[len(order)])
        return self._with_ones(picked, 1, len(self.tokens.kept(layout)) - len(rest))

    def _with_ones(self, node: fx.Node, at: int, count: int) -> fx.Node:
        for _ in range(count):
            node = self.write.call(aten.unsqueeze.default, node, at)
        return node

    def whole(self, node: fx.Node) -> fx.Node:
        """The value of `node` from its packed form, zeros elsewhere, laid out as it was."""
        layout, packed, write = self.axes.layout(node), self.packed[node], self.write
        assert layout is not None
        pair = (self.tokens.batch, self.tokens.token)
        form = (pair, *self.form(layout)[1:])
        size = [extent((a,)) for a in pair] + [extent(axis) for axis in form[1:]]
        zeros = write.call(aten.new_zeros.default, packed, write.sizes(size))
        zeros = write.call(aten.flatten.using_ints, zeros, 0, 1)
        full = write.call(aten.index_copy.default, zeros, 0, self.at.rows, packed)
        made = write.from_groups(full, form, layout)
        before, after = fake(node), fake(made)
        assert before is not None
        assert after is not None
        return made if same_layout(before, after) else write.like(made, before)


def in_order(graph: fx.Graph, among: Container[fx.Node], axes: TokenAxes) -> dict[fx.Node, None]:
    """The calls among `among`, in order, that can be computed packed: one of several values of a
    call can only with that call."""
    found: dict[fx.Node, None] = {}
    for node in graph.nodes:
        source = node.args[0] if node.args else None
        of_several = isinstance(source, fx.Node) and isinstance(axes.layouts.get(source), list)
        if node in among and (not of_several or source in found):
            found[node] = None
    return found
