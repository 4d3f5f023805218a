"""The spaces that can be searched. To add one: a file here that ends in `SPACE = Space(...)`, and
a row below; from outside, an entry point of the group `formwright.spaces`."""

from __future__ import annotations

from ..registry import Registry
from ..spec import Signature
from .space import OneOf, Space

SPACES = Registry(
    "space",
    "formwright.spaces",
    Space,
    {
        "metaformer": ".space.metaformer:SPACE",
    },
)

__all__ = ["SPACES", "Space", "OneOf", "Signature"]
