"""The JSON of specs: one canonical text, and checks that name what is wrong by its path.

It must not know what the fields mean, and must not know torch. Next: `spec.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .errors import SpecError

Scalar = int | float | str | bool


def canonical_json(data: object) -> str:
    """JSON in the one spelling that fingerprints are taken of."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def parse_json(text: str) -> object:
    """Raises SpecError where the text is not JSON or names a key twice."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except SpecError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise SpecError(f"not JSON: {error}") from error  # or an endless number


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made: dict[str, object] = {}
    for key, value in pairs:
        if key in made:
            raise SpecError(f"the key {key!r} is there twice")
        made[key] = value
    return made


def fields_of(data: object, wanted: set[str], field: str) -> Mapping[str, Any]:
    """`data`, an object with exactly these keys. Raises SpecError."""
    if not isinstance(data, Mapping):
        raise SpecError(f"wanted an object with {', '.join(sorted(wanted))}, got {data!r}", field)
    if missing := wanted - set(data):
        raise SpecError(f"missing: {', '.join(sorted(missing))}", field)
    if extra := set(data) - wanted:
        names = ", ".join(sorted(map(str, extra)))
        raise SpecError(f"not known: {names}; known: {', '.join(sorted(wanted))}", field)
    return data


@contextmanager
def inside(field: str) -> Iterator[None]:
    """What is wrong in there is wrong at this path."""
    try:
        yield
    except SpecError as error:
        said = str(error).removeprefix(f"{error.field}: ")
        raise SpecError(said, ".".join(filter(None, (field, error.field)))) from error


def list_of(data: object, field: str) -> list[Any]:
    """`data`, a list. Raises SpecError."""
    if not isinstance(data, list | tuple):
        raise SpecError(f"wanted a list, got {data!r}", field)
    return list(data)


def positive(value: object, field: str) -> int:
    """`value`, a positive whole number. Raises SpecError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SpecError(f"wanted a positive whole number, got {value!r}", field)
    return value


def text_of(value: object, what: str, field: str) -> str:
    """`value`, a string. Raises SpecError: wanted `what`."""
    if not isinstance(value, str):
        raise SpecError(f"wanted {what}, got {value!r}", field)
    return value


def scalar(value: object, field: str) -> Scalar:
    """The value as a plain number, string or boolean (not an enum's, not numpy's), so that equal
    settings are equal text. Raises SpecError for anything else, and what is not finite."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    raise SpecError(f"wanted a finite number, a string or a boolean, got {value!r}", field)
