"""What a row of the zoo says, and the inputs that models are called with.

It knows no model; those are in `huggingface.py` and `by_hand.py`, one function each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from formwright.compiler.report import Reason

BATCH, LENGTH, WIDTH, HEADS, LAYERS, VOCABULARY = 3, 12, 32, 4, 2, 90
Built = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Entry:
    """One model, and how `fuse_attention` has to see it.

    `build()` gives the model, args and kwargs; that of a `causal` model takes `left=True`, which
    pads on the left: the first queries see no key. `sites` are the attentions that the graph
    spells out; all are rewritten, unless `code` says why none is. In float64 those are declined
    that take their softmax `in_float32`. In inference those `opened` are in operators of torch's.
    """

    build: Callable[..., Built]
    sites: int = LAYERS
    opened: int = 0
    code: Reason | None = None
    causal: bool = False
    in_float32: bool = False

    @property
    def name(self) -> str:
        """What the model is called in the tests."""
        return self.build.__name__

    def expected(self, dtype: torch.dtype) -> Reason | None:
        """Why the sites are declined in a model of this dtype; None: they are rewritten."""
        too_narrow = self.in_float32 and dtype is torch.float64
        return Reason.DTYPES if too_narrow and self.code is None else self.code


def row(**known: Any) -> Callable[[Callable[..., Built]], Entry]:
    """Make an entry of the function that builds a model."""
    return lambda build: Entry(build, **known)


def ids(length: int = LENGTH) -> torch.Tensor:
    """Tokens [B, T]."""
    return torch.randint(3, VOCABULARY, (BATCH, length))


def ragged(length: int = LENGTH, left: bool = False) -> torch.Tensor:
    """One for tokens, zero for padding [B, T]: three texts of different lengths."""
    mask = torch.ones(BATCH, length, dtype=torch.long)
    mask[0, length * 5 // 12 :] = 0
    mask[1, length * 9 // 12 :] = 0
    return mask.flip(1) if left else mask


def vectors() -> torch.Tensor:
    """Embedded tokens [B, T, D]."""
    return torch.randn(BATCH, LENGTH, WIDTH)
