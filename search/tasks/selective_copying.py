"""Selective copying: tokens among blanks, to be said again in their order.

    _ t3 _ _ t1 _ t5 COPY _ _ _        asked at the last three: t3 t1 t5

MAD's "selective copying" (Poli et al., 2024). The last token stands right before COPY. Guessing
names one of V - 2. Importing this must not import torch. Next: `compression.py`.

Shapes: N examples, C tokens to copy; V tokens: content, then BLANK and COPY.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ..spec import BlockSpec, Signature
from .generated import Ints, check, splits_of
from .pins import PINS
from .task import UNASKED, Task


def selective_copying(
    vocabulary: int = 16,
    length: int = 256,
    train: int = 12_800,
    *,
    copied: int = 16,
    name: str = "selective_copying",
) -> Task:
    """`copied` of `length` tokens are to be said again.

    MAD varies the vocabulary (32, 64, 128), the length (512, 1024), what is trained on (6400, 3200,
    1600, 800) and what is copied (32, 64, 96). Raises SpecError for sizes that make no task.
    """
    check(name, copied=(copied, 1), train=(train, 1), vocabulary=(vocabulary, 3))
    check(name, length=(length, 2 * copied + 2))
    blank, copy = vocabulary - 2, vocabulary - 1
    blanks = length - 2 * copied - 1

    def draw(rng: np.random.Generator, count: int, training: bool) -> tuple[Ints, Ints]:
        content = rng.integers(blank, size=(count, copied))
        # each blank stands before one of the tokens, any alike
        before = rng.integers(copied, size=(count, blanks)) + copied * np.arange(count)[:, None]
        counts = np.bincount(before.ravel(), minlength=count * copied).reshape(count, copied)
        inputs = np.full((count, length), blank)
        np.put_along_axis(inputs, counts.cumsum(1) + np.arange(copied), content, 1)
        inputs[:, copied + blanks] = copy
        targets = np.full_like(inputs, UNASKED)
        targets[:, -copied:] = content
        return inputs, targets

    signature = Signature.of_tokens(vocabulary, length, head=BlockSpec("language"))
    load = cache(lambda: splits_of(name, draw, train))
    return Task(name, signature, load, pins=PINS.get(name, {}))


TASK = selective_copying()
