"""Compression: a whole sequence, to be told again from what its last token has kept of it.

    t3 t9 t1 ... t4 COMPRESS           asked: all of them, in their places

MAD's "compression" (Poli et al., 2024). The head `unfold` reads the last token only. As published
the last place, which is always COMPRESS, is asked too: one in `length` is free. Importing this must
not import torch. Next: `memorization.py`.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ..spec import BlockSpec, Signature
from .generated import Ints, check, splits_of
from .pins import PINS
from .task import Task


def compression(
    vocabulary: int = 16, length: int = 32, train: int = 12_800, *, name: str = "compression"
) -> Task:
    """`length` tokens of `vocabulary` kinds, the last of which is COMPRESS.

    MAD varies the vocabulary (32, 64, 128), the length (64, 128, 256) and what is trained on (6400,
    3200, 1600, 800). Raises SpecError for sizes that make no task.
    """
    check(name, vocabulary=(vocabulary, 3), length=(length, 2), train=(train, 1))

    def draw(rng: np.random.Generator, count: int, training: bool) -> tuple[Ints, Ints]:
        tokens = rng.integers(vocabulary - 1, size=(count, length))
        tokens[:, -1] = vocabulary - 1
        return tokens, tokens

    head = BlockSpec.of("unfold", classes=vocabulary, length=length)
    signature = Signature.of_tokens(vocabulary, length, head=head)
    load = cache(lambda: splits_of(name, draw, train))
    return Task(name, signature, load, pins=PINS.get(name, {}))


TASK = compression()
