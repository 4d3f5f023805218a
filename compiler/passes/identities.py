"""Remove calls that return their argument: dropout that is off, casts to the dtype at hand, views
of the same shape.

Law: the value of such a call *is* its argument (same storage, layout and dtype), so readers of the
one may read the other; gradients pass unchanged.
"""

from __future__ import annotations

from torch import fx

from ..facts import Facts, draws_random
from ..graph import aten, decline, fake, replace, same_layout, same_size
from ..options import Options
from ..report import Reason
from .contract import Outcome

DROPOUTS = (aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default)
IDENTITIES = (
    *DROPOUTS,
    aten.to.dtype,
    aten.to.device,
    aten.to.dtype_layout,
    aten.to.other,
    aten.type_as.default,
    aten.contiguous.default,
    aten.expand.default,
    aten.alias.default,
    aten.view.default,
    aten.reshape.default,
    aten.slice.Tensor,
)


def remove_identities(graph: fx.Graph, facts: Facts, options: Options) -> Outcome:
    """The pass. A call that hands memory to the caller, or whose memory is written, stays."""
    outcome = Outcome()
    for node in list(graph.nodes):
        if node.target not in IDENTITIES or not _returns_its_argument(node):
            continue
        outcome.sites += 1
        if facts.is_written(node):
            reason = "its memory is written in place"
            outcome.declined.append(decline(node, Reason.MUTATED, reason))
        elif facts.cuts_gradients(node):
            reason = "gradients are off around it, and it cuts them off"
            outcome.declined.append(decline(node, Reason.GRADIENT_MODE, reason))
        elif facts.output in node.users:
            reason = "the caller gets it as a tensor of its own"
            outcome.declined.append(decline(node, Reason.ALIASES_OUTPUT, reason))
        else:
            replace(node, node.args[0])
            outcome.rewritten += 1
    return outcome


def _returns_its_argument(node: fx.Node) -> bool:
    argument = node.args[0]
    if not isinstance(argument, fx.Node):
        return False
    if node.target in DROPOUTS:  # eager returns the argument, a trace shows a copy of it
        return not draws_random(node)
    before, after = fake(argument), fake(node)
    return (
        before is not None
        and after is not None
        and before.untyped_storage()._cdata == after.untyped_storage()._cdata
        and same_layout(before, after)
        and same_size([before.storage_offset()], [after.storage_offset()])
    )
