"""The spaces that can be searched. To add one: a file here that ends in `SPACE = Space(...)`, and
a row below; from outside, an entry point of the group `formwright.spaces`."""

from __future__ import annotations

from ..registry import Registry
from ..spec import Signature
from .space import OneOf, Rule, Space

SPACES = Registry(
    "space",
    "formwright.spaces",
    Space,
    {
        "hybrid_mamba": ".space.hybrid_mamba:SPACE",
        "matformer": ".space.matformer:SPACE",
        "metaformer": ".space.metaformer:SPACE",
        "metaformer_staged": ".space.metaformer_staged:SPACE",
    },
)

__all__ = ["SPACES", "OneOf", "Rule", "Signature", "Space"]
