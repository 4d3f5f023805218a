"""`formwright compile-report module:factory`: the report of a model, from the command line.

The factory is called without arguments and returns `model`, `(model, args)` or
`(model, args, kwargs)`. Next: `../parsers.py`, its options; `explain.py`
does the work.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from ..parsers import compile_report_parser
from .errors import FactoryError, FormwrightError
from .explain import explain_with


def compile_report(arguments: list[str]) -> int:
    """Exit code 0 with the report on standard output, 2 for a bad call with the reason on standard
    error."""
    given = compile_report_parser().parse_args(arguments)
    try:
        options = json.loads(given.options) if given.options else None
    except json.JSONDecodeError as error:
        return _refuse(f"--options is not JSON: {error}")
    try:
        model, args, kwargs = _call(given.factory)
        model.train(given.train)
        with torch.set_grad_enabled(given.train):
            report = explain_with(options, model, *args, **kwargs)
    except FormwrightError as error:
        return _refuse(str(error))
    except Exception as error:
        what = str(error).strip().splitlines() or [""]
        return _refuse(
            f"the model failed on the inputs of {given.factory}: {type(error).__name__}: {what[0]}"
        )
    print(json.dumps(report.to_dict(), indent=2) if given.json else report)
    return 0


def _refuse(reason: str) -> int:
    print(f"formwright compile-report: {reason}", file=sys.stderr)
    return 2


def _call(name: str) -> tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]:
    """What the factory made, in full. Raises FactoryError."""
    factory = _load(name)
    try:
        made = factory()
    except Exception as error:
        raise FactoryError(f"{name} failed: {type(error).__name__}: {error}") from error
    parts = made if isinstance(made, tuple) else (made,)
    if not 1 <= len(parts) <= 3:
        raise FactoryError(f"{name} returned {len(parts)} values; wanted: model, args, kwargs")
    model, args, kwargs = (*parts, (), {})[:3] if len(parts) == 1 else (*parts, {})[:3]
    if not isinstance(model, torch.nn.Module):
        raise FactoryError(f"{name} returned {type(model).__name__}, not a torch.nn.Module")
    args = args if isinstance(args, tuple | list) else (args,)
    if not isinstance(kwargs, dict):
        raise FactoryError(f"{name} returned {type(kwargs).__name__} where keyword inputs go")
    return model, tuple(args), kwargs


def _load(name: str) -> Callable[[], Any]:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise FactoryError(f"{name!r} is not of the form module:factory")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise FactoryError(f"cannot import {module_name!r}: {error}") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        known = ", ".join(sorted(names)) or "none"
        raise FactoryError(f"{module_name!r} has no factory {attribute!r}; callables: {known}")
    made: Callable[[], Any] = factory
    return made
