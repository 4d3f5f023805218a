"""What the parts of this package raise on purpose has one root, and unknown names read the same.

It must not import anything of the parts, nor torch: a client that never loads torch catches these.
Next: `compiler/errors.py`, `search/errors.py`, `service/errors.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class FormwrightError(Exception):
    """Whatever this package raises on purpose."""


def unknown(kind: str, given: object, known: Iterable[str]) -> str:
    """What was given, what is known, and the nearest guess.

    >>> unknown("sampler", "tpee", ["random", "tpe"])
    "unknown sampler 'tpee'; known: random, tpe. Did you mean 'tpe'?"
    """
    names = sorted(known)
    guess = get_close_matches(str(given), names, n=1)
    hint = f". Did you mean {guess[0]!r}?" if guess else ""
    return f"unknown {kind} {given!r}; known: {', '.join(names)}{hint}"


def one_line(text: str, longest: int = 500) -> str:
    """The text without line breaks, cut where nobody reads on, and without what cannot be printed:
    a terminal would take it for a command, a file perhaps not at all.

    >>> one_line("took\\n 5 s\\x1b[2J")
    'took 5 s[2J'
    """
    words = ("".join(filter(str.isprintable, word)) for word in text.split())
    text = " ".join(filter(None, words))
    return text if len(text) <= longest else text[: longest - 1] + "…"
