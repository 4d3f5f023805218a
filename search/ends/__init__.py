"""The two ends of an architecture: stems that make tokens, heads that read them. To add one: a file
here that ends in `STEM = Stem(...)` or `HEAD = Head(...)`, and a row below; from outside, an entry
point of the group `formwright.stems` or `formwright.heads`."""

from __future__ import annotations

from ..registry import Registry
from .end import Head, Stem

STEMS = Registry(
    "stem",
    "formwright.stems",
    Stem,
    {
        "image": ".ends.image:STEM",
        "series": ".ends.series:STEM",
        "tokens": ".ends.tokens:STEM",
    },
)

HEADS = Registry(
    "head",
    "formwright.heads",
    Head,
    {
        "classes": ".ends.classes:HEAD",
        "language": ".ends.language:HEAD",
        "token_classes": ".ends.token_classes:HEAD",
        "unfold": ".ends.unfold:HEAD",
    },
)

__all__ = ["HEADS", "STEMS", "Head", "Stem"]
