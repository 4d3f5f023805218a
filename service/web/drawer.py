"""The process that draws: the JSON of an architecture in a line, a line with its SVG out.

It ends when its standard input does, so that it does not outlive its server. It must not know the
store. Next: `drawings.py`, who starts it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TextIO

from ...search import ArchSpec, draw


def main(given: TextIO, out: TextIO) -> None:
    """Answers until there is nothing more to read."""
    for line in given:
        try:
            answer = {"svg": draw(ArchSpec.from_json(json.loads(line)))}
        except Exception as error:  # blocks may be anybody's code: whatever it is, go on
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        out.write(json.dumps(answer) + "\n")
        out.flush()


if __name__ == "__main__":
    # what a block prints while it is loaded is no answer
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    main(sys.stdin, answers)
