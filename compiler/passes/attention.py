"""Attention written by hand becomes one fused call.

Shapes: B batch, H heads, L queries, S keys, K head width, V value width.

    dropout(softmax(where(mask, q @ k.T * scale + bias, fill))) @ v

becomes `scaled_dot_product_attention`, or `formwright::attention` (`../operators/`) where what is
masked is known in the call only, a gradient is wanted, or the widths differ.
Law: both sides are the formula above. They differ in rounding only: the fused kernel sums in
another order, and in bf16 and fp16 keeps the scores in fp32, which the original rounds. With
dropout the distribution is the same, the random numbers are not.
Next: `attention_site.py` reads a site, `_veto` says why not, `attention_mask.py` makes one mask of
what is masked, `_build` writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from ..errors import Declined
from ..facts import Facts
from ..graph import (
    aten,
    decline,
    is_call,
    renewed_values,
    same_layout,
    same_layouts,
    same_size,
)
from ..options import Options
from ..report import Reason
from ..torch_compat import HigherOrderOperator
from .attention_call import Shared, fused_call
from .attention_mask import Masking, read_masking
from .attention_parts import SOFTMAX, Site, value_of
from .attention_site import is_site, read_site
from .axes import Axis, atoms, flat
from .contract import Outcome
from .rearrange import Writer
from .subgraph import ancestors, extract
from .visible_rows import VisibleRows

READS_STRIDES = (aten.as_strided.default, aten.as_strided_scatter.default)
KERNEL_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def fuse_attention(graph: fx.Graph, facts: Facts, options: Options) -> Outcome:
    """The pass, with standard operators only and nothing that a call has to look at. A site is a
    softmax between two matrix products."""
    return _fuse(graph, Shared(facts, by_call=False))


def fuse_attention_by_call(graph: fx.Graph, facts: Facts, options: Options) -> Outcome:
    """The same for graphs that we run ourselves: with our own operator, and where that cannot be
    used with masks that are right in the calls in which each query sees some key."""
    call = Shared(facts, by_call=True)
    outcome = _fuse(graph, call)
    if call.looked_at:
        compute, positions = extract(graph, facts, list(call.looked_at))
        outcome.derivation = VisibleRows(compute, positions)
    return outcome


def _fuse(graph: fx.Graph, call: Shared) -> Outcome:
    outcome = Outcome()
    for softmax in [n for n in graph.nodes if is_call(n, *SOFTMAX)]:
        if not is_site(softmax):
            continue
        outcome.sites += 1
        try:
            site = read_site(softmax, call.facts)
            _veto(site, call.facts)
            _build(graph, site, call)
            outcome.rewritten += 1
        except Declined as declined:
            outcome.declined.append(decline(softmax, declined.reason, str(declined)))
    return outcome


# --- veto ---------------------------------------------------------------------------------------


def _veto(site: Site, facts: Facts) -> None:
    """Raises Declined if the two sides of the law could differ at this site."""
    inside = (site.scores, *site.chain)
    if not facts.same_gradient_mode((*inside, site.out)):
        raise Declined(Reason.GRADIENT_MODE, "gradients are switched on or off inside")
    region = facts.autocast_region(site.out)
    if any(facts.autocast_region(n) != region for n in inside):
        raise Declined(Reason.AUTOCAST, "an autocast region begins or ends inside")
    _veto_dtypes(site, facts)
    sizes = (*value_of(site.scores).shape, *value_of(site.out).shape)
    if any(same_size([n], [0]) for n in sizes):
        raise Declined(Reason.SHAPES, "an axis has size zero")
    terms = [v.node for v in (*(t.value for t in site.terms), *site.factors)]
    if facts.records_gradients and any(map(facts.is_written, [site.out, *terms])):
        raise Declined(Reason.MUTATED, "the result or the mask is written in place later")
    operands = [site.query.node, site.key.node, site.value.node]
    writer = facts.written_between([*operands, *terms, *inside], site.scores, site.out)
    if writer is not None:
        raise Declined(Reason.MUTATED, f"{writer.target} writes to a value in between")


def _veto_dtypes(site: Site, facts: Facts) -> None:
    operands = [value_of(v.node).dtype for v in (site.query, site.key, site.value)]
    out = value_of(site.out).dtype
    lowered = facts.autocast_dtype(site.out)
    if lowered is None or torch.float64 in operands:
        lowered = operands[0]
    if any(d not in (lowered, operands[0]) for d in operands) or out != lowered:
        raise Declined(Reason.DTYPES, f"queries {operands[0]}, values {operands[2]}, result {out}")
    if lowered not in KERNEL_DTYPES:
        raise Declined(Reason.DTYPES, f"queries {lowered}")
    width = torch.finfo(lowered).bits
    for node in site.chain:
        dtype = value_of(node).dtype
        if not dtype.is_floating_point or torch.finfo(dtype).bits < width:
            raise Declined(Reason.DTYPES, f"{lowered} scores go through {dtype}")


# --- build --------------------------------------------------------------------------------------


def _build(graph: fx.Graph, site: Site, call: Shared) -> None:
    """Put the fused call where the product with the values was."""
    out, facts = site.out, call.facts
    before = value_of(out)
    known = [site.query.node, site.key.node, site.value.node, *facts.inputs, site.scores]
    write = Writer(graph, facts, out, known, call.made)
    groups = _groups(site)
    try:
        query, key, value = _operands(site, write, groups, facts)
        masking = read_masking(site, write, groups.scores, facts)
        _note_dtypes(masking, query)
        fused = fused_call(site, (query, key, value), masking, write, call)
        new = write.from_groups(fused, groups.result, site.result)
        after = value_of(new)
        if before.dtype != after.dtype or not same_size(before.shape, after.shape):
            raise Declined(Reason.DTYPES, f"fused it is {after.dtype}{list(after.shape)}")
    except Declined:
        write.discard()
        raise
    except Exception as error:  # sizes that only the run knows, say
        write.discard()
        reason = f"the fused call cannot be inferred: {type(error).__name__}: {error}"
        raise Declined(Reason.SHAPES, reason.splitlines()[0]) from error
    _replace(graph, out, new, new is fused, facts)


@dataclass(frozen=True)
class _Groups:
    """The atoms of each axis of what the fused call reads and gives."""

    query: Sequence[Axis]
    key: Sequence[Axis]
    value: Sequence[Axis]
    scores: Sequence[Axis]
    result: Sequence[Axis]


def _groups(site: Site) -> _Groups:
    """Which atoms are batch, heads of keys and values, and heads that share these."""
    keys, width, queries = (atoms(a) for a in (site.keys, site.width, site.queries))
    batch = atoms(site.batch)
    ours = set(flat(site.key.layout)) | set(flat(site.value.layout))
    shared = tuple(a for a in batch if a in ours)
    sharing = tuple(a for a in batch if a not in ours)
    cut = _cut(site, shared)
    first, heads = shared[:cut], shared[cut:]
    placed = set(batch) | set(keys) | set(queries)
    values = tuple(a for a in flat(site.result) if a not in placed)
    return _Groups(
        (first, (*heads, *sharing), queries, width),
        (first, heads, keys, width),
        (first, heads, keys, values),
        (first, (*heads, *sharing), queries, keys),
        (first, (*heads, *sharing), queries, values),
    )


def _cut(site: Site, shared: Axis) -> int:
    """Where batch ends and heads begin: before the last axis, or where no bias or mask varies
    along a part of the batch only (then it need not be repeated along the rest)."""
    usual: int = len(shared) - 1 if len(shared) > 1 else len(shared)
    if len(site.query.layout) > 3 and not site.query.layout[0]:  # heads of a batch of one
        usual = 0
    varying = [set(flat(t.value.layout)) for t in site.terms]
    cuts: list[int] = [usual, *range(len(shared), 0, -1)]
    for cut in cuts:
        halves = (shared[:cut], shared[cut:])
        if all(len(v & set(h)) in (0, len(h)) for v in varying for h in halves):
            return cut
    return usual


def _operands(
    site: Site, write: Writer, groups: _Groups, facts: Facts
) -> tuple[fx.Node, fx.Node, fx.Node]:
    """Queries [B,H,L,K], keys [B,G,S,K] and values [B,G,S,V], cast as autocast would."""
    lowered = value_of(site.out).dtype
    nodes = []
    for value, wanted in zip(
        (site.query, site.key, site.value), (groups.query, groups.key, groups.value), strict=True
    ):
        node = write.to_groups(value.node, value.layout, wanted, whole=(0, 1, 2, 3))
        if value_of(node).dtype != lowered:
            node = write.call(aten.to.dtype, node, lowered)
        nodes.append(node)
    for factor in site.factors:
        # an infinity that an activation brings would make NaN in other places than before
        inputs = [n for n in ancestors(factor.node) if n.op == "placeholder"]
        if not all(n.meta.get("weight") for n in inputs):
            raise Declined(Reason.SCALE_NOT_CONSTANT, "the scores are scaled by an activation")
        times = (*groups.query[:3], ())
        node = write.to_groups(factor.node, factor.layout, times)
        if value_of(node).dtype != lowered:
            raise Declined(Reason.SCALE_NOT_CONSTANT, "the scores are scaled in another dtype")
        nodes[0] = write.call(aten.mul.Tensor, nodes[0], node)
    return nodes[0], nodes[1], nodes[2]


def _note_dtypes(masking: Masking, query: fx.Node) -> None:
    if masking.mask is not None and value_of(masking.mask).dtype != torch.bool:
        raise Declined(Reason.DTYPES, f"a mask of {value_of(masking.mask).dtype}")
    if masking.bias is None:
        return
    bias, mine = value_of(masking.bias).dtype, value_of(query).dtype
    if torch.promote_types(bias, mine) == torch.float64 != mine:
        raise Declined(Reason.DTYPES, f"the mask is {bias}, the queries are {mine}")


def _replace(graph: fx.Graph, out: fx.Node, new: fx.Node, whole: bool, facts: Facts) -> None:
    """Let the readers of `out` read `new`, and keep what is known of them true."""
    before, name = value_of(out), out.name
    facts.adopt(new, out)
    # The fused call saves its result for the backward pass, as the product did not: what the
    # caller gets must not be that.
    saved = facts.records_gradients and facts.reaches_output(out)
    out.replace_all_uses_with(new)
    if saved or not _hand_on(new, before, whole, facts):
        read = list(new.users)
        copy = Writer(graph, facts, out).like(new, before)
        copy.meta["val"] = before  # so all that is known of the readers stays true
        facts.adopt(copy, out)
        new.replace_all_uses_with(copy, delete_user_cb=lambda user: user in read)
        new = copy
    graph.erase_node(out)
    new._rename(name)


def _hand_on(fused: fx.Node, before: torch.Tensor, whole: bool, facts: Facts) -> bool:
    """Let the readers see the fused call as it lays its result out: as the queries are, where the
    product was contiguous. False, and nothing changed, if anything could tell: a reader that needs
    the strides, a write through what is a view in one layout and a copy in the other, the caller.
    `whole`: the call's own result, no view of it.
    """
    if whole and same_layout(before, value_of(fused)):
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
