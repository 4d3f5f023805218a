"""`Task`: data that candidates are trained and judged on.

It must not know any architecture; importing it must not import torch (`load` does, in the
worker). Next: `digits.py`, the shortest; `../testing_tasks.py`, the tests that every task passes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from ..errors import SpecError
from ..spec import Signature

UNASKED = -100  # as torch's cross entropy has it
SPLITS = ("train", "validation", "test")
SCORES = ("accuracy", "bits")
OBJECTIVES = ("", "masked", "next")

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
    """Inputs, and a class to be named for each, or for each of its tokens.

    `load()` returns the splits: `train`, `validation`, which selection looks at, and `test`, which
    nothing in a search looks at: whoever makes the final artefact does so, once. They are the same
    in every process, and read once in each.

    `score` is what quality means: `accuracy`, the share of all asked targets of a split that are
    named rightly (a micro average), or `bits`, 1 - bits per asked target / log2(classes): 0 for a
    guess among all alike, 1 for certainty.

    `pretrain` is what a model may learn of the inputs alone before it learns the targets: to fill
    in what is `masked`, to tell the `next` token, or nothing, where the inputs teach nothing that
    is not asked anyway.

    `pins` says which data has which `data_hash`: what it depends on besides this package. Raises
    SpecError for a score or an objective that is not known.
    """

    name: str
    signature: Signature
    load: Callable[[], Mapping[str, Split]]
    score: str = "accuracy"
    pretrain: str = ""
    pins: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for what, known in (("score", SCORES), ("pretrain", OBJECTIVES)):
            given = getattr(self, what)
            if given not in known:
                raise SpecError(f"wanted one of {known}, got {given!r}", f"{self.name}.{what}")

    def data_hash(self) -> str:
        """Of every number of every split; results of different data do not compare. Loads it."""
        return _hashed(self.load)

    def record(self) -> dict[str, str]:
        """What a result says of its data: the hash, and whose that is. Loads the data.

        `whose` is empty where nobody has pinned it: other data than others had, under the same name
        (another version of Python or NumPy, perhaps)."""
        found = self.data_hash()
        return {"name": self.name, "data": found, "whose": self.pins.get(found, "")}


@cache
def _hashed(load: Callable[[], Mapping[str, Split]]) -> str:
    digest, splits = hashlib.sha256(), load()
    for name in SPLITS:
        for part in (splits[name].targets, splits[name].inputs):
            digest.update(part.numpy().tobytes())
    return digest.hexdigest()[:16]
