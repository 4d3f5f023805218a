"""Which reasons are the commonest, where reasons differ in a number or two.

It must not know what failed. Next: `result.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:[.,]\d+)*(?:[eE][-+]?\d+)?(?!\w)")


def commonest(reasons: Iterable[str], most: int = 3) -> list[tuple[str, int]]:
    """The reasons that are there most often, with how often, the first one first where that is
    equal. Those that differ in numbers only are one, with … where the numbers differ.

    >>> commonest(["width is 3, not <= 2", "width is 5, not <= 2", "diverged"])
    [('width is …, not <= 2', 2), ('diverged', 1)]
    """
    groups = Reasons()
    for reason in reasons:
        groups.add(reason)
    return groups.commonest(most)


class Reasons:
    """The same of reasons that come one by one: it keeps one of each form, not all of them."""

    def __init__(self) -> None:
        # form -> how many, and the numbers that all have, … where they differ
        self._groups: dict[str, tuple[int, list[str]]] = {}

    def add(self, reason: str) -> None:
        like, numbers = form(reason), NUMBER.findall(reason)
        count, said = self._groups.get(like, (0, numbers))
        if len(numbers) != len(said):  # the reasons have a # of their own
            said = []
        else:
            said = [a if a == b else "…" for a, b in zip(said, numbers, strict=True)]
        self._groups[like] = (count + 1, said)

    def commonest(self, most: int = 3) -> list[tuple[str, int]]:
        ranked = sorted(self._groups.items(), key=lambda group: -group[1][0])
        return [(_shown(like, said), count) for like, (count, said) in ranked[:most]]


def form(reason: str) -> str:
    """The reason with # for each number: equal for those that count as one.

    >>> form("took longer than 5 s")
    'took longer than # s'
    """
    return NUMBER.sub("#", reason)


def _shown(like: str, said: list[str]) -> str:
    """The form with the numbers that all have."""
    parts = like.split("#")
    if len(parts) != len(said) + 1:  # the reasons have a # of their own
        return like.replace("#", "…")
    return parts[0] + "".join(n + part for n, part in zip(said, parts[1:], strict=True))
