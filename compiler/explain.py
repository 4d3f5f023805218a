"""`explain(model, *args)`: what the backend would do to a model, without generating code.

The passes run as they would for `torch.compile`, the graphs are then run as they are, so the
answer comes in seconds. Next: `report.py` for what is in the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from .backend import compile_or_fall_back
from .lower import SELF, Target, target
from .options import Options
from .pipeline import check_names
from .report import Report
from .torch_compat import OptimizedModule, compiled_options, uncompiled


def explain(model: Callable[..., Any], *args: Any, **kwargs: Any) -> Report:
    """A report on every graph of one call `model(*args, **kwargs)`, in the current mode (train or
    eval, gradients or none, autocast). `str(report)` is a table.

    The model is called once, for real, as `torch._dynamo.explain` does. What `torch.compile(model,
    backend="formwright", options=...)` returned is explained with its options; other options go
    through `explain_with(options, model, ...)`.
    """
    return explain_with(None, model, *args, **kwargs)


def explain_with(
    options: Mapping[str, Any] | None, model: Callable[..., Any], *args: Any, **kwargs: Any
) -> Report:
    """`explain` with options as `torch.compile` takes them. Raises OptionError."""
    if isinstance(model, OptimizedModule):
        if options is None:
            options = compiled_options(model, SELF)
        model = model._orig_mod
    chosen = Options.of(options)
    target(chosen.target, chosen.target_options)
    check_names(chosen)
    report = Report()

    def analyse(gm: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        # Capture asks what the chosen target can do; the graph itself is then run as it is.
        runner = _RunAsItIs(chosen.target, {}, None)
        return compile_or_fall_back(gm, inputs, replace(chosen, verify=False), runner, report)

    with uncompiled(model) as original:
        # Isolated, it neither uses up the recompile limit nor evicts what was compiled.
        analysed = torch.compile(original, backend=analyse, isolate_recompiles=True)  # type: ignore[call-overload]
        analysed(*args, **kwargs)
    return report


class _RunAsItIs(Target):
    """A target with another's name that generates no code."""

    makes = "analysed"

    def __call__(self, graph: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        return graph
