"""`Task`: data that candidates are trained and judged on.

It must not know any architecture; importing it must not import torch (`load` does, in the
worker). Next: `digits.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..spec import Signature

UNASKED = -100  # as torch's cross entropy has it

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Split:
    """`inputs` [N, ...], as the stem takes them (images [N, channels, height, width] fp32, tokens
    [N, T] int64); `targets` [N] or [N, T], int64 from 0, or `UNASKED` where nothing is asked."""

    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Task:
    """A classification task. `load()` returns the splits `train`, `validation` (selection looks at
    this one) and `test` (nothing in a search looks at it), the same in every process."""

    name: str
    signature: Signature
    load: Callable[[], Mapping[str, Split]]
