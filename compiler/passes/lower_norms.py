"""Norms written for the code generator: what is computed per row is computed once per row.

Shapes: [..., D] in and out; m, v and r have size one along the last axis.

    rms_norm(x)     ->   x * r * w + b          r = rsqrt(mean(x^2) + eps)
    layer_norm(x)   ->   (x - m) * r * w + b    m = mean(x), r = rsqrt(mean((x - m)^2) + eps)

with r materialized. All of it is then one loop over the rows, each read from memory once. The form
that Inductor gives rms_norm takes the root and divides once for each vector of the row, and its
layer_norm is three loops over all rows (docs/measurements/norms.json). Those are as fast where x
fits in a cache, and nothing in them waits for the end of a row: such a layer_norm is left.
Law: the same formula. It must not know which norms were LayerNorms.
"""

from __future__ import annotations

import torch
from torch import fx

from ..errors import Declined
from ..facts import Facts
from ..graph import aten, decline, fake
from ..operators import MATERIALIZE
from ..options import Options
from ..report import Reason
from .contract import Outcome
from .norms import HALF, Norm, read_norm, take_place
from .rearrange import Writer

FITS = 2**19  # numbers of x that the caches of two cores keep, as measured


def lower_norms(graph: fx.Graph, facts: Facts, options: Options) -> Outcome:
    """The pass. A site is a norm along the last axis."""
    outcome = Outcome()
    for node in list(graph.nodes):
        norm = read_norm(node)  # as it is by now: it may read a norm that has been rewritten
        if norm is None:
            continue
        outcome.sites += 1
        try:
            _veto(norm, facts)
        except Declined as declined:
            outcome.declined.append(decline(norm.node, declined.reason, str(declined)))
            continue
        _build(graph, facts, norm)
        outcome.rewritten += 1
    return outcome


def lower_norms_wanted(options: Options) -> bool:
    """Whether the code generator is the one that this is written for."""
    return options.norm != "off" and options.target == "inductor"


def _veto(norm: Norm, facts: Facts) -> None:
    """Raises Declined if the formula could differ here, or is not known to be faster."""
    value = fake(norm.x)
    assert value is not None
    if value.device.type != "cpu":
        raise Declined(Reason.NOT_WORTH_IT, f"it is not measured on {value.device.type}")
    if norm.centres and isinstance(value.numel(), int) and value.numel() <= FITS:
        raise Declined(Reason.NOT_WORTH_IT, f"its input fits in a cache: {value.numel()} numbers")
    if facts.autocast_region(norm.node) or facts.autocast_dtype(norm.node) is not None:
        raise Declined(Reason.AUTOCAST, "autocast decides in which dtype it is computed")
    if norm.eps is None and value.dtype in HALF:
        raise Declined(Reason.DTYPES, f"torch chooses its eps for {value.dtype}")


def _build(graph: fx.Graph, facts: Facts, norm: Norm) -> None:
    write = Writer(graph, facts, norm.node)
    take_place(write, norm.node, _formula(write, norm))


def _formula(write: Writer, norm: Norm) -> fx.Node:
    """The calls; what is in half precision is computed in float32, as torch does."""
    x, dtype = norm.x, norm.node.meta["val"].dtype
    wide = torch.float32 if dtype in HALF else dtype
    affine = [n for n in (norm.weight, norm.bias) if n is not None]
    x, *affine = [
        n if n.meta["val"].dtype == wide else write.new(aten.to.dtype, n, wide)
        for n in (x, *affine)
    ]
    if norm.centres:
        total = write.new(aten.sum.dim_IntList, x, [-1], True)
        x = write.new(aten.sub.Tensor, x, write.new(aten.mul.Tensor, total, 1 / norm.width))
    square = write.new(aten.mean.dim, write.new(aten.mul.Tensor, x, x), [-1], True)
    eps = torch.finfo(dtype).eps if norm.eps is None else norm.eps
    root = write.new(aten.rsqrt.default, write.new(aten.add.Tensor, square, eps))
    y = write.new(aten.mul.Tensor, x, write.new(MATERIALIZE, root))
    targets = [aten.mul.Tensor] * (norm.weight is not None)
    for target, operand in zip([*targets, aten.add.Tensor], affine, strict=False):
        y = write.new(target, y, operand)
    return y if wide == dtype else write.new(aten.to.dtype, y, dtype)
