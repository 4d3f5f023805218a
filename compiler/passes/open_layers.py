"""Encoder layers that torch calls as one operator become the calls that they are made of.

Shapes: B batch, L tokens, D width, H heads, K head width.

`nn.TransformerEncoderLayer` in inference is one `_transformer_encoder_layer_fwd`, which no other
pass can see into. Law: its definition, in the order of its own code; a mask hides where it is not
zero. What it has of fused kernels, `attention.py` and the code generator bring back.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from ..errors import Declined
from ..facts import Facts
from ..graph import aten, decline, fake, is_call, same_layout
from ..options import Options
from ..report import Reason
from .attention_parts import value_of
from .contract import Outcome
from .rearrange import Writer

NAMES = (
    *("src", "embed_dim", "heads", "qkv_weight", "qkv_bias", "out_weight", "out_bias"),
    *("gelu", "norm_first", "eps", "norm1_weight", "norm1_bias", "norm2_weight", "norm2_bias"),
    *("up_weight", "up_bias", "down_weight", "down_bias", "mask", "mask_type"),
)
SRC_MASK, PADDING_MASK, BOTH = 0, 1, 2  # what `mask_type` says that the mask is


def open_layers(graph: fx.Graph, facts: Facts, options: Options) -> Outcome:
    """The pass. A site is a layer."""
    outcome = Outcome()
    for node in [n for n in graph.nodes if is_call(n, aten._transformer_encoder_layer_fwd.default)]:
        outcome.sites += 1
        write = Writer(graph, facts, node, facts.inputs)
        try:
            if facts.autocast_dtype(node) is not None:
                raise Declined(Reason.AUTOCAST, "autocast leaves the operator as it is")
            given = dict(zip(NAMES, (*node.args, None, None), strict=False))
            made = _layer(given, write)
        except Declined as declined:
            write.discard()
            outcome.declined.append(decline(node, declined.reason, str(declined)))
            continue
        before = value_of(node)
        made = made if same_layout(before, value_of(made)) else write.like(made, before)
        node.replace_all_uses_with(made)
        graph.erase_node(node)
        outcome.rewritten += 1
    return outcome


def _layer(given: dict[str, Any], write: Writer) -> fx.Node:
    """Attention and FFN, each with its residual and its norm, before or after."""
    if value_of(given["src"]).dim() != 3:
        raise Declined(Reason.SHAPES, "it is not given [B, L, D]")
    x: fx.Node = given["src"]
    for part, number in ((_attention, "1"), (_ffn, "2")):
        if given["norm_first"]:
            inner = part(_norm(x, number, given, write), given, write)
            x = write.call(aten.add.Tensor, x, inner)
        else:
            inner = write.call(aten.add.Tensor, x, part(x, given, write))
            x = _norm(inner, number, given, write)
    return x


def _norm(x: fx.Node, number: str, given: dict[str, Any], write: Writer) -> fx.Node:
    affine = given[f"norm{number}_weight"], given[f"norm{number}_bias"]
    return write.call(aten.layer_norm.default, x, [given["embed_dim"]], *affine, given["eps"])


def _ffn(x: fx.Node, given: dict[str, Any], write: Writer) -> fx.Node:
    up = write.call(aten.linear.default, x, given["up_weight"], given["up_bias"])
    act = write.call(aten.gelu.default if given["gelu"] else aten.relu.default, up)
    return write.call(aten.linear.default, act, given["down_weight"], given["down_bias"])


def _attention(x: fx.Node, given: dict[str, Any], write: Writer) -> fx.Node:
    """[B, L, D] to [B, L, D]; written out, for `attention.py` to fuse as it does any other."""
    call, heads = write.call, given["heads"]
    width = given["embed_dim"] // heads
    qkv = call(aten.linear.default, x, given["qkv_weight"], given["qkv_bias"])
    parts = call(aten.unflatten.int, qkv, -1, [3, heads, width])
    q, k, v = (call(aten.transpose.int, call(aten.select.int, parts, 2, i), 1, 2) for i in range(3))
    keys = call(aten.transpose.int, k, -2, -1)
    scores = call(aten.mul.Tensor, call(aten.matmul.default, q, keys), 1 / math.sqrt(width))
    if given["mask"] is not None:
        hidden = _hidden(given["mask"], given["mask_type"], write)
        scores = call(aten.masked_fill.Scalar, scores, hidden, -math.inf)
    weights = call(aten.softmax.int, scores, -1)
    mixed = call(aten.transpose.int, call(aten.matmul.default, weights, v), 1, 2)
    joined = call(aten.flatten.using_ints, mixed, 2, 3)
    return call(aten.linear.default, joined, given["out_weight"], given["out_bias"])


def _hidden(mask: fx.Node, mask_type: int | None, write: Writer) -> fx.Node:
    """Where the mask hides, [B|1, H|1, L|1, L]."""
    value = fake(mask)
    if value is None or (mask_type, value.dim()) not in (
        (SRC_MASK, 2),
        (PADDING_MASK, 2),
        (BOTH, 4),
    ):
        raise Declined(Reason.UNKNOWN_OP, f"a mask of type {mask_type}")
    hidden = mask if value.dtype == torch.bool else write.call(aten.to.dtype, mask, torch.bool)
    if mask_type == PADDING_MASK:
        hidden = write.call(aten.unsqueeze.default, hidden, 1)
        hidden = write.call(aten.unsqueeze.default, hidden, 1)
    return hidden
