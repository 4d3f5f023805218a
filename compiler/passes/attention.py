"""Attention written by hand becomes one `scaled_dot_product_attention`.

Shapes: B batch, H heads, L queries, S keys, K head width.

    dropout(softmax(q @ k.T * scale + mask)) @ v   ->   sdpa(q, k, v, mask, scale)

with q [B,H,L,K], k and v [B,H,S,K], mask broadcastable to [B,H,L,S].
Law: both sides are softmax(scale q k^T + mask) v. They differ in rounding only: the fused kernel
sums in another order, and in bf16 and fp16 keeps the scores in fp32, which the original rounds.
With dropout the distribution is the same, the random numbers are not.

This first form knows the spelling above with any layout around it; everything else is declined by
name. Next: `attention_site.py` reads a site, `_veto` says why not, `_build` writes.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import fx

from ..errors import Declined
from ..facts import Facts
from ..graph import (
    aten,
    decline,
    emit,
    is_call,
    renewed_values,
    same_layout,
    same_layouts,
    same_size,
)
from ..options import Options
from ..report import Reason
from ..torch_compat import HigherOrderOperator
from .attention_site import SOFTMAX, Site, is_site, read_site, value_of
from .contract import Outcome
from .finite import is_finite
from .subgraph import extract
from .visible_rows import VisibleRows, can_be_derived, is_visible_constant

READS_STRIDES = (aten.as_strided.default, aten.as_strided_scatter.default)


def fuse_attention(graph: fx.Graph, facts: Facts, options: Options) -> Outcome:
    """The pass. A site is a softmax between two matrix products."""
    return _fuse(graph, facts, None)


def fuse_attention_by_call(graph: fx.Graph, facts: Facts, options: Options) -> Outcome:
    """The same, and sites whose mask the graph alone does not prove: right in the calls in which
    each query sees some key, which the derivation finds out."""
    masks: dict[fx.Node, None] = {}
    outcome = _fuse(graph, facts, masks)
    if masks:
        compute, positions = extract(graph, facts, list(masks))
        outcome.derivation = VisibleRows(compute, positions)
    return outcome


def _fuse(graph: fx.Graph, facts: Facts, masks: dict[fx.Node, None] | None) -> Outcome:
    """Masks that are to be looked at in each call go to `masks`; None: there is no such look."""
    outcome = Outcome()
    is_unproven = functools.cache(functools.partial(_is_unproven, facts=facts))  # once, not a layer
    for softmax in [n for n in graph.nodes if is_call(n, *SOFTMAX)]:
        if not is_site(softmax):
            continue
        outcome.sites += 1
        try:
            site = read_site(softmax, facts)
            _veto(site, facts)
            unproven = site.mask if site.mask is not None and is_unproven(site.mask) else None
            if unproven is not None and (masks is None or not can_be_derived(unproven, facts)):
                raise Declined(Reason.MASK_NOT_PROVEN, UNPROVEN)
            _build(graph, site, facts)
            outcome.rewritten += 1
            if unproven is not None and masks is not None:
                masks[unproven] = None
        except Declined as declined:
            outcome.declined.append(decline(softmax, declined.reason, str(declined)))
    return outcome


UNPROVEN = (
    "a query may see no key: with -inf its row would be NaN before and not after, and its gradient "
    "is lost in the fused backward"
)


def _is_unproven(mask: fx.Node, facts: Facts) -> bool:
    """Whether the law may fail in some call because of this mask.

    A query that sees no key gives the mean of all values where its mask is finite; the fused
    backward does not reproduce the gradient of that (it recomputes exp(score - logsumexp) from
    numbers as large as the fill).
    """
    if is_finite(mask, facts) and not facts.records_gradients:
        return False
    return not is_visible_constant(mask, facts)


# --- veto ---------------------------------------------------------------------------------------


def _veto(site: Site, facts: Facts) -> None:
    """Raises Declined if the two sides of the law could differ at this site."""
    q, k_t, v, out = map(value_of, (site.query, site.key_t, site.value, site.out))
    if not q.dim() == k_t.dim() == v.dim() == 4:
        raise Declined(Reason.SHAPES, f"{q.dim()}-d queries; this form knows [B, H, L, K]")
    if not (same_size(q.shape[:2], k_t.shape[:2]) and same_size(q.shape[:2], v.shape[:2])):
        raise Declined(Reason.SHAPES, "queries, keys and values differ in batch or heads")
    if not same_size([q.shape[-1]], [v.shape[-1]]):
        raise Declined(Reason.SHAPES, "keys and values differ in width")
    if not facts.same_gradient_mode((site.scores, *site.chain, site.out)):
        raise Declined(Reason.GRADIENT_MODE, "gradients are switched on or off inside")
    region = facts.autocast_region(site.out)
    if any(facts.autocast_region(n) != region for n in (site.scores, *site.chain)):
        raise Declined(Reason.AUTOCAST, "an autocast region begins or ends inside")
    lowered = facts.autocast_dtype(site.out)
    if lowered is not None and (site.mask is not None or q.dtype != lowered):
        raise Declined(Reason.AUTOCAST, f"autocast to {lowered} would cast the mask or the queries")
    _veto_dtypes(site, q, k_t, v, out)
    if site.mask is not None:
        _veto_mask(site.mask, q, k_t)
    saved = [site.out] if site.mask is None else [site.out, site.mask]
    if facts.records_gradients and any(map(facts.is_written, saved)):
        raise Declined(Reason.MUTATED, "the result or the mask is written in place later")
    read = [site.query, site.key_t, site.value, site.scores, *site.chain]
    read += [site.mask] if site.mask is not None else []
    writer = facts.written_between(read, site.scores, site.out)
    if writer is not None:
        raise Declined(Reason.MUTATED, f"{writer.target} writes to a value in between")


def _veto_dtypes(
    site: Site, q: torch.Tensor, k_t: torch.Tensor, v: torch.Tensor, out: torch.Tensor
) -> None:
    if not q.dtype == k_t.dtype == v.dtype == out.dtype or not q.dtype.is_floating_point:
        raise Declined(Reason.DTYPES, f"queries {q.dtype}, values {v.dtype}, result {out.dtype}")
    width = torch.finfo(q.dtype).bits
    for node in site.chain:
        dtype = value_of(node).dtype
        if not dtype.is_floating_point or torch.finfo(dtype).bits < width:
            raise Declined(Reason.DTYPES, f"{q.dtype} scores go through {dtype}")


def _veto_mask(mask: fx.Node, q: torch.Tensor, k_t: torch.Tensor) -> None:
    m = value_of(mask)
    if m.dtype != q.dtype:
        raise Declined(Reason.DTYPES, f"the mask is {m.dtype}, the queries are {q.dtype}")
    target = [*q.shape[:3], k_t.shape[3]]
    if not 2 <= m.dim() <= 4:
        raise Declined(Reason.SHAPES, f"a {m.dim()}-d mask")
    for have, want in zip(m.shape[::-1], target[::-1], strict=False):
        if not (same_size([have], [1]) or same_size([have], [want])):
            raise Declined(Reason.SHAPES, f"the mask {list(m.shape)} does not fit {target}")


# --- build --------------------------------------------------------------------------------------


def _build(graph: fx.Graph, site: Site, facts: Facts) -> None:
    """Put the fused call where the product with the values was."""
    out = site.out
    before = value_of(out)
    try:
        mask = _own_mask(graph, site, facts)
        args: tuple[Any, ...] = (mask,) if mask is not None or site.dropout else ()
        args = (*args, site.dropout) if site.dropout else args
        key = _key(graph, site, facts)
        sdpa = aten.scaled_dot_product_attention.default
        args = (site.query, key, site.value, *args)
        fused = emit(graph, sdpa, args, {"scale": site.scale}, like=out)
        facts.adopt(fused, out)
    except Exception as error:  # sizes that only the run knows, say
        reason = f"the fused call cannot be inferred: {type(error).__name__}: {error}"
        raise Declined(Reason.SHAPES, reason.splitlines()[0]) from error
    after = value_of(fused)
    if before.dtype != after.dtype or not same_size(before.shape, after.shape):
        raise Declined(Reason.DTYPES, f"fused it is {after.dtype}{list(after.shape)}")
    name = out.name
    out.replace_all_uses_with(fused)
    # The fused call saves its result for the backward pass, as the product did not: what the
    # caller gets must not be that.
    saved = facts.records_gradients and facts.reaches_output(out)
    if saved or not _hand_on(fused, before, facts):
        contiguous = {"memory_format": torch.contiguous_format}
        copy = emit(graph, aten.clone.default, (fused,), contiguous, like=out)
        copy.meta["val"] = before  # so all that is known of the readers stays true
        facts.adopt(copy, out)
        fused.replace_all_uses_with(copy, delete_user_cb=lambda user: user is not copy)
        fused = copy
    graph.erase_node(out)
    fused._rename(name)


def _key(graph: fx.Graph, site: Site, facts: Facts) -> fx.Node:
    """The keys [B,H,S,K]: what was transposed to make `key_t`, or `key_t` transposed back."""
    key_t = site.key_t
    if is_call(key_t, aten.transpose.int) and not facts.cuts_gradients(key_t):
        source, axes = key_t.args[0], {a % 4 for a in key_t.args[1:] if isinstance(a, int)}
        if isinstance(source, fx.Node) and axes == {2, 3}:
            return source
    key = emit(graph, aten.transpose.int, (key_t, -2, -1), like=site.out)
    facts.adopt(key, key_t)
    return key


def _own_mask(graph: fx.Graph, site: Site, facts: Facts) -> fx.Node | None:
    """The mask, or a copy of it where the caller could write to it before the backward pass: the
    fused call saves it, as the addition did not."""
    mask = site.mask
    if mask is None or not facts.records_gradients:
        return mask
    if not (facts.is_view_of_input(mask) or facts.reaches_output(mask)):
        return mask
    copy = emit(graph, aten.clone.default, (mask,), like=site.out)
    facts.adopt(copy, site.out)
    return copy


def _hand_on(fused: fx.Node, before: torch.Tensor, facts: Facts) -> bool:
    """Let the readers see the fused call as it lays its result out: as the queries are, where the
    product was contiguous. False, and nothing changed, if anything could tell: a reader that needs
    the strides, a write through what is a view in one layout and a copy in the other, the caller.
    """
    if same_layout(before, value_of(fused)):
        fused.meta["val"] = before  # so all that is known of the readers stays true
        return True
    try:
        renewed = renewed_values(fused)
    except Exception:  # `view` on strides that do not merge, or what cannot be inferred
        return False
    moved = [n for n, v in renewed.items() if n is fused or not same_layouts(n.meta["val"], v)]
    readers = [user.target for node in moved for user in node.users]
    if any(r in READS_STRIDES or isinstance(r, HigherOrderOperator) for r in readers):
        return False
    if any(facts.is_written(node) or facts.reaches_output(node) for node in moved):
        return False
    for node, value in renewed.items():
        node.meta["val"] = value
    return True
