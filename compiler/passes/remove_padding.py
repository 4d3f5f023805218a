"""Padding removal: only the tokens that matter are computed.

Shapes: B batch, L padded length, T wanted tokens, D width.

    [B, L, D] token-wise ops, masked attention   ->   [T, D] the same ops, attention by sequence

Law: a wanted token is one that a reader names, or that a wanted query sees; no value at a wanted
token depends on one that is not. So all that is read is the same, and so are the gradients. What
is read whole is put back among zeros, where that cannot be told apart or the caller asked for it.
Each call looks at its masks (`real_tokens.py`); in a call that leaves nothing out, or that does not
let itself be packed, the graph as it was runs.

Next: `token_axes.py` says where the tokens are, `token_demand.py` which are read, `packing.py`
writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from ..errors import Declined
from ..facts import Facts
from ..graph import aten, decline, fake, op_name, where
from ..options import Options
from ..report import Reason
from ..torch_compat import allow_unbacked_sizes
from .attention_parts import value_of
from .attention_read import AttentionRead, Sights, read_attention, read_sights
from .axes import is_one
from .contract import Outcome
from .packing import Packer, Rows
from .real_tokens import Looked, RealTokens
from .rearrange import Writer
from .subgraph import derived_input, extract, is_cheap_ahead
from .token_axes import TokenAxes, token_axes
from .token_demand import Demand, Site, demand
from .token_rules import rule_of

PRODUCTS = (
    aten.linear.default,
    aten.matmul.default,
    aten.mm.default,
    aten.addmm.default,
)


def remove_padding(graph: fx.Graph, facts: Facts, options: Options) -> Outcome:
    """The pass. A site is an attention."""
    outcome = Outcome()
    reads = [r for r in map(read_attention, graph.nodes) if r is not None]
    outcome.sites = len(reads)
    known: list[Site] = []
    for read in reads:
        try:
            known.append(_site(read, facts))
        except Declined as declined:
            outcome.declined.append(decline(read.call, declined.reason, str(declined)))
    if not known:
        return outcome
    keys = value_of(known[0].read.key)
    axes = token_axes(graph, facts, keys.shape[0], keys.shape[2])
    sites = []
    for site in known:
        blocked = axes.blocked.get(site.read.call)
        if site.read.out in axes.layouts and blocked is None:
            sites.append(site)
        else:
            reason = _lost(site.read, axes)
            outcome.declined.append(decline(site.read.call, Reason.AXES, reason))
    found = demand(graph, facts, axes, sites, options.padding == "remove")
    chosen = _chosen(graph, axes, sites, found)
    for site in sites:
        if site.read.call not in chosen:
            reason = found.reads_all.get(site.read.out) or found.reads_all.get(site.read.query)
            text = reason or "nothing that it would pay for is computed between"
            outcome.declined.append(decline(site.read.call, Reason.PADDING_READ, text))
    packed = [s for s in sites if s.read.call in chosen]
    if not packed or not any(n.target in PRODUCTS for n in chosen):
        return outcome
    outcome.derivation = _Build(graph, facts, axes, packed, found, chosen).run()
    outcome.rewritten = len(packed)
    return outcome


# --- what may be packed -----------------------------------------------------------------------------


def _site(read: AttentionRead, facts: Facts) -> Site:
    """Raises Declined if the prologue cannot tell what the call sees, or no operator computes it
    packed."""
    sights = read_sights(read, facts)
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
    if read.dropout:
        raise Declined(Reason.DROPOUT, "dropout inside attention: no packed operator here draws it")
    operands = [value_of(n) for n in (read.query, read.key, read.value, read.out)]
    if any(v.device.type != "cpu" for v in operands):
        raise Declined(Reason.DEVICE, f"on {operands[0].device.type}")
    if len({v.dtype for v in operands}) > 1:
        raise Declined(Reason.DTYPES, f"{operands[0].dtype} queries give {operands[3].dtype}")
    return Site(read, sights)


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
    known = {s.read.call for s in sites}
    chosen: dict[fx.Node, None] = {}
    for node in graph.nodes:
        if node not in axes.tokenwise or node in found.reads_all:
            continue
        source = node.args[0] if node.args else None
        tuple_item = isinstance(axes.layouts.get(source), list)  # type: ignore[arg-type]
        if tuple_item and source not in chosen:
            continue
        if read_attention(node) is not None and node not in known:
            continue
        chosen[node] = None
    return chosen


# --- build --------------------------------------------------------------------------------------------


@dataclass
class _Build:
    graph: fx.Graph
    facts: Facts
    axes: TokenAxes
    sites: Sequence[Site]
    found: Demand
    chosen: dict[fx.Node, None]

    def run(self) -> RealTokens:
        """Write the packed graph; the derivation that tells its tokens."""
        first = next(n for n in self.graph.nodes if n.op == "call_function")
        head = Writer(self.graph, self.facts, first, self.facts.inputs)
        looked, nodes = self._looked()
        tokens = self.axes.tokens
        size = head.sizes([tokens.batch.size, tokens.token.size])
        device = value_of(self.sites[0].read.key).device
        keep = head.call(aten.zeros.default, size, dtype=torch.bool, device=device)
        named = list({cells: None for n in self.chosen for cells in self.found.named.get(n, ())})
        compute, positions = extract(self.graph, self.facts, [keep, *nodes, *named])
        rows, seen = self._inputs(head, keep, looked, device)
        self._write(rows, seen)
        return RealTokens(compute, positions, looked.values(), len(named), self.found.shown, pays)  # type: ignore[arg-type]

    def _looked(self) -> tuple[dict[Any, Looked], list[fx.Node]]:
        """What the prologue looks at: once for all sites with the same sights."""
        looked: dict[Any, Looked] = {}
        nodes: dict[fx.Node, int] = {}
        for site in self.sites:
            for sight in site.sights.sights:
                nodes.setdefault(sight.node, len(nodes))
            sights = tuple((nodes[s.node], s.added) for s in site.sights.sights)
            tells = not all(_alike(s.node) for s in site.sights.sights)
            looked[site.sights.key] = Looked(sights, True, tells)
        return looked, list(nodes)

    def _inputs(
        self, head: Writer, keep: fx.Node, looked: dict[Any, Looked], device: torch.device
    ) -> tuple[Rows, dict[Any, fx.Node | None]]:
        """The inputs that the derivation fills, and what is computed from them first."""
        allow_unbacked_sizes(keep.meta["val"])
        last = derived_input(self.graph, keep, "keep", self.facts.inputs[-1])
        self.facts.add(last, self.facts.inputs[-1])
        rows = Rows.of(last, head)
        seen: dict[Any, fx.Node | None] = {}
        for i, (key, what) in enumerate(looked.items()):
            if not what.tells:
                seen[key] = None
                continue
            size = head.sizes([*value_of(keep).shape, 2])
            like = head.call(aten.zeros.default, size, dtype=torch.int32, device=device)
            last = derived_input(self.graph, like, f"seen_{i}", last)
            self.facts.add(last, self.facts.inputs[-1])
            flat = head.call(aten.flatten.using_ints, last, 0, 1)
            seen[key] = head.call(aten.index_select.default, flat, 0, rows.rows)
        return rows, seen

    def _write(self, rows: Rows, seen: dict[Any, fx.Node | None]) -> None:
        packer = Packer(self.graph, self.facts, self.axes, rows)
        packer.sites = {s.read.call: (s, seen[s.sights.key]) for s in self.sites}
        for node in self.chosen:
            rule = rule_of(node)
            assert rule is not None
            packer.packed[node] = rule.pack(node, packer.before(node))
        for node in self.chosen:
            outside = [u for u in node.users if u not in self.chosen]
            if not outside:
                continue
            if isinstance(self.axes.layouts[node], list):
                raise RuntimeError(f"a value of {node} is read whole")
            packer.before(node.next)
            made = packer.whole(node)
            node.replace_all_uses_with(made, delete_user_cb=lambda u, o=outside: u in o)
        for node in reversed(self.chosen):
            if not node.users:
                self.graph.erase_node(node)


def _alike(node: fx.Node) -> bool:
    """Whether a sight shows the same to all queries."""
    value = value_of(node)
    return value.dim() > 1 and is_one(value.shape[-2])


def pays(wanted: int, tokens: int) -> bool:
    """Whether leaving out the rest pays."""
    return wanted < tokens


__all__ = ["Sights", "fake", "remove_padding"]
