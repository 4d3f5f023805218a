"""In-context recall: keys and their values, one after the other; a key that was there before asks
for its value again. And the same among noise.

    k3 v1 k0 v7 k3 v1 k5 v2 ... k0 (v7)

MAD's "in-context recall" and "noisy in-context recall" (Poli et al., 2024; multi-query). Training
asks for every next token; validation and test only for values of keys that were there before, the
last token always. Guessing names one of V / 2 values. Importing this must not import torch. Next:
`fuzzy_recall.py`.

Shapes: N examples, P pairs, V content tokens: keys below V / 2, values from there; noise above.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ..errors import SpecError
from ..spec import BlockSpec, Signature
from .generated import Ints, any_of, check, first_of, splits_of
from .pins import PINS
from .task import UNASKED, Task


def recall(
    vocabulary: int = 16,
    length: int = 128,
    train: int = 12_800,
    *,
    noise: float = 0.0,
    noise_vocabulary: int = 0,
    name: str = "recall",
) -> Task:
    """`length` tokens, the last of which is only ever asked for, so that inputs have one less. A
    pair is two tokens of noise with the probability `noise`, but for one of them. The last
    `noise_vocabulary` tokens of the vocabulary are noise.

    MAD varies the vocabulary (32, 64, 128), the length (256, 512, 1024), what is trained on (6400,
    3200, 1600, 800) and the noise (0.4, 0.6, 0.8). Raises SpecError for sizes that make no task.
    """
    content = vocabulary - noise_vocabulary
    check(name, vocabulary=(content, 4), length=(length, 4), train=(train, 1))
    if content % 2 or length % 2 or not 0 <= noise < 1 or (noise > 0) != (noise_vocabulary > 0):
        given = f"{content} keys and values, {length} tokens, noise of {noise}"
        wanted = "an even number of each, and noise below 1 with tokens for it"
        raise SpecError(f"wanted {wanted}; got {given}", name)
    pairs, keys = length // 2, content // 2

    def draw(rng: np.random.Generator, count: int, training: bool) -> tuple[Ints, Ints]:
        key = rng.integers(keys, size=(count, pairs))
        noisy = rng.random((count, pairs)) < noise
        noisy[np.arange(count), rng.integers(pairs - 1, size=count)] = False
        noisy[:, -1] = False
        there = np.zeros((count, keys), dtype=bool)
        rows, places = np.nonzero(~noisy[:, :-1])
        there[rows, key[rows, places]] = True
        key[:, -1] = any_of(rng, there)  # each that is there alike, however often
        value = np.take_along_axis(keys + rng.integers(keys, size=(count, keys)), key, 1)
        tokens = np.stack([key, value], -1)
        if noise:
            other = rng.integers(content, vocabulary, size=tokens.shape)
            tokens = np.where(noisy[..., None], other, tokens)
        again = first_of(np.where(noisy, -1 - np.arange(pairs), key)) < np.arange(pairs)
        asked = np.full_like(tokens, UNASKED)
        asked[..., 1] = np.where(again, value, UNASKED)
        whole = tokens.reshape(count, -1)
        return whole[:, :-1], (whole if training else asked.reshape(count, -1))[:, 1:]

    signature = Signature.of_tokens(vocabulary, length - 1, head=BlockSpec("language"))
    load = cache(lambda: splits_of(name, draw, train))
    return Task(name, signature, load, pins=PINS.get(name, {}))


TASK = recall()
SMALL = recall(length=64, train=3200, name="recall_small")  # for searches of minutes
NOISY = recall(vocabulary=32, noise=0.2, noise_vocabulary=16, name="noisy_recall")
