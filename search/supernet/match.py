"""Mix'n'Match: which width each layer gets, so that a sub-model keeps a budget.

`gentle` is the heuristic of "MatFormer" (Devvrit et al., 2023); `best` is exact for scores that add
up over layers, such as how much worse the whole becomes with one layer narrow. It must not know
what widths, costs and scores are of. Next: `../additive.py`, `nested.py`.

    widths   what each layer may have, from the smallest
    costs    [layer][choice], whole numbers
    scores   [layer][choice], lower is better
"""

from __future__ import annotations

from collections.abc import Sequence

from ..additive import Choice, exact_front
from ..errors import SpecError


def gentle(costs: Sequence[Sequence[int]], budget: int) -> Choice:
    """Widths that never fall with depth, as even as can be: of those within the budget the dearest,
    of these the one whose first and last differ least. Raises SpecError where nothing is within
    it."""
    # by first and last choice, for each sum of costs one way to it
    found: dict[tuple[int, int], dict[int, Choice]] = {}
    for layer, of in enumerate(costs):
        grown: dict[tuple[int, int], dict[int, Choice]] = {}
        for at, more in enumerate(of):
            before = [((at, 0), {0: ()})] if layer == 0 else list(found.items())
            for (first, last), sums in before:
                if layer and at < last:
                    continue
                ways = grown.setdefault((first, at), {})
                for cost, choice in sums.items():
                    if cost + more <= budget:
                        ways.setdefault(cost + more, (*choice, at))
        found = grown
    ended = [
        (cost, first - last, choice)
        for (first, last), sums in found.items()
        for cost, choice in sums.items()
    ]
    if not ended:
        raise _nothing(costs, budget)
    return max(ended)[2]


def best(costs: Sequence[Sequence[int]], scores: Sequence[Sequence[float]], budget: int) -> Choice:
    """The choice with the lowest sum of scores within the budget, exactly: the last of the exact
    front. Raises SpecError where nothing is within the budget."""
    front = exact_front(costs, scores, budget)
    if not front:
        raise _nothing(costs, budget)
    return front[-1]


def _nothing(costs: Sequence[Sequence[int]], budget: int) -> SpecError:
    least = sum(min(of) for of in costs)
    return SpecError(f"nothing costs {budget} or less; the least is {least}", "budget")
