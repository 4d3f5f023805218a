"""What a field of a `SearchSpec` may be, as tables, and which fields do not go together.

It must not know torch, ray or optuna: clients and the server check specs without them.
Next: `search_spec.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from ..errors import one_line
from .errors import SpecError, UnknownNameError
from .objective import METRICS, metric_named

if TYPE_CHECKING:
    from .search_spec import SearchSpec

NAMES = ("space", "task", "sampler", "target")
NAME = re.compile(r"[\w.:-]{1,100}", re.ASCII)
KNOB = re.compile(r"\w{1,100}=[^=]{1,200}")
# field -> (lowest, highest); whole numbers, both ends allowed
BOUNDS = {
    "trials": (1, 100_000),
    "steps": (1, 10_000_000),
    "batch": (1, 65_536),
    "threads": (1, 1_024),
    "attempts": (1, 100),
    "seed": (0, 2**63 - 1),
    "timeout_s": (1, 7 * 24 * 3600),
    "pretrain": (0, 10_000_000),
    "rungs": (1, 8),
    "keep": (2, 16),
    "seconds": (0, 2**31 - 1),
}
# field -> (lowest, highest); finite numbers
RANGES = {"audit": (0.0, 1.0), "flops": (0.0, 1e30)}
RATES = (1e-9, 10.0)
# field -> what it may be
WORDS = {"latency": ("whole", "layers"), "weights": ("own", "shared")}
LISTS = ("objectives", "knobs", "constraints", "baselines", "rates", "proxies")
MOST, LONGEST = 64, 500_000  # entries of a list, and characters of all of them
PROXY_NAMES = ("params", "flops", "grad_norm", "snip", "synflow", "jacob_cov")
PREDICTED = ("latency_ms", "latency_ratio", "throughput")  # from layers
MEASURED = "decode_ms"  # in any case
NESTED = ("matformer",)  # spaces of sub-models


def checked(spec: SearchSpec) -> dict[str, Any]:
    """The fields that are written in another way than they were given. Raises SpecError for the
    first that is impossible by itself."""
    for field in NAMES:
        name = getattr(spec, field)
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise SpecError(f"wanted a name, got {one_line(repr(name), 80)}", field)
    for field, (low, high) in BOUNDS.items():
        value = getattr(spec, field)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise SpecError(f"wanted a whole number from {low} to {high}, got {value!r}", field)
    for field, words in WORDS.items():
        if (word := getattr(spec, field)) not in words:
            raise SpecError(f"wanted one of {', '.join(words)}, got {word!r}", field)
    for field in LISTS:
        entries = getattr(spec, field)
        if not isinstance(entries, tuple):
            raise SpecError(f"wanted a list, got {one_line(repr(entries), 80)}", field)
        if len(entries) > MOST:
            raise SpecError(f"wanted at most {MOST}, got {len(entries)}", field)
        if sum(len(text) for text in entries if isinstance(text, str)) > LONGEST:
            raise SpecError(f"wanted at most {LONGEST} characters in all", field)
    for at, given in enumerate(cast(tuple[object, ...], spec.baselines)):
        if not isinstance(given, str):
            said = one_line(repr(given), 80)
            raise SpecError(f"wanted the JSON of an architecture, got {said}", f"baselines[{at}]")
    _named(spec.objectives, "objectives")
    for at, name in enumerate(spec.objectives):
        metric_named(name, f"objectives[{at}]")
    for at, name in enumerate(spec.proxies):
        if name not in PROXY_NAMES:
            raise UnknownNameError("proxy", name, PROXY_NAMES, f"proxies[{at}]")
    rates = [_number(rate, RATES, f"rates[{at}]") for at, rate in enumerate(spec.rates)]
    _named(rates, "rates")
    numbers = {field: _number(getattr(spec, field), ends, field) for field, ends in RANGES.items()}
    return {"knobs": _knobs(spec.knobs), "rates": tuple(rates), **numbers}


def together(spec: SearchSpec) -> None:
    """Raises SpecError for fields that do not go together."""
    wanted = [*spec.objectives, *(kept.metric for kept in spec.kept())]
    known = (*PREDICTED, MEASURED)
    whole = [name for name in wanted if METRICS[name].of_machine and name not in known]
    if spec.latency == "layers" and whole:
        said = f"they do not give {', '.join(dict.fromkeys(whole))}, only {', '.join(known)}"
        raise SpecError(f'layers are not enough: {said}; take "whole"', "latency")
    if spec.weights == "shared" and spec.space not in NESTED:
        raise SpecError(f"weights are shared in {', '.join(NESTED)}, not {spec.space}", "weights")
    if spec.weights == "shared" and spec.rungs > 1:
        raise SpecError("shared weights are trained to their end whatever the rung", "rungs")
    if spec.proxies and "quality" not in wanted:
        raise SpecError("proxies stand for the quality, which nobody wants here", "proxies")
    if spec.budget and spec.steps != type(spec).steps:
        raise SpecError("steps are a budget too; state one of them", "budget")


def _named(given: Sequence[object], field: str) -> None:
    if not given:
        raise SpecError("wanted one or more, got none", field)
    if len(set(map(repr, given))) < len(given):
        raise SpecError(f"one is there twice: {', '.join(map(str, given))}", field)


def _knobs(knobs: tuple[Any, ...]) -> tuple[str, ...]:
    for at, text in enumerate(knobs):
        if not isinstance(text, str) or not KNOB.fullmatch(text):
            said = one_line(repr(text), 80)
            raise SpecError(
                f'wanted "name=value" or "name=value|value", got {said}', f"knobs[{at}]"
            )
    names = [text.partition("=")[0] for text in knobs]
    if len(set(names)) < len(names):
        raise SpecError(f"a knob is there twice: {', '.join(names)}", "knobs")
    return tuple(sorted(knobs))


def _number(value: object, ends: tuple[float, float], field: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        made = float(value) if number else math.nan  # type: ignore[arg-type]
    except OverflowError:
        made = math.inf
    if not ends[0] <= made <= ends[1]:
        raise SpecError(
            f"wanted a number from {ends[0]:g} to {ends[1]:g}, got {one_line(repr(value), 80)}",
            field,
        )
    return made
