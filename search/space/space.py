"""`Space`: knobs, what turns them off, what must hold between them, and what a setting means.

The genome has a fixed length, so that every sampler can search it jointly; knobs that mean nothing
beside others are set to their first choice before anybody compares. Everything but `decode` is
data: a space can be counted, drawn from, walked through and restricted without building anything.
It must not know how genes are proposed. Next: `metaformer.py`.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import SpecError
from ..spec import ArchSpec, Scalar, Signature

Genes = Mapping[str, Scalar]
TRIES = 1000  # draws, or choices of knobs, until one keeps the rules


@dataclass(frozen=True)
class OneOf:
    """A knob: one of `choices`, in an order that a sampler may use. It is turned on while each knob
    of `when` is on and has one of these values; `when` names earlier knobs only. `fits(choice,
    signature)` says whether that choice means anything there; without it each does."""

    name: str
    choices: tuple[Scalar, ...]
    when: Mapping[str, tuple[Scalar, ...]] | None = None
    fits: Callable[[Any, Signature], bool] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Rule:
    """What must hold between `knobs`: `holds(*values)`, asked where all of them are on. `says` is
    why, in words for users."""

    knobs: tuple[str, ...]
    holds: Callable[..., bool]
    says: str


@dataclass(frozen=True)
class Space:
    """`decode(genes, signature)` is the architecture; it raises SpecError where there is none for
    this signature."""

    name: str
    genes: tuple[OneOf, ...]
    decode: Callable[[Genes, Signature], ArchSpec]
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        """Raises SpecError for what no sampler could search."""
        names = [gene.name for gene in self.genes]
        if not names or len(set(names)) < len(names):
            raise SpecError(f"{self.name}: wanted genes with different names, got {names}", "genes")
        for at, gene in enumerate(self.genes):
            texts = {repr(choice) for choice in gene.choices}
            if not texts or len(texts) < len(gene.choices) or any(c != c for c in gene.choices):
                raise SpecError(f"wanted different choices, got {gene.choices}", gene.name)
            if unknown := set(gene.when or ()) - set(names[:at]):
                raise SpecError(f"it depends on {sorted(unknown)}, not earlier", gene.name)
        for rule in self.rules:
            if unknown := set(rule.knobs) - set(names):
                raise SpecError(f"a rule is about {sorted(unknown)}, not known", "rules")

    def size(self) -> int:
        """How many settings there are that differ in what is on, and keep the rules.

        Knobs that conditions and rules are about are enumerated, the others multiplied. Raises
        SpecError where that is more than a million of the former.
        """
        deciding = {name for gene in self.genes for name in gene.when or ()}
        deciding |= {name for rule in self.rules for name in rule.knobs}
        if math.prod(len(g.choices) for g in self.genes if g.name in deciding) > 1_000_000:
            raise SpecError(f"{self.name} is too entangled to be counted")
        return self._count({}, 0, deciding)

    def _count(self, genes: dict[str, Scalar], at: int, deciding: set[str]) -> int:
        if at == len(self.genes):
            return not self._broken(genes)
        gene = self.genes[at]
        if not _on(gene, genes):
            return self._count(genes, at + 1, deciding)
        if gene.name not in deciding:
            return len(gene.choices) * self._count(genes, at + 1, deciding)
        counts = (self._count({**genes, gene.name: c}, at + 1, deciding) for c in gene.choices)
        return sum(counts)

    def sample(self, rng: random.Random) -> dict[str, Scalar]:
        """Genes drawn uniformly choice by choice, again where a rule is broken, in canonical form.
        Raises SpecError where a thousand draws break one, and so does everything, if it can be
        gone through."""
        for _ in range(TRIES):
            drawn = {gene.name: rng.choice(gene.choices) for gene in self.genes}
            if not self.broken(drawn):
                return self.canonical(drawn)
        if self.combinations() <= 100 * TRIES:
            kept = [genes for genes in self.all() if not self.broken(genes)]
            if kept:
                return self.canonical(rng.choice(kept))
        said = "; ".join(dict.fromkeys(self.broken(drawn)))
        raise SpecError(f"{self.name}: nothing drawn keeps its rules: {said}")

    def combinations(self) -> int:
        """How many choices of genes there are, those that mean the same counted apart."""
        return math.prod(len(gene.choices) for gene in self.genes)

    def all(self) -> Iterator[dict[str, Scalar]]:
        """Every one of `combinations`, in order."""
        names = [gene.name for gene in self.genes]
        for choice in itertools.product(*(gene.choices for gene in self.genes)):
            yield dict(zip(names, choice, strict=True))

    def canonical(self, params: Genes) -> dict[str, Scalar]:
        """The same architecture with every knob that is off at its first choice. Raises SpecError
        if a gene is missing, not known, or has a value that it does not take."""
        known = {gene.name: gene for gene in self.genes}
        if set(params) != set(known):
            differing = ", ".join(sorted(set(params) ^ set(known)))
            raise SpecError(f"not exactly the genes of {self.name}: {differing}", "params")
        for name, value in params.items():
            if not _among(value, known[name].choices):
                choices = ", ".join(map(repr, known[name].choices))
                raise SpecError(f"{value!r} is not one of {choices}", f"params.{name}")
        on = self.active(params)
        return {g.name: params[g.name] if g.name in on else g.choices[0] for g in self.genes}

    def active(self, params: Genes) -> dict[str, Scalar]:
        """Only the knobs that are on."""
        on: dict[str, Scalar] = {}
        for gene in self.genes:
            if _on(gene, on):
                on[gene.name] = params[gene.name]
        return on

    def broken(self, params: Genes) -> list[str]:
        """What the rules say against these genes."""
        return self._broken(self.active(params))

    def _broken(self, on: Genes) -> list[str]:
        asked = (rule for rule in self.rules if all(name in on for name in rule.knobs))
        return [r.says for r in asked if not r.holds(*(on[name] for name in r.knobs))]

    def neighbours(self, params: Genes) -> list[dict[str, Scalar]]:
        """What differs from these genes in one knob that is on, in canonical form, and keeps the
        rules. Knobs that are turned on by it have the first choices that do."""
        here, found = self.canonical(params), {}
        on = self.active(here)
        for gene in self.genes:
            for choice in gene.choices if gene.name in on else ():
                moved = self._mended({**here, gene.name: choice}, on)
                if moved is not None and not _same(choice, here[gene.name]):
                    canonical = self.canonical(moved)
                    found[repr(canonical)] = canonical
        return list(found.values())

    def _mended(self, moved: Genes, on: Genes) -> Genes | None:
        """Genes that keep the rules, with other choices of the knobs that were not on before."""
        new = [g for g in self.genes if g.name in self.active(moved) and g.name not in on]
        for choices in itertools.islice(itertools.product(*(g.choices for g in new)), TRIES):
            tried = {**moved, **{g.name: c for g, c in zip(new, choices, strict=True)}}
            if not self.broken(tried):
                return tried
        return None

    def restricted(self, **choices: Scalar | Iterable[Scalar]) -> Space:
        """The part of it in which these knobs have this value, or one of these. Raises SpecError
        for a knob that is not known, or a value that it does not take."""
        known = {gene.name: gene for gene in self.genes}
        kept = {}
        for name, given in choices.items():
            if name not in known:
                raise SpecError(f"{name!r} is no knob of {self.name}: {', '.join(known)}", name)
            values = (given,) if isinstance(given, int | float | str) else tuple(given)
            for value in values:
                if not _among(value, known[name].choices):
                    taken = ", ".join(map(repr, known[name].choices))
                    raise SpecError(f"{value!r} is not one of {taken}", name)
            kept[name] = tuple(c for c in known[name].choices if _among(c, values))
        genes = (replace(g, choices=kept.get(g.name, g.choices)) for g in self.genes)
        return replace(self, genes=tuple(genes))

    def fitted(self, signature: Signature) -> Space:
        """The part of it that means something for this signature: each knob keeps the choices that
        fit, so that sizes and samplers count no others. What several knobs decide together is left
        to `decode`. Raises SpecError where nothing fits."""
        genes = []
        for gene in self.genes:
            kept = tuple(c for c in gene.choices if gene.fits is None or gene.fits(c, signature))
            if not kept:
                choices = ", ".join(map(repr, gene.choices))
                raise SpecError(f"none of {choices} fits {signature}", gene.name)
            genes.append(replace(gene, choices=kept))
        return replace(self, genes=tuple(genes))


def _on(gene: OneOf, genes: Genes) -> bool:
    conditions = (gene.when or {}).items()
    return all(name in genes and _among(genes[name], values) for name, values in conditions)


def _among(value: Scalar, choices: Iterable[Scalar]) -> bool:
    return any(_same(value, choice) for choice in choices)


def _same(one: Scalar, other: Scalar) -> bool:
    """Python takes 1, 1.0 and True for equal; specs do not."""
    return type(one) is type(other) and one == other
