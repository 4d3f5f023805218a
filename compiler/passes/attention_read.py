"""Calls of attention as they stand in the graph, read into one form.

Shapes: B batch, H heads, G heads of keys and values, L queries, S keys, K and V widths.

    out = softmax(where(visible, scale * q @ k.T + bias, fill)) @ v

What hides keys is a conjunction of *sights*: boolean masks, and additive masks that are zero where
a key is visible and beyond all scores where it is not. The rest of what is added is the bias.
It must not know who asks. Next: `attention_call.py` writes such calls, `real_tokens.py` looks at
the sights in each call.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from ..errors import Declined
from ..facts import Facts
from ..graph import aten, fake, is_call, number
from ..operators import ATTENTION
from ..operators.mask_plan import HIDES
from .attention_mask import placed
from .attention_parts import Value
from .axes import Unreadable, aligned, new_layout
from .rearrange import Writer
from .subgraph import ancestors, can_be_derived

SAME = (aten.expand.default, aten.contiguous.default, aten.clone.default)
CALLS = (aten.scaled_dot_product_attention.default, ATTENTION)


@dataclass
class AttentionRead:
    """One call. `out` is the node that holds the result, `call` the call itself."""

    call: fx.Node
    out: fx.Node
    query: fx.Node
    key: fx.Node
    value: fx.Node
    bias: fx.Node | None
    mask: fx.Node | None
    scale: float
    fill: float = -math.inf
    causal: bool = False
    dropout: float = 0.0


def read_attention(node: fx.Node) -> AttentionRead | None:
    """What a node calls, if it is attention."""
    if is_call(node, ATTENTION):
        users = [u for u in node.users if u.target is operator.getitem and u.args[1] == 0]
        if len(users) != 1:
            return None
        q, k, v, bias, mask, _, scale, fill, causal = node.args
        return AttentionRead(node, users[0], q, k, v, bias, mask, scale, fill, causal)  # type: ignore[arg-type]
    if not is_call(node, aten.scaled_dot_product_attention.default):
        return None
    given: dict[str, Any] = {"attn_mask": None, "dropout_p": 0.0, "is_causal": False, "scale": None}
    given |= dict(zip(("query", "key", "value", *given), node.args, strict=False))
    given |= node.kwargs
    query = fake(given["query"])
    assert query is not None
    mask, bias = given["attn_mask"], None
    if mask is not None and (value := fake(mask)) is not None and value.dtype != torch.bool:
        mask, bias = None, mask
    scale = given["scale"]
    if scale is None:
        scale = 1 / math.sqrt(query.shape[-1])
    operands = given["query"], given["key"], given["value"]
    causal, dropout = given["is_causal"], given["dropout_p"]
    return AttentionRead(node, node, *operands, bias, mask, scale, causal=causal, dropout=dropout)


# --- what hides keys ------------------------------------------------------------------------------


@dataclass
class Sight:
    """A value that says which keys are visible: where it is True, or, if it is `added`, zero."""

    node: fx.Node
    added: bool = False


@dataclass
class Sights:
    """All that hides keys in a call, and what is added besides."""

    sights: list[Sight] = field(default_factory=list)
    biases: list[fx.Node] = field(default_factory=list)

    @property
    def key(self) -> tuple[fx.Node, ...]:
        """Equal for calls that hide the same."""
        return tuple(s.node for s in self.sights)


def read_sights(call: AttentionRead, facts: Facts, write: Writer) -> Sights:
    """The mask and the bias of a call taken apart."""
    found = Sights()
    if call.mask is not None and call.fill <= HIDES:
        _of_mask(_placed(call.mask, call, facts, write), found)
    if call.bias is not None:
        _of_bias(_placed(call.bias, call, facts, write), found, facts)
    return found


def _placed(term: fx.Node, call: AttentionRead, facts: Facts, write: Writer) -> fx.Node:
    """A term without what only repeats it along heads or queries, if that can be told."""
    query, key, value = (fake(n) for n in (call.query, call.key, term))
    assert query is not None
    assert key is not None
    assert value is not None
    shape = (*query.shape[:3], key.shape[2])
    layout = new_layout(shape)
    try:
        own = aligned(layout, shape, value.shape)
        return placed(Value(term, own), write, layout, facts)
    except (Unreadable, Declined):
        return term


def _of_mask(mask: fx.Node, found: Sights) -> None:
    """Conjuncts, as far down as they broadcast alike."""
    inner: Any = mask.args[0] if is_call(mask, *SAME) else None
    if _rank(inner) == _rank(mask):
        return _of_mask(inner, found)
    if is_call(mask, aten.logical_and.default, aten.bitwise_and.Tensor, aten.__and__.Tensor):
        operands: Any = mask.args
        if all(_is_mask(n) for n in operands):
            for operand in operands:
                _of_mask(operand, found)
            return None
    found.sights.append(Sight(mask))
    return None


def _of_bias(bias: fx.Node, found: Sights, facts: Facts) -> None:
    inner: Any = bias.args[0] if is_call(bias, *SAME) else None
    if _rank(inner) == _rank(bias):
        return _of_bias(inner, found, facts)
    if is_call(bias, aten.add.Tensor) and not bias.kwargs:
        operands: Any = bias.args
        if all(isinstance(n, fx.Node) and _rank(n) == 4 for n in operands):
            for operand in operands:
                _of_bias(operand, found, facts)
            return None
    if is_call(bias, aten.where.ScalarOther):
        mask, rest, fill = bias.args
        if isinstance(mask, fx.Node) and isinstance(fill, float | int) and fill <= HIDES:
            _of_mask(mask, found)
            if isinstance(rest, fx.Node) and not _is_zero(rest):
                _of_bias(rest, found, facts)
            return None
    if _is_additive_mask(bias, facts):
        found.sights.append(Sight(bias, added=True))
    else:
        found.biases.append(bias)
    return None


def _is_additive_mask(bias: fx.Node, facts: Facts) -> bool:
    """Whether an addend may be a mask: alike for all heads, and of no weights. In each call it is
    looked at; where it is something else, nothing is removed."""
    value = fake(bias)
    if value is None or value.dim() != 4 or value.shape[1] != 1:
        return False
    return can_be_derived(bias, facts) and not any(n.meta.get("weight") for n in ancestors(bias))


def _is_zero(node: fx.Node) -> bool:
    return number(node) == 0.0 or is_call(node, aten.zeros.default, aten.zeros_like.default)


def _is_mask(node: Any) -> bool:
    value = fake(node) if isinstance(node, fx.Node) else None
    return value is not None and value.dtype == torch.bool and value.dim() in (0, 4)


def _rank(node: Any) -> int:
    value = fake(node) if isinstance(node, fx.Node) else None
    return -1 if value is None else value.dim()
