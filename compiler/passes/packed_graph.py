"""The packed graph, and the derivation that says in each call which tokens it is for.

Shapes: B batch, L padded length, T wanted tokens, Q queries of an attention whose queries are no
tokens (a decoder's, or those of the one token that is demanded), H heads, K head width.
It must not know why this is right (`remove_padding.py`). Next: `packing.py`, `real_tokens.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from ..facts import Facts
from ..graph import aten, fake, same_layout
from ..operators import TOKEN_ROWS, VARLEN_ATTENTION
from ..torch_compat import unbacked_sizes
from .attention_parts import value_of
from .axes import is_one
from .packing import Packer, Rows
from .real_tokens import Looked, RealTokens, Worth
from .rearrange import Writer
from .subgraph import derived_input, extract
from .token_axes import TokenAxes
from .token_demand import IGNORED, Demand, Site

RECOMPUTE_TAGS = ("recompute", "ac_graph_id")


@dataclass
class PackedGraph:
    """Writes it. `sites` are the attentions whose keys are packed, `chosen` the calls computed on
    packed rows, among them the sites that have an operator for it."""

    graph: fx.Graph
    facts: Facts
    axes: TokenAxes
    sites: Sequence[Site]
    found: Demand
    chosen: dict[fx.Node, None]
    worth: Worth

    def write(self) -> RealTokens:
        """Write the packed graph; the derivation that tells its tokens."""
        first = next(n for n in self.graph.nodes if n.op == "call_function")
        head = Writer(self.graph, self.facts, first, self.facts.inputs)
        looked, sights = self._looked(head)
        tokens = self.axes.tokens
        size = head.sizes([tokens.batch.size, tokens.token.size])
        device = value_of(self.sites[0].read.key).device
        keep = head.call(aten.zeros.default, size, dtype=torch.bool, device=device)
        named = list({cells: None for n in self.chosen for cells in self.found.named.get(n, ())})
        compute, positions = extract(self.graph, self.facts, [keep, *sights, *named])
        self._inputs(head, keep, looked)
        self._rewrite()
        looks = list(looked.values())
        return RealTokens(compute, positions, looks, len(named), self.found.shown, self.worth)

    def _looked(self, head: Writer) -> tuple[dict[Any, Looked], list[fx.Node]]:
        """What the prologue looks at: once for all sites with the same sights."""
        looked: dict[Any, Looked] = {}
        nodes: dict[fx.Node, int] = {}
        for site in self.sites:
            for sight in site.sights.sights:
                nodes.setdefault(sight.node, len(nodes))
            sights = tuple((nodes[s.node], s.added) for s in site.sights.sights)
            queries = None
            if not self._is_among(site):
                size = head.sizes(value_of(site.read.query).shape[2:3])
                queries = nodes.setdefault(head.call(aten.zeros.default, size), len(nodes))
            tells = queries is not None or not all(_alike(s.node) for s in site.sights.sights)
            looked[self._key(site)] = Looked(sights, queries, tells)
        return looked, list(nodes)

    def _key(self, site: Site) -> Any:
        among = self._is_among(site)
        return site.sights.key, None if among else str(value_of(site.read.query).shape[2])

    def _is_among(self, site: Site) -> bool:
        """Whether the queries of a site are among the tokens."""
        return self.axes.layout(site.read.query) is not None

    def _inputs(self, head: Writer, keep: fx.Node, looked: dict[Any, Looked]) -> None:
        """The inputs that the derivation fills, and what is computed from them first."""
        last = derived_input(self.graph, keep, "keep", self.facts.inputs[-1])
        self.facts.add(last, self.facts.inputs[-1])
        with unbacked_sizes(value_of(keep)):
            both = head.new(TOKEN_ROWS, last)
        rows, sequence, position, self.starts = (head.item(both, i) for i in range(4))
        for node in (both, rows, sequence, position, self.starts):
            for tag in RECOMPUTE_TAGS:  # made anew in a backward pass, T would be another size
                node.meta.pop(tag, None)
        self.rows = Rows(rows, sequence, position)
        self.seen: dict[Any, fx.Node] = {}
        queries = {self._key(s): value_of(s.read.query).shape[2] for s in self.sites}
        for i, (key, what) in enumerate(looked.items()):
            if what.tells:
                size = head.sizes([value_of(keep).shape[0], queries[key], 2])
                device = value_of(keep).device
                like = head.call(aten.zeros.default, size, dtype=torch.int32, device=device)
                last = derived_input(self.graph, like, f"seen_{i}", last)
                self.facts.add(last, self.facts.inputs[-1])
                flat = head.call(aten.flatten.using_ints, last, 0, 1)
                if what.packs_queries:
                    flat = head.call(aten.index_select.default, flat, 0, rows)
                self.seen[key] = flat

    def _rewrite(self) -> None:
        self.by_call = {s.read.call: s for s in self.sites}
        losses = [n for n in self.graph.nodes if self._is_loss_of_rows(n)]
        packer = Packer(self.graph, self.facts, self.axes, self.rows, self._attend)
        for node in list(self.graph.nodes):
            if node in self.chosen:
                packer.pack(node)
                outside = [u for u in node.users if u not in self.chosen and u not in losses]
                if outside:
                    made = packer.whole(node)
                    node.replace_all_uses_with(made, delete_user_cb=lambda u, o=outside: u in o)
            elif node in losses:
                self._count_rows(node, packer.before(node))
            elif node in self.by_call and not self._is_among(self.by_call[node]):
                self._attend_from_elsewhere(self.by_call[node], packer.before(node))
        for node in reversed(self.chosen):
            if not node.users:
                self.graph.erase_node(node)

    def _is_loss_of_rows(self, node: fx.Node) -> bool:
        """Whether a call is a mean or sum over rows [B * L, classes] that are packed: the rows that
        are left out have the ignored label, and count for nothing."""
        if node.target not in IGNORED or node.args[0] not in self.chosen or node.kwargs:
            return False
        layout = self.axes.layout(node.args[0])
        summed = len(node.args) < 4 or node.args[3] in (1, 2)
        return (
            layout is not None
            and summed
            and self.axes.tokens.is_gone(layout[0])
            and (len(layout) == 2 and len(layout[0]) == 2)
        )

    def _count_rows(self, node: fx.Node, packer: Packer) -> None:
        layout: Any = self.axes.layout(node.args[0])
        rows = packer.rows(node.args[0])
        labels = packer.picked(node.args[1], layout[:1], layout[:1])  # type: ignore[arg-type]
        node.replace_all_uses_with(packer.write.new(node.target, rows, labels, *node.args[2:]))

    # --- attention ------------------------------------------------------------------------------

    def _attend(self, node: fx.Node, packer: Packer) -> fx.Node:
        """An attention from the tokens to themselves."""
        site = self.by_call[node]
        query = packer.rows(site.read.query)
        both = self._call(site, packer, query, self.starts, self.rows.position)
        return packer.write.item(both, 0)

    def _attend_from_elsewhere(self, site: Site, packer: Packer) -> None:
        """Queries [B, H, Q, K] that are no tokens: Q rows of each sequence."""
        read, call = site.read, packer.write.call
        batch, _, count, _ = packer.write.sizes(value_of(read.query).shape)
        rows = call(aten.transpose.int, read.query, 1, 2)
        rows = call(aten.flatten.using_ints, rows, 0, 1)
        position = call(aten.repeat.default, call(aten.arange.default, count), [batch])
        begins = call(aten.arange.default, batch)
        ends = call(aten.add.Scalar, begins, 1)
        both_ends = call(aten.cat.default, [call(aten.slice.Tensor, begins, 0, 0, 1), ends])
        starts = call(aten.mul.Tensor, both_ends, count)
        both = self._call(site, packer, rows, starts, position)
        out = packer.write.item(both, 0)
        out = call(aten.unflatten.int, out, 0, [batch, count])
        out = call(aten.transpose.int, out, 1, 2)
        if not same_layout(value_of(out), value_of(read.out)):
            out = packer.write.like(out, value_of(read.out))
        read.out.replace_all_uses_with(out)

    def _call(
        self, site: Site, packer: Packer, query: fx.Node, starts: fx.Node, position: fx.Node
    ) -> fx.Node:
        operands = query, packer.rows(site.read.key), packer.rows(site.read.value)
        places = starts, self.starts, position, self.rows.position
        bias = _summed(site.sights.biases, packer.write)
        seen = self.seen.get(self._key(site))
        return packer.write.new(VARLEN_ATTENTION, *operands, *places, seen, bias, site.read.scale)


def _summed(biases: Sequence[fx.Node], write: Writer) -> fx.Node | None:
    """What is added to the scores, [B|1, H|1, L|1, S|1]."""
    found: fx.Node | None = None
    for bias in biases:
        found = bias if found is None else write.call(aten.add.Tensor, found, bias)
    while found is not None and (value := fake(found)) is not None and value.dim() < 4:
        found = write.call(aten.unsqueeze.default, found, 0)
    return found


def _alike(node: fx.Node) -> bool:
    """Whether a sight shows the same to all queries."""
    value = value_of(node)
    return value.dim() > 1 and is_one(value.shape[-2])
