"""Scores that add up over parts: every choice that is best for some budget, exactly.

Dynamic programming over the parts, as behind Puzzle ("Distillation-based NAS", Bercovich et al.,
2024), whose integer programme answers for one budget. Pure. It must not know what parts, costs and
scores are of. Next: `supernet/match.py`, widths of layers; `propose/exact.py`, a sampler.

    costs    [part][choice], whole numbers
    scores   [part][choice], lower is better
"""

from __future__ import annotations

from collections.abc import Sequence

Choice = tuple[int, ...]
"""For each part, which of its choices."""


def exact_front(
    costs: Sequence[Sequence[int]],
    scores: Sequence[Sequence[float]],
    budget: int | None = None,
) -> list[Choice]:
    """Every choice of which none has both a lower or equal sum of costs and a lower or equal sum of
    scores, the cheapest first; of equals the one of earlier choices. With a `budget`, those within
    it. Empty if there is none.

    Part by part, of all sums so far only those that no cheaper one beats go on, so there are never
    more than there are different costs: O(parts * choices * costs). ValueError where the tables
    differ in form.

    >>> exact_front([[1, 2], [1, 3]], [[5, 1], [4, 2]])
    [(0, 0), (1, 0), (1, 1)]
    """
    front: list[tuple[int, float, Choice]] = [(0, 0.0, ())]
    for at, (costs_of, scores_of) in enumerate(zip(costs, scores, strict=True)):
        # what the parts that are left cost at least
        least = sum(min(of, default=0) for of in costs[at + 1 :])
        grown = [
            (cost + more, score + worse, (*choice, place))
            for cost, score, choice in front
            for place, (more, worse) in enumerate(zip(costs_of, scores_of, strict=True))
            if budget is None or cost + more + least <= budget
        ]
        front = []
        for state in sorted(grown):
            if not front or state[1] < front[-1][1]:
                front.append(state)
    return [choice for _, _, choice in front]
