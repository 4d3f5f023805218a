"""What the generated tasks share: splits without a common example, keys that were there before.

The tasks are those of "Mechanistic Design and Scaling of Hybrid Architectures" (MAD, Poli et al.,
2024), after its published generators. Differences, all of them: each task has a test split beside
the validation split that selection looks at; all random numbers come from one generator of the
split, seeded by the task; no example is there twice; a key that is asked for was always shown.

It must not know what is generated. Next: `recall.py`.

Shapes: N examples, T tokens, P places of a sequence where a key may stand.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SpecError
from .task import SPLITS, Split

Ints = NDArray[Any]
Draw = Callable[[np.random.Generator, int, bool], tuple[Ints, Ints]]
"""`draw(rng, count, training)`: inputs and targets, [N, T] each."""

JUDGED = 1280  # examples of validation, and of test
SEED = 12345
AT_ONCE = 1024  # examples drawn, so that long ones fit into memory
PATIENCE = 20  # how often as many as are wanted are drawn, until they differ


def splits_of(name: str, draw: Draw, train: int) -> Mapping[str, Split]:
    """`train` examples to train on and `JUDGED` each of validation and test; no input is in two
    of them, nor twice in one. The judged ones do not depend on how many are trained on. Raises
    SpecError where there are not so many."""
    seen: set[bytes] = set()
    made = {}
    for at, split in enumerate(reversed(SPLITS)):
        count = train if split == "train" else JUDGED
        rng = np.random.default_rng((SEED, zlib.crc32(name.encode()), at))
        made[split] = _split(name, rng, draw, count, split == "train", seen)
    return {split: made[split] for split in SPLITS}


def _split(
    name: str, rng: np.random.Generator, draw: Draw, count: int, training: bool, seen: set[bytes]
) -> Split:
    import torch

    parts: list[tuple[Ints, Ints]] = []
    missing, drawn = count, 0
    while missing:
        if drawn > PATIENCE * count:
            raise SpecError(f"{name} has no {count} examples more that differ, {missing} too few")
        inputs, targets = draw(rng, min(missing, AT_ONCE), training)
        drawn += len(inputs)
        new = [at for at, row in enumerate(map(bytes, inputs.astype(np.int32))) if _add(seen, row)]
        parts.append((inputs[new], targets[new]))
        missing -= len(new)
    joined = (np.concatenate(part).astype(np.int64) for part in zip(*parts, strict=True))
    return Split(*map(torch.from_numpy, joined))


def _add(seen: set[bytes], row: bytes) -> bool:
    """Whether it was not there before."""
    before = len(seen)
    seen.add(row)
    return len(seen) > before


def first_of(codes: Ints) -> Ints:
    """For each place the first of its row that holds the same code, [N, P] -> [N, P]."""
    order = codes.argsort(1, kind="stable")
    ordered = np.take_along_axis(codes, order, 1)
    begins = np.ones_like(ordered, dtype=bool)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    group = np.maximum.accumulate(np.where(begins, np.arange(codes.shape[1]), 0), 1)
    first = np.empty_like(order)
    np.put_along_axis(first, order, np.take_along_axis(order, group, 1), 1)
    return first


def any_of(rng: np.random.Generator, allowed: NDArray[np.bool_]) -> Ints:
    """One of the columns that are allowed, all alike, for each row: [N, P] -> [N]."""
    drawn: Ints = np.where(allowed, rng.random(allowed.shape), -1).argmax(1)
    return drawn


def check(name: str, **at_least: tuple[int, int]) -> None:
    """Raises SpecError for the first setting that is smaller than it can be."""
    for setting, (given, least) in at_least.items():
        if type(given) is not int or given < least:
            raise SpecError(
                f"wanted a whole number from {least}, got {given!r}", f"{name}.{setting}"
            )
