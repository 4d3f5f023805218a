"""Values written in a wanted layout: the calls that take the atoms of one layout to another.

Each group of atoms becomes one axis: split, permute, broadcast, merge, each only where needed.
It must not know attention; `axes.py` says what a layout is.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import fx

from ..errors import Declined
from ..facts import Facts
from ..graph import as_int, aten, emit, fake, same_size
from ..report import Reason
from .axes import Axis, Layout, atoms, extent, flat, is_one
from .finite import ZEROS_AND_ONES


class Writer:
    """Adds calls to a graph in front of `like`. `known` are values whose sizes may be asked for,
    `made` holds the calls made so far: what several sites need is computed once."""

    def __init__(
        self,
        graph: fx.Graph,
        facts: Facts,
        like: fx.Node,
        known: Iterable[fx.Node] = (),
        made: dict[Any, fx.Node] | None = None,
    ) -> None:
        self._graph = graph
        self.facts = facts
        self._like = like
        self._known = list(known)
        self._made = {} if made is None else made
        self._mine: dict[fx.Node, Any] = {}
        self._regions = facts.autocast_region(like)
        self._gradients = facts.gradient_mode(like)

    def call(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """A call, its value inferred, its facts known; the one made before if there is one."""
        key = (target, _frozen(args), tuple(kwargs.items()), self._regions, self._gradients)
        order = self.facts.order
        if key in self._made and order[self._made[key]] <= order[self._like]:
            return self._made[key]
        node = self._emit(target, args, kwargs)
        self._mine[node] = key
        if not any(map(self.facts.is_written, node.all_input_nodes)):  # else it may be stale later
            self._made[key] = node
        return node

    def new(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """A call of its own, though the same has been made: its value is handed on, or random."""
        node = self._emit(target, args, kwargs)
        self._mine[node] = None
        return node

    def discard(self) -> None:
        """Take back the calls made through this writer, as far as nothing reads them."""
        for node in reversed(list(self._mine)):
            if not node.users:
                self._made.pop(self._mine.pop(node), None)
                self._graph.erase_node(node)

    def _emit(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
        node = emit(self._graph, target, args, kwargs, like=self._like, regions=self._regions)
        returns = target._schema.returns
        viewed = bool(returns) and returns[0].alias_info is not None
        source = args[0] if viewed and isinstance(args[0], fx.Node) else None
        self.facts.add(node, self._like, source)
        return node

    def item(self, node: fx.Node, index: int) -> fx.Node:
        """One of the values of a call that gives several."""
        with self._graph.inserting_before(self._like):
            item = self._graph.call_function(operator.getitem, (node, index))
        item.meta = {k: v for k, v in node.meta.items() if k != "val"}
        item.meta["val"] = node.meta["val"][index]
        self.facts.add(item, self._like)
        self._mine[item] = None
        return item

    def like(self, node: fx.Node, before: torch.Tensor) -> fx.Node:
        """`node` in memory of its own, laid out as `before` is: densely, its axes in some order."""
        axes = range(before.dim())
        strides = [_hint(n) for n in before.stride()]
        order = list(axes)
        if None not in strides:
            order = sorted(axes, key=lambda i: strides[i] or 0, reverse=True)
        dense = torch.contiguous_format
        if order == list(axes):
            return self.new(aten.clone.default, node, memory_format=dense)
        turned = self.new(aten.permute.default, node, order)
        turned = self.new(aten.clone.default, turned, memory_format=dense)
        return self.new(aten.permute.default, turned, [order.index(i) for i in axes])

    def sizes(self, shape: Sequence[Any]) -> list[Any]:
        """Sizes as arguments of a call: numbers, or calls that ask a known value."""
        return [n if isinstance(n, int) else self._ask(n) for n in map(as_int, shape)]

    def _sizes_but_one(self, shape: Sequence[Any]) -> list[Any]:
        """The same for a view, which works out one size (-1) that no value has."""
        sizes: list[Any] = []
        for size in shape:
            try:
                sizes += self.sizes([size])
            except Declined:
                if -1 in sizes:
                    raise
                sizes.append(-1)
        return sizes

    def _ask(self, size: Any) -> fx.Node:
        for node in self._known:
            value = fake(node)
            shape: Sequence[Any] = value.shape if value is not None else ()
            for axis, n in enumerate(shape):
                if not isinstance(n, int) and same_size([n], [size]):  # `size` is no plain number
                    return self.call(aten.sym_size.int, node, axis)
        raise Declined(Reason.SHAPES, f"no value has the size {size}")

    def to_groups(
        self, node: fx.Node, layout: Layout, groups: Sequence[Axis], *, whole: Sequence[int] = ()
    ) -> fx.Node:
        """`node` with one axis per group. A group of which it has no atom becomes an axis of size
        one, or of the full size where its number is in `whole`; of a part it has, the rest is
        broadcast."""
        wanted = [atoms(g) for g in groups]
        have = flat(layout)
        stray = set(have) - {a for g in wanted for a in g}
        if stray:
            raise Declined(Reason.SHAPES, "a value has an axis that has no place in attention")
        parts: list[Axis] = [
            g if i in whole or set(g) & set(have) else () for i, g in enumerate(wanted)
        ]
        order = [a for g in parts for a in g if a in have]
        if order == list(have) and len(order) == sum(map(len, parts)):
            return self._view(node, [extent(g) for g in parts], copies=True)
        node = self._view(node, [a.size for a in have])
        if order != list(have):
            node = self.call(aten.permute.default, node, [have.index(a) for a in order])
        if len(order) < sum(map(len, parts)):
            spread = [a.size if a in have else 1 for g in parts for a in g]
            node = self._view(node, spread)
            full = self.sizes([a.size for g in parts for a in g])
            node = self.call(aten.expand.default, node, full)
        return self._view(node, [extent(g) for g in parts], copies=True)

    def from_groups(self, node: fx.Node, groups: Sequence[Axis], layout: Layout) -> fx.Node:
        """The inverse: a value with one axis per group in the wanted layout."""
        have = [a for g in groups for a in atoms(g)]
        order = list(flat(layout))
        if set(order) != set(have):
            raise Declined(Reason.SHAPES, "the result has other axes than attention gives")
        if order == have:
            return self._view(node, [extent(atoms(axis)) for axis in layout], copies=True)
        node = self._view(node, [a.size for a in have])
        node = self.call(aten.permute.default, node, [have.index(a) for a in order])
        return self._view(node, [extent(atoms(axis)) for axis in layout], copies=True)

    def _view(self, node: fx.Node, shape: Sequence[Any], copies: bool = False) -> fx.Node:
        value = fake(node)
        assert value is not None
        if same_size(value.shape, shape):
            return node
        target = aten.reshape.default if copies else aten.view.default
        return self.call(target, node, self._sizes_but_one(shape))

    def narrow(self, node: fx.Node, layout: Layout) -> tuple[fx.Node, Layout]:
        """`node` without the axes along which it is proven to repeat itself."""
        value = fake(node)
        assert value is not None
        axes = list(layout)
        for i, size in enumerate(value.shape):
            if not is_one(size) and not varies(node, i - value.dim(), self.facts):
                node = self.call(aten.slice.Tensor, node, i, 0, 1)
                axes[i] = ()
        return node, tuple(axes)


def _hint(size: object) -> int | None:
    """The number that a size has in the call that is compiled for; None if nobody knows it."""
    hint: int | None = size.node.hint if isinstance(size, torch.SymInt) else size  # type: ignore[assignment]
    return hint


def _frozen(arg: Any) -> Any:
    """An argument as a key of a dictionary."""
    return tuple(map(_frozen, arg)) if isinstance(arg, list | tuple) else arg


FILLED = (
    *ZEROS_AND_ONES,
    aten.full.default,
    aten.new_full.default,
    aten.full_like.default,
)
SAME_AXES = (
    aten.to.dtype,
    aten.to.device,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.alias.default,
)


def varies(arg: Any, axis: int, facts: Facts) -> bool:
    """Whether a value may differ along `axis` (negative: counted from the last, as it
    broadcasts)."""
    value = fake(arg) if isinstance(arg, fx.Node) else None
    if not isinstance(arg, fx.Node) or (isinstance(value, torch.Tensor) and value.dim() < -axis):
        return False
    if value is None or is_one(value.shape[axis]):
        return value is None
    if arg.op != "call_function" or facts.is_written(arg):
        return True
    if arg.target in FILLED:
        return False
    if arg.target is aten.expand.default or arg.target in SAME_AXES:
        return varies(arg.args[0], axis, facts)
    if arg.target is aten.index.Tensor and _gathers_single_elements(arg):
        return any(varies(i, axis, facts) for i in arg.args[1])  # type: ignore[union-attr]
    if torch.Tag.pointwise in getattr(arg.target, "tags", ()):
        return any(varies(a, axis, facts) for a in arg.all_input_nodes)
    return True


def _gathers_single_elements(node: fx.Node) -> bool:
    source, indices = fake(node.args[0]), node.args[1]  # type: ignore[arg-type]
    if source is None or not isinstance(indices, list | tuple) or len(indices) != source.dim():
        return False
    values = [fake(i) if isinstance(i, fx.Node) else None for i in indices]
    return all(v is not None and v.dtype != torch.bool for v in values)
