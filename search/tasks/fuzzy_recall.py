"""Fuzzy in-context recall: as `recall.py`, but keys and values are motifs of one to three tokens.

    k3 k1 v1 k0 k2 k5 v7 v4 ... k3 k1 (v1)

MAD's "fuzzy in-context recall" (Poli et al., 2024; multi-query). No token is twice in a motif. In
training keys have one to `motif` tokens, else always `motif`: models must have learnt to read them.
Training asks for every next token; validation and test only for values of keys that were there
before. Sequences are padded on the left. Importing this must not import torch. Next:
`selective_copying.py`.

Shapes: N examples, P pairs, M tokens of a motif at most; V tokens: keys below V // 2, then values,
the last is the padding.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ..errors import SpecError
from ..spec import BlockSpec, Signature
from .generated import Ints, check, first_of, splits_of
from .pins import PINS
from .task import UNASKED, Task

MOST = 1 << 15  # tokens are drawn as int16
CODES = 1 << 63  # motifs are numbered as int64


def fuzzy_recall(
    vocabulary: int = 16,
    length: int = 128,
    train: int = 12_800,
    *,
    motif: int = 3,
    name: str = "fuzzy_recall",
) -> Task:
    """Sequences of `length` tokens, motifs of `motif` at most.

    MAD varies the vocabulary (32, 64, 128), the length (256, 512, 1024) and what is trained on
    (6400, 3200, 1600, 800). Raises SpecError for sizes that make no task.
    """
    check(name, motif=(motif, 1), train=(train, 1), vocabulary=(vocabulary, 4))
    check(name, length=(length, 8 * motif))
    if vocabulary > MOST:
        raise SpecError(f"wanted {MOST} at most, got {vocabulary}", f"{name}.vocabulary")
    padding = vocabulary - 1
    keys = padding // 2
    if keys < motif:
        raise SpecError(f"no motif of {motif} tokens in {keys} keys", f"{name}.vocabulary")
    if (keys + 1) ** motif > CODES:
        said = f"motifs of up to {motif} of {keys} keys are too many to be told apart"
        raise SpecError(f"{said}; take shorter ones, or a smaller vocabulary", f"{name}.motif")

    def draw(rng: np.random.Generator, count: int, training: bool) -> tuple[Ints, Ints]:
        places = np.arange(length // 2)
        shape = (count, len(places))
        sizes = rng.integers(1, motif + 1, size=(*shape, 2))
        if not training:
            sizes[..., 0] = motif
        key = _motifs(rng, keys, shape, motif)
        value = keys + _motifs(rng, padding - keys, shape, motif)
        # the first pair with a key says which value it has
        first = first_of(_codes(key, sizes[..., 0], keys))
        value = np.take_along_axis(value, first[..., None], 1)
        sizes[..., 1] = np.take_along_axis(sizes[..., 1], first, 1)
        lengths = sizes.sum(-1)
        begins = lengths.cumsum(1) - lengths
        # the pair that is asked for at the end is one of those that are there whatever it is
        sure = (begins < length - 4 * motif).sum(1)
        probe = (rng.random(count) * sure).astype(np.int64)
        rows = np.arange(count)
        there = begins < (length - lengths[rows, probe] - 2 * motif)[:, None]

        def with_probe(of: Ints) -> Ints:
            return np.concatenate([of, of[rows, probe][:, None]], 1)

        there = np.concatenate([there, np.ones((count, 1), dtype=bool)], 1)
        again = with_probe(first) < np.arange(len(places) + 1)
        pairs = np.concatenate([with_probe(key), with_probe(value)], -1)  # [N, P + 1, 2 M]
        inside = np.arange(motif) < with_probe(sizes)[..., None]  # [N, P + 1, 2, M]
        asked = np.stack([np.zeros_like(inside[:, :, 0]), inside[:, :, 1]], 2)
        asked = (asked & again[..., None, None]).reshape(pairs.shape)
        kept = (inside & there[..., None, None]).reshape(count, -1)
        whole, wanted = _packed(kept, pairs, asked.reshape(count, -1), length + 1, padding)
        return whole[:, :-1], (whole if training else wanted)[:, 1:]

    signature = Signature.of_tokens(vocabulary, length, head=BlockSpec("language"))
    load = cache(lambda: splits_of(name, draw, train))
    return Task(name, signature, load, pins=PINS.get(name, {}))


def _motifs(rng: np.random.Generator, kinds: int, shape: tuple[int, int], motif: int) -> Ints:
    """Tokens below `kinds`, no two of a motif the same, all motifs alike: [N, P, M]. The i-th is
    drawn among those that are left, and counted past those that were drawn."""
    drawn = np.empty((*shape, 0), dtype=np.int16)
    for at in range(motif):
        token = rng.integers(kinds - at, size=shape, dtype=np.int16)
        before = np.sort(drawn, -1)
        for earlier in range(at):
            token += token >= before[..., earlier]
        drawn = np.concatenate([drawn, token[..., None]], -1)
    return drawn


def _codes(key: Ints, sizes: Ints, keys: int) -> Ints:
    """A number for each motif, [N, P, M] -> [N, P]."""
    places = np.arange(key.shape[-1])
    digits = np.where(places < sizes[..., None], key.astype(np.int64) + 1, 0)
    codes: Ints = (digits * (keys + 1) ** places).sum(-1)
    return codes


def _packed(kept: Ints, pairs: Ints, asked: Ints, length: int, padding: int) -> tuple[Ints, Ints]:
    """What is kept of each row, at its right end, and what is asked of that: [N, length] each."""
    rows, columns = np.nonzero(kept)
    counts = kept.sum(1)
    places = np.arange(len(rows)) - np.repeat(counts.cumsum() - length, counts)
    # row r ends in column `length`: the last of its tokens stands at length - 1
    tokens = pairs.reshape(len(kept), -1)[rows, columns]
    whole = np.full((len(kept), length), padding)
    wanted = np.full((len(kept), length), UNASKED)
    whole[rows, places] = tokens
    wanted[rows, places] = np.where(asked[rows, columns], tokens, UNASKED)
    return whole, wanted


TASK = fuzzy_recall()
