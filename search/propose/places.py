"""Genes by the places of their choices, as samplers see them, and what else samplers share.

Python takes 1, 1.0 and True for equal; specs do not, and so here choices are told apart by their
text. It must not know any sampler. Next: `history.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from ..space import OneOf
from ..spec import Scalar

Genes = Mapping[str, Scalar]


def key_of(genes: Genes) -> str:
    """Equal for equal genes only."""
    return repr(sorted(genes.items()))


def place_of(gene: OneOf, value: Scalar) -> int:
    """Which of the choices it is, from 0."""
    return [repr(choice) for choice in gene.choices].index(repr(value))


def is_ordered(gene: OneOf) -> bool:
    """Whether the order of the choices means something: they are numbers.

    >>> is_ordered(OneOf("width", (16, 32))), is_ordered(OneOf("norm", ("layer", "rms")))
    (True, False)
    """
    return all(isinstance(c, int | float) and not isinstance(c, bool) for c in gene.choices)


def seed_of(seed: int, number: int, draw: int) -> int:
    """A seed of each proposal, so that a search that goes on after a crash makes the same."""
    text = f"{seed}|{number}|{draw}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big")
