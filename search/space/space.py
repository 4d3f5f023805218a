"""`Space`: a fixed number of genes, and what architecture a choice of them means.

The genome has a fixed length, so that every sampler can search it jointly; genes that mean nothing
for some choice are set to their first value before anybody compares. It must not know how genes
are proposed. Next: `metaformer.py`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ..errors import SpecError
from ..spec import ArchSpec, Scalar, Signature


@dataclass(frozen=True)
class OneOf:
    """A gene: one of `choices`, in an order that a sampler may use."""

    name: str
    choices: tuple[Scalar, ...]


def _none(_: Mapping[str, Scalar]) -> Iterable[str]:
    return ()


@dataclass(frozen=True)
class Space:
    """`decode(genes, signature)` is the architecture; `inactive(genes)` names the genes that do
    not matter beside these."""

    name: str
    genes: tuple[OneOf, ...]
    decode: Callable[[Mapping[str, Scalar], Signature], ArchSpec]
    inactive: Callable[[Mapping[str, Scalar]], Iterable[str]] = _none

    def __post_init__(self) -> None:
        """Raises SpecError for what no sampler could search."""
        names = [gene.name for gene in self.genes]
        if not names or len(set(names)) < len(names):
            raise SpecError(f"{self.name}: wanted genes with different names, got {names}", "genes")
        for gene in self.genes:
            texts = {repr(choice) for choice in gene.choices}
            if not texts or len(texts) < len(gene.choices) or any(c != c for c in gene.choices):
                raise SpecError(f"wanted different choices, got {gene.choices}", gene.name)

    def size(self) -> int:
        """How many choices of genes there are, those that mean the same counted apart."""
        return math.prod(len(gene.choices) for gene in self.genes)

    def sample(self, rng: random.Random) -> dict[str, Scalar]:
        """Genes drawn uniformly, in canonical form."""
        return self.canonical({gene.name: rng.choice(gene.choices) for gene in self.genes})

    def canonical(self, params: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The same architecture with every inactive gene at its first choice. Raises SpecError if
        a gene is missing, not known, or has a value that it does not take."""
        known = {gene.name: gene for gene in self.genes}
        if set(params) != set(known):
            differing = ", ".join(sorted(set(params) ^ set(known)))
            raise SpecError(f"not exactly the genes of {self.name}: {differing}", "params")
        for name, value in params.items():
            # Python takes 1, 1.0 and True for equal; specs do not
            if not any(type(c) is type(value) and c == value for c in known[name].choices):
                choices = ", ".join(map(repr, known[name].choices))
                raise SpecError(f"{value!r} is not one of {choices}", f"params.{name}")
        try:
            asleep = set(self.inactive(params))
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise SpecError(f"the space {self.name!r} fails: {what}") from error
        return {
            name: known[name].choices[0] if name in asleep else value
            for name, value in params.items()
        }
