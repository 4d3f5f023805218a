"""Linears that read one tensor become one, where that is measured to pay.

Shapes: D wide in, N_i wide out.

    y_i = x W_i^T + b_i   ->   y = x W^T + b,   y_i = y[..., o_i : o_i + N_i]

with x [..., D], W_i [N_i, D], b_i [N_i], W and b one below the other, o_i = N_1 + ... + N_(i-1).
Law: column n of y reads row n of W and nothing else of W. The kernel may add up in another order.

W and b are never put together in a call: the pass returns a `MergedWeights`, which keeps them
while they are fresh, and the graph as it was stays the other choice. In training they would be
concatenated in every step, which is measured not to pay, so nothing is merged there.
It must not know who reads the results. Next: `_pays` is the measured rule, `_veto` says why not,
`_build` writes; `../prepared.py` for when the weights are put together anew.
"""

from __future__ import annotations

import math
from collections.abc import Container

import torch
from torch import fx

from ..errors import Declined
from ..facts import Facts
from ..graph import (
    aten,
    copy_graph,
    decline,
    fake,
    is_call,
    is_symbolic,
    renewed_values,
    same_layouts,
)
from ..options import Options
from ..prepared import PreparedWeights
from ..report import Reason
from ..torch_compat import OpOverload
from .contract import Outcome
from .hoist_weights import hoist_weights
from .rearrange import Writer
from .subgraph import derived_input, extract, weight_only

MEASURED = "docs/measurements/projections.json"


class MergedWeights(PreparedWeights):
    """The derivation: weights one below the other."""

    name = "merged"


def merge_projections(graph: fx.Graph, facts: Facts, options: Options) -> Outcome:
    """The pass. A site is two or more linears that read one tensor, each with a weight."""
    outcome = Outcome()
    made: list[fx.Node] = []
    groups = _groups(graph)
    ahead = weight_only(graph, facts) if groups else {}
    budget = _budget(graph, options) if groups else None
    for group in groups:
        outcome.sites += 1
        try:
            size = _veto(group, facts, ahead)
            if budget is not None and outcome.prepared_bytes + size > budget:
                left = max(budget - outcome.prepared_bytes, 0)
                reason = f"merged they take {size:,} bytes, and {left:,} are left of the budget"
                raise Declined(Reason.BUDGET, reason)
            made += _build(graph, group, facts)
        except Declined as declined:
            outcome.declined.append(decline(group[0], declined.reason, str(declined)))
        else:
            outcome.rewritten += 1
            outcome.prepared_bytes += size
    if made:
        outcome.derivation = _prepare(graph, made, facts)
    return outcome


def _groups(graph: fx.Graph) -> list[list[fx.Node]]:
    """The linears with a weight that read one tensor, where there is more than one."""
    readers: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.find_nodes(op="call_function", target=aten.linear.default):
        if _is_weight(node.args[1]) and isinstance(node.args[0], fx.Node):
            readers.setdefault(node.args[0], []).append(node)
    return [group for group in readers.values() if len(group) > 1]


def _is_weight(arg: object) -> bool:
    return isinstance(arg, fx.Node) and arg.op == "placeholder" and bool(arg.meta.get("weight"))


def _budget(graph: fx.Graph, options: Options) -> int | None:
    """The bytes that are left beside what `hoist_weights` will keep. None: as many as the weights
    take, which is what they take merged."""
    if options.weights_budget is None:
        return None
    copy = copy_graph(graph)
    return options.weights_budget - hoist_weights(copy, Facts(copy), options).prepared_bytes


# --- the rule -------------------------------------------------------------------------------------


def _pays(dtype: torch.dtype, rows: int, width: int, outs: list[int]) -> bool:
    """Whether merging is measured to pay: where the fixed cost of a call shows beside its work."""
    weights = width * sum(outs)
    if dtype is torch.float32:  # MKL: little fixed cost, and large merged products can be slower
        return len(outs) > 2 and weights <= 2**17 and rows * weights <= 2**21
    if dtype is torch.bfloat16:  # oneDNN, which torch calls for products above 16^3 only
        return rows * width * min(outs) > 2**12 and weights <= 2**21 and rows * weights <= 2**26
    return False


# --- veto -----------------------------------------------------------------------------------------


def _veto(group: list[fx.Node], facts: Facts, ahead: Container[fx.Node]) -> int:
    """The bytes of the merged weights. Raises Declined if the two sides of the law could differ at
    this site, or merging is not known to pay."""
    first, last = group[0], group[-1]
    x, kept = first.all_input_nodes[0], _weights(group)
    if facts.records_gradients:
        reason = "in training the weights would be put together in each step; that does not pay"
        raise Declined(Reason.NOT_WORTH_IT, f"{reason} ({MEASURED})")
    if any(map(facts.is_written, kept)) or facts.written_between([x], first, last):
        raise Declined(Reason.MUTATED, "a weight or what they read is written in place")
    if any(map(facts.is_written, group)):
        raise Declined(Reason.MUTATED, "a result is written in place; the others share its memory")
    if any(map(facts.reaches_output, group)):
        raise Declined(Reason.ALIASES_OUTPUT, "the caller gets the memory of a result")
    if len({facts.autocast_region(n) for n in group}) > 1:
        raise Declined(Reason.AUTOCAST, "an autocast region begins or ends between them")
    if facts.autocast_dtype(first) is not None:
        raise Declined(Reason.AUTOCAST, "autocast casts weights in each call: not measured")
    if x in ahead:
        reason = "what they read depends on weights only, so they are computed before the call"
        raise Declined(Reason.NOT_WORTH_IT, reason)
    return _veto_sizes(x, group, kept)


def _veto_sizes(x: fx.Node, group: list[fx.Node], kept: list[fx.Node]) -> int:
    values = [v for v in map(fake, (x, *kept)) if v is not None]
    if len(values) != 1 + len(kept) or any(map(is_symbolic, values[1:])):
        raise Declined(Reason.SHAPES, "the sizes of the weights are known only at run time")
    read, weights = values[0], [v for v in values[1:] if v.dim() == 2]
    if len(weights) != len(group):
        raise Declined(Reason.SHAPES, "a weight is not a matrix")
    if len({v.dtype for v in values}) > 1:
        raise Declined(Reason.DTYPES, f"the dtypes differ: {[str(v.dtype) for v in values]}")
    if {v.device.type for v in values} != {"cpu"}:
        raise Declined(Reason.NOT_WORTH_IT, f"merging is not measured on {read.device.type}")
    if any(isinstance(n, torch.SymInt) for n in read.shape):
        reason = "the number of rows is known only at run time, and merging pays for few of them"
        raise Declined(Reason.SHAPES, reason)
    width, outs = read.shape[-1], [v.shape[0] for v in weights]
    rows = math.prod(read.shape[:-1])
    if not _pays(read.dtype, rows, width, outs):
        what = f"{rows} rows, {width} wide in, {outs} out, {read.dtype}"
        raise Declined(Reason.NOT_WORTH_IT, f"{what}: merging is not measured to pay ({MEASURED})")
    biases = sum(outs) if any(map(_bias, group)) else 0
    return (width * sum(outs) + biases) * read.element_size()


def _weights(group: list[fx.Node]) -> list[fx.Node]:
    """The weights and then the biases that there are."""
    weights = [n.args[1] for n in group]
    return [n for n in (*weights, *map(_bias, group)) if isinstance(n, fx.Node)]


def _bias(linear: fx.Node) -> fx.Node | None:
    bias = linear.args[2] if len(linear.args) > 2 else linear.kwargs.get("bias")
    return bias if isinstance(bias, fx.Node) else None


# --- build ----------------------------------------------------------------------------------------


def _build(graph: fx.Graph, group: list[fx.Node], facts: Facts) -> list[fx.Node]:
    """Let the readers read pieces of one linear in place of `group`; the merged weight, and the
    merged bias if there is one. Raises Declined, the graph as it was, if a reader could tell."""
    first = group[0]
    call = (write := Writer(graph, facts, first)).new
    x, weights = first.args[0], [n.args[1] for n in group]
    merged = [call(aten.cat.default, weights)]
    if any(map(_bias, group)):
        rows = [n.meta["val"].shape[0] for n in weights if isinstance(n, fx.Node)]
        biases = [
            _bias(n) or call(aten.new_zeros.default, w, [size])
            for n, w, size in zip(group, weights, rows, strict=True)
        ]
        merged.append(call(aten.cat.default, biases))
    y = call(aten.linear.default, x, *merged)
    pieces, start = [], 0
    for node in group:
        end = start + node.meta["val"].shape[-1]
        pieces.append(call(aten.slice.Tensor, y, -1, start, end))
        start = end
    try:
        _hand_on(group, pieces, facts)
    except Declined:
        write.discard()
        raise
    for node, piece in zip(group, pieces, strict=True):
        node.replace_all_uses_with(piece)
        graph.erase_node(node)
    return merged


def _hand_on(group: list[fx.Node], pieces: list[fx.Node], facts: Facts) -> None:
    """Renew what is known of the values behind `group` as if they were `pieces`, which have gaps
    between their rows. Raises Declined, and nothing has changed, if anything could tell."""
    before: dict[fx.Node, object] = {}
    try:
        for node, piece in zip(group, pieces, strict=True):
            before.setdefault(node, node.meta["val"])
            node.meta["val"] = piece.meta["val"]
            renewed = _renewed(node)
            for n, value in renewed.items():
                if n is node or not same_layouts(n.meta["val"], value):
                    _veto_reader(n, facts)
                before.setdefault(n, n.meta["val"])
                n.meta["val"] = value
    except Declined:
        for n, value in before.items():
            n.meta["val"] = value
        raise


def _renewed(node: fx.Node) -> dict[fx.Node, object]:
    try:
        return renewed_values(node)
    except Exception as error:  # `view` on strides that do not merge, or what cannot be inferred
        reason = f"a reader does not take a part of a larger result: {error}"
        raise Declined(Reason.SHAPES, reason.splitlines()[0]) from error


def _veto_reader(node: fx.Node, facts: Facts) -> None:
    """Raises Declined if anything depends on the layout of `node`, which changes."""
    if any(map(_reads_strides, node.users)):
        raise Declined(Reason.OTHER_READERS, "a reader depends on the strides of a result")
    if facts.is_written(node):
        raise Declined(Reason.MUTATED, "what is made of a result is written in place")
    if facts.reaches_output(node):
        raise Declined(Reason.ALIASES_OUTPUT, "the caller gets what is laid out as a result is")


def _reads_strides(node: fx.Node) -> bool:
    """Whether a call reads memory by its layout, or may: what is not torch's, nor ours."""
    if is_call(node, aten.as_strided.default, aten.as_strided_scatter.default):
        return True
    target = node.target
    return isinstance(target, OpOverload) and target.namespace not in ("aten", "formwright")


def _prepare(graph: fx.Graph, made: list[fx.Node], facts: Facts) -> MergedWeights:
    """What computes `made` leaves the graph; each of `made` becomes an input of it."""
    compute, positions = extract(graph, facts, made)
    last = facts.inputs[-1]
    for i, node in enumerate(made):
        last = derived_input(graph, node, f"merged_{i}", last, weight=True)
        zeros = [n for n in node.all_input_nodes if n.op == "call_function"]
        node.replace_all_uses_with(last)
        for unused in (node, *zeros):
            graph.erase_node(unused)
    return MergedWeights(compute, positions)
