"""Padding removal: only the tokens that matter are computed.

Shapes: B batch, L padded length, T wanted tokens, D width.

    [B, L, D] token-wise ops, masked attention   ->   [T, D] the same ops, attention by sequence

Law: a wanted token is one that a reader names, or that a wanted query sees; no value at a wanted
token depends on one that is not. So all that is read is the same, and so are the gradients. What
is read whole is put back among zeros, where that cannot be told apart or the caller asked for it.
Each call looks at its masks (`real_tokens.py`); in a call that leaves nothing out, or that does not
let itself be packed, the graph as it was runs.

Next: `token_axes.py` says where the tokens are, `token_demand.py` which are read,
`packed_graph.py` writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import fx

from ..errors import Declined
from ..facts import Facts
from ..graph import aten, decline, fake, is_symbolic, op_name, where
from ..options import Options
from ..report import Decline, Reason
from .attention_parts import value_of
from .attention_read import AttentionRead, read_attention, read_sights
from .axes import Unreadable, is_one
from .contract import Outcome
from .packed_graph import PackedGraph
from .packing import in_order
from .real_tokens import Worth
from .rearrange import Writer
from .subgraph import is_cheap_ahead
from .token_axes import TokenAxes, token_axes
from .token_demand import Demand, Site, demand

# call -> which argument is the weight
PRODUCTS = {
    aten.linear.default: 1,
    aten.matmul.default: 1,
    aten.mm.default: 1,
    aten.addmm.default: 2,
}

# What packing costs a call, in floating-point operations that it has to save in matrix products:
# measured on widths 64 to 512, 2 to 32 sequences, fills 0.5 to 0.97 (docs/limits.md).
COST_OF_A_CALL = 4e8
COST_OF_A_SEQUENCE = 2e7  # in each attention
LEAST_SHARE = 0.05  # of the tokens, that has to be left out


def remove_padding(graph: fx.Graph, facts: Facts, options: Options) -> Outcome:
    """The pass. A site is an attention; one without a mask only where the caller asks."""
    outcome = Outcome()
    reads = [r for r in map(read_attention, graph.nodes) if r is not None]
    known: list[Site] = []
    made: dict[Any, fx.Node] = {}
    for read in reads:
        try:
            known.append(_site(read, facts, Writer(graph, facts, read.call, facts.inputs, made)))
        except Declined as declined:
            if declined.reason is Reason.NO_PADDING and options.padding != "remove":
                continue  # nobody asked, and there is nothing to be had
            outcome.declined.append(decline(read.call, declined.reason, str(declined)))
        outcome.sites += 1
    if not known:
        return outcome
    keys = value_of(known[0].read.key)
    axes = token_axes(graph, facts, keys.shape[0], keys.shape[2])
    sites = []
    for site in known:
        if _is_followed(site.read, axes):
            sites.append(site)
        else:
            lost = decline(site.read.call, Reason.AXES, _lost(site.read, axes))
            outcome.declined.append(lost)
    found = demand(graph, facts, axes, sites, options.padding == "remove")
    chosen = _chosen(graph, axes, sites, found)
    for site in sites:
        reason = found.reads_all.get(site.read.out)
        if reason is not None:
            outcome.declined.append(decline(site.read.call, Reason.PADDING_READ, reason))
        elif site.whole is not None:
            outcome.declined.append(site.whole)
    used = [s for s in sites if s.read.out not in found.reads_all]
    if used and any(n.target in PRODUCTS for n in chosen):
        build = PackedGraph(graph, facts, axes, used, found, chosen, _worth(chosen, len(used)))
        try:
            outcome.derivation = build.write()
            outcome.rewritten = sum(s.whole is None for s in used)
        except (Declined, Unreadable) as error:  # sizes that no value has, say
            rows = [decline(s.read.call, Reason.SHAPES, str(error)) for s in used]
            outcome.declined += rows
    return outcome


# --- what may be packed ---------------------------------------------------------------------------


def _site(read: AttentionRead, facts: Facts, write: Writer) -> Site:
    """Raises Declined if the prologue cannot tell what the call sees, or no operator computes it
    packed."""
    sights = read_sights(read, facts, write)
    if not sights.sights:
        raise Declined(Reason.NO_PADDING, "it has no mask, so every token is seen")
    for sight in sights.sights:
        value = value_of(sight.node)
        heads = value.shape[-3] if value.dim() > 2 else 1
        if value.dim() > 4 or not is_one(heads):
            raise Declined(Reason.MASK_NOT_PROVEN, "heads see different keys")
        if not is_cheap_ahead(sight.node, facts):
            raise Declined(Reason.MASK_NOT_PROVEN, "the mask is computed from activations")
    if read.causal:
        raise Declined(Reason.MASK_NOT_PROVEN, "a mask stands beside the causal flag")
    return Site(read, sights, _whole(read))


def _whole(read: AttentionRead) -> Decline | None:
    """Why no operator computes this attention packed."""
    operands = [value_of(n) for n in (read.query, read.key, read.value, read.out)]
    if read.dropout:
        return decline(read.call, Reason.DROPOUT, "no packed attention draws dropout: stays padded")
    if any(v.device.type != "cpu" for v in operands):
        return decline(read.call, Reason.DEVICE, f"on {operands[0].device.type}: stays padded")
    if len({v.dtype for v in operands}) > 1:
        text = f"{operands[0].dtype} queries give {operands[3].dtype}: stays padded"
        return decline(read.call, Reason.DTYPES, text)
    return None


def _is_followed(read: AttentionRead, axes: TokenAxes) -> bool:
    """Whether the keys and values are known to be the tokens, and the queries those or none."""
    if axes.layout(read.query) is not None:
        return read.call in axes.tokenwise
    return all(axes.tokens.is_usual(axes.layout(n)) for n in (read.key, read.value))


def _lost(read: AttentionRead, axes: TokenAxes) -> str:
    """Where the tokens got lost on the way to an attention."""
    node: Any = read.call
    for operand in (read.query, read.key, read.value):
        if axes.layout(operand) is None:
            node = operand
    while node not in axes.blocked:
        inputs = [n for n in node.all_input_nodes if n not in axes.layouts]
        if not inputs:
            return "its queries, keys or values do not come from the tokens"
        node = inputs[0]
    return (
        f"after {op_name(node)} ({where(node)}) the tokens are not followed: {axes.blocked[node]}"
    )


def _chosen(
    graph: fx.Graph, axes: TokenAxes, sites: Sequence[Site], found: Demand
) -> dict[fx.Node, None]:
    """The calls that are computed packed, in order."""
    known = {s.read.call for s in sites if s.whole is None}
    unread = {n for n in axes.tokenwise if n not in found.reads_all}
    return in_order(graph, {n for n in unread if n in known or read_attention(n) is None}, axes)


def _worth(chosen: Iterable[fx.Node], sites: int) -> Worth:
    """The cost gate: whether the products of the tokens that are left out outweigh the packing."""
    weights = [fake(n.args[PRODUCTS[n.target]]) for n in chosen if n.target in PRODUCTS]  # type: ignore[arg-type]
    per_token = sum(2 * w.numel() for w in weights if w is not None and not is_symbolic(w))

    def pays(wanted: int, tokens: int, sequences: int) -> bool:
        left_out = tokens - wanted
        cost = COST_OF_A_CALL + COST_OF_A_SEQUENCE * sequences * sites
        return left_out >= LEAST_SHARE * tokens and left_out * per_token >= cost

    return pays
