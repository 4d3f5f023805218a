"""Writes to memory that nobody else reads become ordinary calls: `scores += bias`, `masked_fill_`.

Law: `x.op_(...)` is `y = op(x, ...)` with y read in place of x, if x is fresh memory that only the
write reads: nobody can tell whether the old memory or new memory holds the result. Values and
gradients are the same. It must not know who profits (attention does).
"""

from __future__ import annotations

from typing import Any

from torch import fx

from ..facts import Facts
from ..graph import aten, decline, emit, fake, readers, same_layout
from ..options import Options
from ..report import Reason
from .contract import Outcome

NAMES = ("add_", "sub_", "mul_", "div_", "masked_fill_", "clamp_", "neg_", "exp_")


def _plain_form(target: Any) -> Any:
    """`aten.add_.Tensor` -> `aten.add.Tensor`; None for what is not in NAMES."""
    name = getattr(target, "_opname", "")
    if name not in NAMES:
        return None
    packet = getattr(aten, name.removesuffix("_"), None)
    return getattr(packet, target._overloadname, None)


def functionalise(graph: fx.Graph, facts: Facts, options: Options) -> Outcome:
    """The pass. A site is one of these writes to memory that the graph has made."""
    outcome = Outcome()
    for node in list(graph.nodes):
        plain = _plain_form(node.target)
        if plain is None or facts.is_view_of_input(node):
            continue
        outcome.sites += 1
        written = node.args[0]
        if not _is_fresh(written, node, facts):
            reason = "the memory that it writes is read by others too"
            outcome.declined.append(decline(node, Reason.MUTATED, reason))
            continue
        value = fake(node)
        new = emit(graph, plain, node.args, dict(node.kwargs), like=node)
        after = fake(new)
        if value is None or after is None or not same_layout(value, after):
            graph.erase_node(new)
            reason = "the result would have another layout or dtype"
            outcome.declined.append(decline(node, Reason.DTYPES, reason))
            continue
        new.meta["val"] = value  # so all that is known of the readers stays true
        node.replace_all_uses_with(new)
        graph.erase_node(node)
        facts.add(new, at=node)
        outcome.rewritten += 1
    return outcome


def _is_fresh(written: Any, node: fx.Node, facts: Facts) -> bool:
    """Whether what is written was made by a call that makes new memory, for this write alone."""
    return (
        isinstance(written, fx.Node)
        and readers(written) == [node]
        and written.op == "call_function"
        and not facts.cuts_gradients(node)
        and facts.is_fresh(written)
    )
