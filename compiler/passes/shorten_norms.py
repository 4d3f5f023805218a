"""A stream without a mean is stored without its last channel: LayerNorm becomes CRMSNorm.

Shapes: x [..., D] without a mean, y = x[..., :-1], so x[..., -1] = -sum(y).

    CRMS(y) = y / sqrt((sum(y^2) + sum(y)^2) / D + eps) = RMS(x)[..., :-1]
    writers     W h + b    ->  W[:-1] h + b[:-1]
    readers     W RMS(x)   ->  (W[:, :-1] - W[:, -1:]) CRMS(y)

After "Pre-RMSNorm and Pre-CRMSNorm Transformers" (arXiv 2305.14858). A norm that something else
than linears read has its last channel put back behind it. Law: exact, gradients of the raw weights
included. It must not know why a stream has no mean: `streams.py` says so. What it leaves becomes an
RMSNorm where it can: `equate_norms.py`.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from ..errors import Declined
from ..facts import Facts
from ..graph import aten, decline, is_call, same_layout
from ..operators import MATERIALIZE
from ..options import Options
from ..report import Decline, Reason
from .axes import shape_of
from .centring import scaled_args
from .contract import Outcome
from .fold_norms import LINEARS, Readers, read_linears
from .norms import HALF, Norm, behind, centred, layer_norms, veto_dtypes
from .rearrange import Writer
from .streams import Stream, Streams

# Calls that are given the sizes of their value, and calls that take them from another value.
SIZED = (
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.expand.default,
)
SIZED_BY_OTHERS = (
    aten.view_as.default,
    aten.reshape_as.default,
    aten.expand_as.default,
    aten.unflatten.int,
    aten.repeat.default,
)


def shorten_norms(graph: fx.Graph, facts: Facts, options: Options) -> Outcome:
    """The pass. A site is a LayerNorm."""
    return _shorten(graph, facts, materializes=False)


def shorten_norms_by_call(graph: fx.Graph, facts: Facts, options: Options) -> Outcome:
    """The pass where an operator of ours may be called: written as `lower_norms` writes norms."""
    return _shorten(graph, facts, materializes=options.target == "inductor")


def _shorten(graph: fx.Graph, facts: Facts, *, materializes: bool) -> Outcome:
    outcome = Outcome(sites=len(layer_norms(graph)))
    while norms := layer_norms(graph):
        streams = Streams(graph, facts, norms)
        declined: list[Decline] = []
        for stream in reversed(streams.found()):  # a norm may write into a later stream
            try:
                for norm in stream.norms:
                    streams.veto(norm, stream)
                    veto_dtypes(norm)
                    _veto(norm, facts)
                shortened = Shortened(graph, facts, streams, stream, materializes)
            except Declined as error:
                declined += [decline(n.node, error.reason, str(error)) for n in stream.norms]
            else:
                shortened.build()
                outcome.rewritten += len(stream.norms)
                break  # what it wrote may be in other streams too: look again
        else:
            outcome.declined = declined
            break
    return outcome


def _veto(norm: Norm, facts: Facts) -> None:
    """Raises Declined if the formula could be computed in another dtype."""
    if facts.autocast_dtype(norm.node) is not None:
        raise Declined(Reason.AUTOCAST, "autocast decides in which dtype it is computed")


class Shortened:
    """A stream without its last channel. `build` writes it beside the old one, which nothing reads
    afterwards. Raises Declined if it cannot be written so."""

    def __init__(
        self, graph: fx.Graph, facts: Facts, streams: Streams, stream: Stream, materializes: bool
    ) -> None:
        self.graph, self.facts, self.streams = graph, facts, streams
        self.materializes = materializes
        self.norms = {n.node: n for n in stream.norms}
        self.explicit = set(stream.explicit)
        self.values = [n for n in stream.values if n not in self.explicit]
        self.old = set(self.values)
        self.readers: dict[fx.Node, Readers] = {}
        self.short: dict[fx.Node, fx.Node] = {}
        between: set[fx.Node] = set()
        for norm in stream.norms:
            if norm.weight is not None or norm.bias is not None:
                continue
            try:
                found = read_linears(norm, streams.weights)
            except Declined:
                continue
            if not found.scales:
                self.readers[norm.node] = found
                between |= set(found.views)
        # as the graph has it before anything changes
        self.written = {n: streams.written(n) for n in self.values if not streams.is_kept(n)}
        self.views = {n: len(shape_of(n)) - 1 for n in between}
        for node in (*self.values, *between):
            if is_call(node, *SIZED_BY_OTHERS):
                reason = f"the width of the stream is in `{node.name}`, which is given no sizes"
                raise Declined(Reason.SHAPES, reason)

    def build(self) -> None:
        linears = {n for found in self.readers.values() for n in found.linears}
        old = self.old
        dead = []
        for node in list(self.graph.nodes):
            if node in self.explicit:
                write = self._at(behind(node))
                self.short[node] = self._cut(write, centred(write, node, self._last(node)), -1)
            elif node in self.norms:
                dead.append(node)
                self._normalise(self.norms[node])
            elif node in old and self.streams.is_kept(node):
                dead.append(node)
                self.short[node] = self._again(node, self.streams.free.axis[node])
            elif node in old:
                dead.append(node)
                if node in linears:
                    self._read(node)
                self.short[node] = self._written(node, self.streams.free.axis[node])
            elif node in self.views:
                dead.append(node)
                self.short[node] = self._again(node, self.views[node])
            elif node in linears:
                self._read(node)
        for node in reversed(dead):
            if not node.users:
                self.graph.erase_node(node)

    def _at(self, node: fx.Node) -> Writer:
        return Writer(self.graph, self.facts, node)

    def _last(self, node: fx.Node) -> int:
        return len(shape_of(node)) - 1

    def _cut(self, write: Writer, node: fx.Node, axis: int) -> fx.Node:
        """`node` without its last channel."""
        return write.call(aten.slice.Tensor, node, axis, 0, -1)

    def _again(self, node: fx.Node, axis: int) -> fx.Node:
        """A call of the stream, of what is shorter along `axis`."""
        write = self._at(node)
        for operand, own in self.streams.free.operands.get(node, ()):
            if operand in self.streams.weights:
                self.short[operand] = self._cut(write, centred(write, operand, own), own)
        if is_call(node, operator.getitem):
            return write.item(self.short[node.args[0]], node.args[1])  # type: ignore[index, arg-type]
        args: list[Any] = list(fx.node.map_arg(node.args, lambda n: self.short.get(n, n)))
        if is_call(node, *SIZED) and args[1][axis] != -1:
            sizes = list(args[1])
            sizes[axis] = shape_of(node)[axis] - 1
            args[1] = sizes
        return write.new(node.target, *args, **node.kwargs)

    def _written(self, node: fx.Node, axis: int) -> fx.Node:
        """What is written by weights, of shorter weights."""
        scaled, weights = self.written[node]
        if weights is None:  # it has no mean as it is
            return self._cut(self._at(behind(node)), node, axis)
        writer, write = node if scaled is None else scaled[0], self._at(node)
        args = list(writer.args) if scaled is None else scaled_args(*scaled, weights, write)
        for i, dim in weights:
            args[i] = self._cut(write, centred(write, args[i], dim), dim)  # type: ignore[arg-type]
        return write.new(writer.target, *args, **writer.kwargs)

    def _normalise(self, norm: Norm) -> None:
        write = self._at(norm.node)
        dtype = norm.node.meta["val"].dtype
        wide = self._formula(write, self.short[norm.x], norm)
        if norm.node in self.readers or norm.node in self.written:
            self.short[norm.node] = self._as(write, wide, dtype)
        if norm.node in self.readers:
            return
        last = write.new(aten.neg.default, write.new(aten.sum.dim_IntList, wide, [-1], True))
        full = self._as(write, write.new(aten.cat.default, [wide, last], -1), dtype)
        for target, operand in ((aten.mul.Tensor, norm.weight), (aten.add.Tensor, norm.bias)):
            if operand is not None:
                full = write.new(target, full, operand)
        before, value = norm.node.meta["val"], full.meta["val"]
        full = full if same_layout(before, value) else write.like(full, before)
        norm.node.replace_all_uses_with(full, delete_user_cb=lambda user: user not in self.old)

    def _formula(self, write: Writer, y: fx.Node, norm: Norm) -> fx.Node:
        """CRMS(y), in float32 where y is in half precision."""
        dtype, new = y.meta["val"].dtype, write.new
        if dtype in HALF:
            y = new(aten.to.dtype, y, torch.float32)
        squares = new(aten.sum.dim_IntList, new(aten.mul.Tensor, y, y), [-1], True)
        last = new(aten.sum.dim_IntList, y, [-1], True)
        whole = new(aten.add.Tensor, squares, new(aten.mul.Tensor, last, last))
        mean = new(aten.div.Tensor, whole, norm.width)
        root = new(aten.rsqrt.default, new(aten.add.Tensor, mean, norm.eps))
        if self.materializes:
            root = new(MATERIALIZE, root)
        return new(aten.mul.Tensor, y, root)

    def _as(self, write: Writer, node: fx.Node, dtype: torch.dtype) -> fx.Node:
        alike = node.meta["val"].dtype == dtype
        return node if alike else write.new(aten.to.dtype, node, dtype)

    def _read(self, linear: fx.Node) -> None:
        at, weight, _, dim = LINEARS[linear.target]
        write = self._at(linear)
        old: Any = linear.args[weight]
        last = write.call(aten.slice.Tensor, old, dim, -1, torch.iinfo(torch.int64).max)
        linear.update_arg(at, self.short[linear.args[at]])  # type: ignore[index]
        linear.update_arg(weight, write.call(aten.sub.Tensor, self._cut(write, old, dim), last))
