"""Norm equivalence: where nothing needs the mean of what a LayerNorm reads, it becomes an RMSNorm.

Shapes: [..., D], P x = x - mean(x) along D.

    LN(x) = RMS(P x), and P x comes without an operation per call where what is written into x is
    written by weights: P (W h + b) = (P W) h + P b; a sum of such values has no mean either.

After "Pre-RMSNorm and Pre-CRMSNorm Transformers" (arXiv 2305.14858), as dataflow facts in place of
a block pattern: `streams.py` says what can be kept without a mean, and at what price.
Law: exact, gradients of the raw weights included; eps stays. `fold_norms.py`, which runs before,
has moved weight and bias of the norms into what reads them. It must not know how norms are
computed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from torch import fx

from ..errors import Declined
from ..facts import Facts
from ..graph import aten, decline, infer
from ..options import Options
from ..report import Reason
from .axes import shape_of
from .centring import centre_writer, scaled_args
from .contract import Outcome
from .norms import (
    Norm,
    behind,
    centred,
    layer_norms,
    read_norm,
    take_place,
    veto_dtypes,
    write_norm,
)
from .rearrange import Writer
from .streams import Stream, Streams

PROVEN = "it equals an RMSNorm, which is not measured to pay; ask for it with norm='rms'"


def equate_norms(graph: fx.Graph, facts: Facts, options: Options) -> Outcome:
    """The pass. A site is a LayerNorm."""
    outcome = Outcome()
    norms = layer_norms(graph)
    outcome.sites = len(norms)
    if not norms:
        return outcome
    streams = Streams(graph, facts, norms)
    taken: dict[fx.Node, Stream] = {}
    for stream in streams.found():
        for norm in stream.norms:
            try:
                streams.veto(norm, stream)
                veto_dtypes(norm)
                _veto(norm, facts)
                if options.norm == "auto":
                    raise Declined(Reason.NOT_WORTH_IT, PROVEN)
                taken[norm.node] = stream
            except Declined as declined:
                outcome.declined.append(decline(norm.node, declined.reason, str(declined)))
    for stream in {id(s): s for s in taken.values()}.values():
        _take_mean_off(graph, facts, streams, stream)
    for node in taken:
        current = read_norm(node)  # as it is by now: it may read another norm
        assert current is not None
        write = Writer(graph, facts, node)
        take_place(write, node, write_norm(write, replace(current, centres=False)))
    outcome.rewritten = len(taken)
    return outcome


def _veto(norm: Norm, facts: Facts) -> None:
    """Raises Declined if autocast would compute an RMSNorm in another dtype."""
    if facts.autocast_dtype(norm.node) is None:
        return
    args = (norm.x, [norm.width], norm.weight, norm.eps)
    value = infer(aten.rms_norm.default, args, {}, facts.autocast_region(norm.node))
    if value.dtype != norm.node.meta["val"].dtype:
        raise Declined(Reason.AUTOCAST, f"autocast would compute an RMSNorm in {value.dtype}")


# --- build --------------------------------------------------------------------------------------


def _take_mean_off(graph: fx.Graph, facts: Facts, streams: Streams, stream: Stream) -> None:
    """Let all values of the stream be without a mean. A norm that stays a LayerNorm cannot tell."""
    norms = {n.node for n in stream.norms}
    kept = {n: None for n in stream.values if streams.is_kept(n)}
    for node in stream.explicit:
        without = centred(Writer(graph, facts, behind(node)), node, len(shape_of(node)) - 1)
        _redirect(node, without, (u for u in list(node.users) if u in norms or u in kept))
    for node in kept:
        write = Writer(graph, facts, node)
        for operand, axis in streams.free.operands[node]:
            if operand in streams.weights:
                _redirect(operand, centred(write, operand, axis), [node])
    for node in stream.values:
        if node not in kept and node not in streams.explicit:
            _write_without(graph, facts, streams, node)


def _redirect(old: fx.Node, new: fx.Node, who: Iterable[fx.Node]) -> None:
    for reader in who:
        reader.replace_input_with(old, new)


def _write_without(graph: fx.Graph, facts: Facts, streams: Streams, node: fx.Node) -> None:
    axis = streams.free.axis[node]
    scaled, weights = streams.written(node)
    if weights is None:  # it has no mean as it is
        return
    if scaled is not None:
        writer, scale = scaled
        write = Writer(graph, facts, node)
        args = scaled_args(writer, scale, weights, write)
        made = write.new(writer.target, *args, **writer.kwargs)
        node.replace_all_uses_with(made)
        for old in (node, writer):
            graph.erase_node(old)
        node = made
    centre_writer(node, axis, weights, Writer(graph, facts, node))
