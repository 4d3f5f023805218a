"""Which cells of the token axes are read: liveness, from the outputs back.

Shapes: B batch, L padded length. For each value with both axes the answer is either *all cells*,
with the first reader to blame, or *the wanted cells*: those that some reader names, and those that
attention from a wanted cell can see. What a reader names is a boolean value [B|1, L|1], computed
from the inputs of the graph, that the prologue of each call looks at (`real_tokens.py`).

It must not know how values are packed. Next: `attention_read.py` for what attention sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from ..errors import Declined
from ..facts import Facts
from ..graph import aten, fake, is_call, op_name, readers, where
from ..report import Decline
from .attention_parts import value_of
from .attention_read import CALLS, AttentionRead, Sights
from .axes import Layout, Unreadable, aligned, extent, shape_of
from .rearrange import Writer
from .subgraph import ancestors, is_cheap_ahead
from .token_axes import TokenAxes

OUTPUT = "the caller gets the padded tokens too"


@dataclass
class Site:
    """One attention to tokens, of which the prologue can tell what each query sees. `whole`: why
    it has to be computed on padded queries, keys and values; then these are put together for it."""

    read: AttentionRead
    sights: Sights
    whole: Decline | None = None


@dataclass
class Demand:
    """`reads_all`: why all cells of a value are read, where they are. `named`: the cells that
    readers of a value name. `shown`: an output has the cells that are wanted anyway."""

    reads_all: dict[fx.Node, str] = field(default_factory=dict)
    named: dict[fx.Node, list[fx.Node]] = field(default_factory=dict)
    shown: bool = False


def demand(
    graph: fx.Graph, facts: Facts, axes: TokenAxes, sites: Iterable[Site], remove: bool
) -> Demand:
    """The demand on every value. `remove`: of the outputs, only wanted cells are read."""
    return _Liveness(graph, facts, axes, sites, remove).run()


class _Liveness:
    def __init__(
        self,
        graph: fx.Graph,
        facts: Facts,
        axes: TokenAxes,
        sites: Iterable[Site],
        remove: bool,
    ) -> None:
        self.graph, self.facts, self.axes, self.remove = graph, facts, axes, remove
        self.sites = {s.read.call: s for s in sites}
        self.found = Demand()
        self.made: dict[Any, fx.Node] = {}

    def run(self) -> Demand:
        for node in reversed(self.graph.nodes):
            if node not in self.axes.layouts:
                continue
            for reader in readers(node):
                reason = self._reads_all(node, reader)
                if reason is not None:
                    self.found.reads_all[node] = reason
                    break
        return self.found

    def _reads_all(self, node: fx.Node, reader: fx.Node) -> str | None:
        if reader.op == "output":
            if not self.remove or node not in self.axes.mixed:
                return OUTPUT
            self.found.shown = True
            return None
        if reader in self.sites:
            read = self.sites[reader].read
            if node not in (read.query, read.key, read.value):
                return "a mask is computed from them"
            return self.found.reads_all.get(read.out)  # what padded queries see is padding too
        if is_call(reader, aten.sym_size.int):
            return None
        if reader.target in CALLS:
            return f"attention ({where(reader)}) of which it is not known what it sees reads them"
        passed_on = reader in self.axes.tokenwise
        reason = self.found.reads_all.get(reader)
        if passed_on and reason is None:
            return None
        named = NAMES.get(reader.target)
        if named is not None and self._names(node, reader, named):
            return None
        return reason if passed_on and reason else f"{op_name(reader)} ({where(reader)}) reads them"

    def _names(self, node: fx.Node, reader: fx.Node, named: Names) -> bool:
        layout = self.axes.layout(node)
        if layout is None or is_cheap_ahead(node, self.facts):
            return False
        try:
            cells = named(node, reader, _Cells(self, reader, layout))
        except (Unreadable, Declined):
            return False
        if cells is None:
            return False
        self.found.named.setdefault(node, []).append(cells)
        return True


@dataclass
class _Cells:
    """Writes the boolean value that a reader names cells with."""

    liveness: _Liveness
    reader: fx.Node
    layout: Layout

    @property
    def write(self) -> Writer:
        """Writes in front of the reader."""
        live = self.liveness
        return Writer(live.graph, live.facts, self.reader, live.facts.inputs, live.made)

    def is_ahead(self, node: fx.Node) -> bool:
        """Whether the prologue may compute it, and nobody differentiates it."""
        behind = ancestors(node)
        grads = self.liveness.facts.records_gradients
        differentiated = grads and any(n.meta.get("requires_grad") for n in behind)
        return is_cheap_ahead(node, self.liveness.facts) and not differentiated

    def of(self, flags: fx.Node, like: Layout) -> fx.Node:
        """`flags` [...], with axes among those of `like`, as [B|1, L|1]: whether any is True."""
        tokens, write = self.liveness.axes.tokens, self.write
        here = tokens.has(tuple(a for axis in like for a in axis))
        pair = tuple(((a,) if a in here else ()) for a in (tokens.batch, tokens.token))
        rest = [tokens.rest(axis) for axis in like]
        node = write.from_groups(flags, like, (*pair, *(axis for axis in rest if axis)))
        value = fake(node)
        assert value is not None
        if value.dim() > 2:
            node = write.call(aten.any.dims, node, list(range(2, value.dim())))
        return node

    def positions(self) -> fx.Node:
        """0 to L - 1, as [1, L]."""
        write, length = self.write, self.liveness.axes.tokens.token.size
        count = write.sizes([length])[0]
        return write.call(aten.unsqueeze.default, write.call(aten.arange.default, count), 0)

    def none(self, like: fx.Node) -> fx.Node:
        """No cell, [B, L], on the device of `like`."""
        tokens, write = self.liveness.axes.tokens, self.write
        size = write.sizes([tokens.batch.size, tokens.token.size])
        device = value_of(like).device
        return write.call(aten.zeros.default, size, dtype=torch.bool, device=device)


Names = Callable[[fx.Node, fx.Node, _Cells], "fx.Node | None"]


def _where_nonzero(mask: Any, cells: _Cells, nonzero: bool = True) -> fx.Node | None:
    """The cells at which a mask that broadcasts to the value is (not) zero."""
    if not isinstance(mask, fx.Node) or not cells.is_ahead(mask):
        return None
    shape = [extent(axis) for axis in cells.layout]
    like = aligned(cells.layout, shape, shape_of(mask))
    target = aten.ne.Scalar if nonzero else aten.eq.Scalar
    return cells.of(cells.write.call(target, mask, 0), like)


def _multiplied(node: fx.Node, reader: fx.Node, cells: _Cells) -> fx.Node | None:
    """x * m: where m is zero, x is not read."""
    a, b = reader.args[:2]
    if a is b:
        return None
    return _where_nonzero(b if node is a else a, cells)


def _chosen(node: fx.Node, reader: fx.Node, cells: _Cells) -> fx.Node | None:
    """where(m, x, y): x is read where m holds, y where it does not."""
    mask, first, second = reader.args[:3]
    if first is second:
        return None
    return _where_nonzero(mask, cells, nonzero=node is first)


def _filled(node: fx.Node, reader: fx.Node, cells: _Cells) -> fx.Node | None:
    """masked_fill(x, m, c): x is read where m does not hold."""
    if node is not reader.args[0]:
        return None
    return _where_nonzero(reader.args[1], cells, nonzero=False)


def _selected(node: fx.Node, reader: fx.Node, cells: _Cells) -> fx.Node | None:
    """select(x, dim, i) along the tokens."""
    position = cells.liveness.axes.tokens.selected(reader, cells.layout)
    if position is None:
        return None
    return cells.write.call(aten.eq.Scalar, cells.positions(), position)


def _sliced(node: fx.Node, reader: fx.Node, cells: _Cells) -> fx.Node | None:
    """slice(x, dim, start, end) along the tokens."""
    given: list[Any] = [0, None, None, 1]
    given[: len(reader.args) - 1] = reader.args[1:]
    dim, start, end, step = given
    if reader.kwargs or not isinstance(dim, int) or step != 1:
        return None
    if cells.layout[dim] != (cells.liveness.axes.tokens.token,):
        return None
    if not isinstance(start, int) or not isinstance(end, int) or start < 0 or end < 0:
        return None
    write, at = cells.write, cells.positions()
    after = write.call(aten.ge.Scalar, at, start)
    return write.call(aten.logical_and.default, after, write.call(aten.lt.Scalar, at, end))


def _indexed(node: fx.Node, reader: fx.Node, cells: _Cells) -> fx.Node | None:
    """x[sequences, positions]: a pair of integer indices."""
    tokens = cells.liveness.axes.tokens
    indices: Any = reader.args[1]
    if node is not reader.args[0] or cells.layout[:2] != ((tokens.batch,), (tokens.token,)):
        return None
    if not isinstance(indices, list | tuple) or len(indices) != 2:
        return None
    if not all(isinstance(i, fx.Node) and cells.is_ahead(i) for i in indices):
        return None
    if any((v := fake(i)) is None or v.dtype == torch.bool for i in indices):
        return None
    write, device = cells.write, value_of(indices[0]).device
    true = write.call(aten.ones.default, [], dtype=torch.bool, device=device)
    return write.call(aten.index_put.default, cells.none(indices[0]), list(indices), true)


def _taken(node: fx.Node, reader: fx.Node, cells: _Cells) -> fx.Node | None:
    """index_select(x, 0, rows) along both axes at once."""
    tokens, (dim, rows) = cells.liveness.axes.tokens, reader.args[1:3]
    both = (tokens.batch, tokens.token)
    if not isinstance(dim, int) or cells.layout[dim] != both or not isinstance(rows, fx.Node):
        return None
    if not cells.is_ahead(rows):
        return None
    write = cells.write
    flat = write.call(aten.flatten.using_ints, cells.none(rows), 0, 1)
    flat = write.call(aten.index_fill.int_Scalar, flat, 0, rows, 1)
    return write.call(aten.view.default, flat, write.sizes([a.size for a in both]))


def _counted(node: fx.Node, reader: fx.Node, cells: _Cells) -> fx.Node | None:
    """cross_entropy(x, labels): x is read where the label is not the ignored one."""
    labels: Any = reader.args[1]
    value = fake(labels)
    if node is not reader.args[0] or value is None or value.is_floating_point():
        return None
    if not cells.is_ahead(labels):
        return None
    ignored = IGNORED[reader.target](reader)
    like = (cells.layout[0], *cells.layout[2:])
    return cells.of(cells.write.call(aten.ne.Scalar, labels, ignored), like)


def _argument(at: int, name: str, default: int) -> Callable[[fx.Node], Any]:
    return lambda n: n.args[at] if len(n.args) > at else n.kwargs.get(name, default)


IGNORED: dict[object, Callable[[fx.Node], Any]] = {
    aten.cross_entropy_loss.default: _argument(4, "ignore_index", -100),
    aten.nll_loss_nd.default: _argument(4, "ignore_index", -100),
    aten.nll_loss.default: _argument(4, "ignore_index", -100),
}

# Calls that do not read all cells of what they are given, though all of their result be read.
NAMES: dict[object, Names] = {
    aten.mul.Tensor: _multiplied,
    aten.where.self: _chosen,
    aten.where.ScalarOther: _chosen,
    aten.where.ScalarSelf: _chosen,
    aten.masked_fill.Scalar: _filled,
    aten.masked_fill.Tensor: _filled,
    aten.select.int: _selected,
    aten.slice.Tensor: _sliced,
    aten.index.Tensor: _indexed,
    aten.index_select.default: _taken,
    **dict.fromkeys(IGNORED, _counted),
}
