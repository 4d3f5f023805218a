"""Random spellings of attention: compiled, each is as in eager in float64, whatever was rewritten.

A spelling is drawn from the choices in `spellings.py`: layouts, groups of heads, products, scales,
biases, masks, fills, dropout, and what is done with the result. What is attention has to be
rewritten; what has one of MUTATIONS (a wrong axis, a swap, a reader more) may be.
FORMWRIGHT_FUZZ=20000 in the environment draws so many, and others each time.
"""

import math
import os
from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from .law import assert_lawful, without_dynamo
from .spellings import (
    BIASES,
    DROPOUTS,
    GROUPINGS,
    HIDES,
    INF,
    LAYOUTS,
    LOWEST,
    MASKS,
    MUTATIONS,
    PRODUCTS,
    SCALES,
    TAILS,
    Spelling,
    spelled_out,
)

LONG = int(os.environ.get("FORMWRIGHT_FUZZ", "0"))
SETTINGS = settings(max_examples=LONG or 45, deadline=None, derandomize=not LONG)
DOUBLE = {"dtype": torch.float64}
MUTANTS = [(stage, name) for stage, changes in MUTATIONS.items() for name in changes]

EQUAL = (4, 4, 4, 4, 4, 4)
SIZES = [EQUAL, (2, 4, 3, 5, 6, 7), (2, 4, 5, 5, 6, 6), (3, 4, 1, 5, 2, 2), (1, 4, 6, 6, 3, 8)]
FREE = {
    "layouts": st.tuples(*[st.sampled_from(LAYOUTS)] * 3),
    "grouping": st.sampled_from(GROUPINGS),
    "product": st.sampled_from(PRODUCTS),
    "scales": st.lists(st.sampled_from(sorted(SCALES)), max_size=2, unique=True).map(tuple),
    "bias": st.sampled_from(sorted(BIASES)),
    "mask": st.sampled_from(sorted(MASKS)),
    "hides": st.sampled_from(sorted(HIDES)),
    "fill": st.sampled_from([-INF, -1e9, LOWEST, -1e4]),
    "dropout": st.sampled_from(sorted(DROPOUTS)),
    "tail": st.sampled_from(sorted(TAILS)),
    "calls": st.sampled_from([1, 1, 2]),
    "train": st.booleans(),
    "learned": st.booleans(),
}
ORDERS = {"order": "bhls", "result": "bhlv"}


@st.composite
def spellings(draw, mutations):
    """A spelling with one of these mutations."""
    mutation = draw(st.sampled_from(mutations))
    chosen = {name: draw(choice) for name, choice in FREE.items()}
    for name, axes in ORDERS.items():
        other = "".join(draw(st.permutations(axes)))
        chosen[name] = other if chosen["product"] == "einsum" else axes
    sizes = EQUAL if mutation else draw(st.sampled_from(SIZES))
    all_heads = mutation is not None and mutation[0] in ("keys", "values")
    groups = 4 if all_heads else draw(st.sampled_from([4, 2, 1]))
    dynamic = draw(st.sampled_from([None] * 10 + [False, True])) if sizes[2] > 1 else None
    return Spelling(sizes=sizes, groups=groups, dynamic=dynamic, mutation=mutation, **chosen)


def inputs(c):
    """The leaves and arguments of the function."""
    b, h, l, s, k, v = c.sizes  # noqa: E741
    sizes = {"b": b, "h": h, "l": l, "s": s}

    def leaf(layout, **size):
        return torch.randn([math.prod(size[a] for a in word) for word in layout.split()], **DOUBLE)

    def build():
        torch.manual_seed(0)
        q = leaf(c.layouts[0], b=b, h=h, n=l, d=k)
        keys = leaf(c.layouts[1], b=b, h=c.groups, n=s, d=k)
        values = leaf(c.layouts[2], b=b, h=c.groups, n=s, d=v)
        bias = torch.randn([sizes[a] for a in BIASES[c.bias]], **DOUBLE)
        keep = torch.rand([sizes[a] for a in MASKS[c.mask]]) > 0.3
        floats = [q, keys, values, bias]
        for x, wanted in zip(floats, (c.train, c.train, c.train, c.learned), strict=True):
            x.requires_grad_(wanted)
        return floats, [*floats, keep]

    return build


def check(c):
    """Compile the spelling and compare; what became of its site."""
    # where no key is visible, what is left of scores from which 1e9 is taken depends on the order
    rounds = c.mask != "none" and c.hides.startswith("added") and c.fill == -1e9
    how = {"compile": without_dynamo} if c.dynamic is None else {"dynamic": c.dynamic}
    with torch._dynamo.config.patch(specialize_float=True):  # the fill is a number
        report = assert_lawful(
            spelled_out(c), inputs(c), tolerance=1e-5 if rounds else 1e-10, **how
        )
    assert report.row("capture").rewritten == 1
    return report.row("fuse_attention")


def test_attention_is_rewritten_and_right():
    """Every spelling is right, and 95 in 100 are rewritten."""
    seen = Counter()

    @SETTINGS
    @given(spellings([None]))
    def each(c):
        row = check(c)
        if c.promised:
            seen.update(all=c.calls, rewritten=row.rewritten)
            seen.update(f"{d.code}: {d.reason}" for d in row.declined)

    each()
    assert seen["rewritten"] >= 0.95 * seen["all"] > 0, seen


@SETTINGS
@given(spellings(MUTANTS))
def test_what_is_almost_attention_is_right(c):
    check(c)
