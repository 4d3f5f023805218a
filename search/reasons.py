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
    groups: dict[str, list[list[str]]] = {}
    for reason in reasons:
        groups.setdefault(form(reason), []).append(NUMBER.findall(reason))
    ranked = sorted(groups.items(), key=lambda item: -len(item[1]))
    return [(_shown(form, numbers), len(numbers)) for form, numbers in ranked[:most]]


def form(reason: str) -> str:
    """The reason with # for each number: equal for those that count as one.

    >>> form("took longer than 5 s")
    'took longer than # s'
    """
    return NUMBER.sub("#", reason)


def _shown(like: str, numbers: list[list[str]]) -> str:
    """The form with the numbers that all have."""
    said = ["…" if len(set(column)) > 1 else column[0] for column in zip(*numbers, strict=True)]
    parts = like.split("#")
    if len(parts) != len(said) + 1:  # the reasons have a # of their own
        return like.replace("#", "…")
    return parts[0] + "".join(n + part for n, part in zip(said, parts[1:], strict=True))
