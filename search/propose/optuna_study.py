"""What the samplers around Optuna share: a space in Optuna's words, and silence.

Optuna sees places of choices, not their values. It must not know how a sampler works.
Next: `tpe.py`, `nsga2.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from ..space import OneOf, Space
from ..spec import Scalar
from .places import is_ordered, place_of


class Names(CategoricalDistribution):
    """Choices without an order."""

    # Optuna compares choice by choice, all of them with every trial
    __hash__ = CategoricalDistribution.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)

    def __deepcopy__(self, memo: object) -> Names:
        # never changed; Optuna copies all of them with every trial, most of what adding one takes
        return self


class Steps(IntDistribution):
    """Choices in an order."""

    def __deepcopy__(self, memo: object) -> Steps:
        return self


class Knobs:
    """The genes that can be chosen at all, by the places of their choices. With `ordered`, those
    whose choices are numbers are told in their order."""

    def __init__(self, space: Space, ordered: bool) -> None:
        self._space = space
        self._genes = {gene.name: gene for gene in space.genes if len(gene.choices) > 1}
        self.distributions: dict[str, BaseDistribution] = {
            name: _steps(gene) if ordered and is_ordered(gene) else _names(gene)
            for name, gene in self._genes.items()
        }

    def places(self, genes: Mapping[str, Scalar]) -> dict[str, Any]:
        """What Optuna is told of genes."""
        return {name: place_of(gene, genes[name]) for name, gene in self._genes.items()}

    def genes(self, places: Mapping[str, Any]) -> dict[str, Scalar]:
        """What Optuna's proposal means, in canonical form."""
        chosen = {name: gene.choices[int(places[name])] for name, gene in self._genes.items()}
        fixed = {gene.name: gene.choices[0] for gene in self._space.genes}
        return self._space.canonical(fixed | chosen)


@contextmanager
def quietly() -> Iterator[None]:
    """Without Optuna's log lines and its warnings about experimental arguments; what the user has
    set is put back."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)


def _steps(gene: OneOf) -> Steps:
    return Steps(0, len(gene.choices) - 1)


def _names(gene: OneOf) -> Names:
    return Names(range(len(gene.choices)))
