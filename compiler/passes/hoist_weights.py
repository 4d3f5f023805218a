"""What depends on weights only leaves the inference graph: it is computed once, before the call.

Weights are the inputs that Dynamo marks as parameters or buffers of a module. A maximal subgraph
of pure calls on them is cut out; its results become further inputs of the graph, held by a
`PreparedWeights` that notices when a weight has changed.
Law: the same operators on the same values. In training nothing is hoisted: the subgraph has to
be differentiated. Next: `../prepared.py` for when the values are computed anew.
"""

from __future__ import annotations

from torch import fx

from ..facts import Facts
from ..graph import decline, fake, is_symbolic, nbytes
from ..options import Options
from ..prepared import PreparedWeights
from ..report import Decline, Reason
from .contract import Outcome
from .subgraph import ancestors, derived_input, extract, weight_only

# A hoisted value this much larger than what it is computed from costs more to read than to make.
LARGEST_GROWTH = 4


def hoist_weights(graph: fx.Graph, facts: Facts, options: Options) -> Outcome:
    """The pass. A site is a value computed from weights alone and read by something else."""
    outcome = Outcome()
    derived = {n: None for n in weight_only(graph, facts) if n.op == "call_function"}
    candidates = [n for n in derived if _is_site(n, derived, facts)]
    outcome.sites = len(candidates)
    if facts.records_gradients:
        reason = "gradients are on, so autograd has to see it; run inference under torch.no_grad()"
        outcome.declined = [decline(n, Reason.TRAINING, reason) for n in candidates]
        return outcome
    chosen: list[fx.Node] = []
    budget = options.weights_budget
    if budget is None:
        budget = sum(map(_nbytes, {w for c in candidates for w in _weights_behind(c)}))
    for node in candidates:
        refused = _veto(node, facts, budget - outcome.prepared_bytes)
        if refused is None:
            chosen.append(node)
            outcome.prepared_bytes += _nbytes(node)
        else:
            outcome.declined.append(refused)
    if chosen:
        outcome.rewritten = len(chosen)
        outcome.derivation = _cut(graph, chosen, facts)
    return outcome


def _is_site(node: fx.Node, derived: dict[fx.Node, None], facts: Facts) -> bool:
    """A value at the border, that is more than a view of a weight."""
    at_border = any(user not in derived for user in node.users)
    return at_border and fake(node) is not None and not facts.is_view_of_input(node)


def _veto(node: fx.Node, facts: Facts, budget: int) -> Decline | None:
    value = fake(node)
    assert value is not None
    if is_symbolic(value):
        return decline(node, Reason.SHAPES, "its size is known only at run time")
    if facts.reaches_output(node):
        reason = "the caller gets its memory, and could write to what we keep"
        return decline(node, Reason.ALIASES_OUTPUT, reason)
    if _nbytes(node) > LARGEST_GROWTH * sum(map(_nbytes, _weights_behind(node))):
        return decline(node, Reason.NOT_WORTH_IT, "it is much larger than the weights behind it")
    if _nbytes(node) > budget:
        reason = f"it takes {_nbytes(node):,} bytes, and {max(budget, 0):,} are left of the budget"
        return decline(node, Reason.BUDGET, reason)
    return None


def _weights_behind(node: fx.Node) -> set[fx.Node]:
    return {n for n in ancestors(node) if n.meta.get("weight")}


def _cut(graph: fx.Graph, chosen: list[fx.Node], facts: Facts) -> PreparedWeights:
    """Move what computes `chosen` into a graph of its own; each becomes an input of the old one."""
    compute, positions = extract(graph, facts, chosen)
    needed = {n for c in chosen for n in ancestors(c)}
    last_input = facts.inputs[-1]
    for i, node in enumerate(chosen):
        prepared = derived_input(graph, node, f"prepared_{i}", last_input, weight=True)
        node.replace_all_uses_with(
            prepared, delete_user_cb=lambda user: user not in needed or user in chosen
        )
        last_input = prepared
    for node in reversed(list(graph.nodes)):
        if node in needed and node.op == "call_function" and not node.users:
            graph.erase_node(node)
    return PreparedWeights(compute, positions)


def _nbytes(node: fx.Node) -> int:
    value = fake(node)
    return nbytes(value) if value is not None and not is_symbolic(value) else 0
