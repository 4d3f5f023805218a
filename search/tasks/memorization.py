"""Memorization: which value belongs to which key is the same in all sequences, and said in none.

    k3 INSERT k0 INSERT ...            asked at each INSERT: the value of the key before

MAD's "memorization" (Poli et al., 2024): what counts is what fits into the weights. All splits have
the same map. Importing this must not import torch. Next: `python_chars.py`.

Shapes: N examples, P pairs; V tokens: keys below (V - 1) // 2, then values, INSERT the last.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ..spec import BlockSpec, Signature
from .generated import SEED, Ints, check, splits_of
from .pins import PINS
from .task import UNASKED, Task


def memorization(
    vocabulary: int = 256, length: int = 32, train: int = 256, *, name: str = "memorization"
) -> Task:
    """Sequences of `length` tokens, half of them keys.

    MAD varies the vocabulary (512 to 8192). Raises SpecError for sizes that make no task.
    """
    check(name, vocabulary=(vocabulary, 5), length=(length, 2), train=(train, 1))
    insert = vocabulary - 1
    keys = insert // 2

    def draw(rng: np.random.Generator, count: int, training: bool) -> tuple[Ints, Ints]:
        value_of = keys + np.random.default_rng(SEED).permutation(insert - keys)[:keys]
        key = rng.integers(keys, size=(count, length // 2))
        inputs = np.stack([key, np.full_like(key, insert)], -1)
        targets = np.stack([np.full_like(key, UNASKED), value_of[key]], -1)
        return inputs.reshape(count, -1), targets.reshape(count, -1)

    signature = Signature.of_tokens(vocabulary, 2 * (length // 2), head=BlockSpec("language"))
    load = cache(lambda: splits_of(name, draw, train))
    return Task(name, signature, load, pins=PINS.get(name, {}))


TASK = memorization()
