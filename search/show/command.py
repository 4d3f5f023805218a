"""What submits a search again: a line for a shell, or a file.

It must not know the service: the line is text. Next: `../search_spec.py`.
"""

from __future__ import annotations

import shlex
from dataclasses import fields
from typing import Any

from ..search_spec import SearchSpec


def command(spec: SearchSpec) -> str:
    """`formwright submit` with every field that has not its default.

    >>> command(SearchSpec(task="recall", trials=8, constraints=("params<=2e4",)))
    "formwright submit --task recall --trials 8 --constraints 'params<=2e4'"
    """
    words = ["formwright", "submit"]
    for field in fields(SearchSpec):
        value: Any = getattr(spec, field.name)
        if value == field.default:
            continue
        option = f"--{field.name.replace('_', '-')}"
        given = [*map(str, value)] if isinstance(value, tuple) else [str(value)]
        if any(text.startswith("-") for text in given) or not all(given):
            return f"printf %s {shlex.quote(spec.to_json())} | formwright submit -f -"
        words += [option, *given]
    return shlex.join(words)
