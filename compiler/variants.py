"""One variant made runnable: the right example inputs for the target, verification, and what to
do when the target fails on it.

It must not know the passes. `dispatch.py` decides which variant runs; `lower.py` generates code.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from .capture import Captured
from .errors import Declined, FormwrightWarning
from .facts import Facts
from .graph import copy_graph
from .lower import Target
from .options import Options
from .passes.real_tokens import RealTokens
from .report import LOWER, VERIFY, Decline, Reason, Report, VariantReport
from .torch_compat import (
    CONTROL_FLOW,
    FakeTensor,
    FakeTensorMode,
    keep_dynamo_identity,
    new_guards,
    tracing_in,
    tracing_mode,
)
from .verify import Verified

Executable = Callable[..., Any]
Guards = list[Callable[..., bool]]


class Lowering:
    """Lowers the variants of one captured graph and records what becomes of them."""

    def __init__(
        self, captured: Captured, target: Target, report: Report, number: int, options: Options
    ) -> None:
        self._captured = captured
        self._target = target
        self._report = report
        self._number = number
        self._options = options

    def while_compiling(
        self, graph: fx.GraphModule, name: str, inputs: Sequence[Any]
    ) -> tuple[Executable, Guards]:
        """Lower while Dynamo is compiling, on its inputs. Raises Declined if the target fails."""
        mode = tracing_mode() or self._captured.mode
        extras = [_clean(f, mode) for f in self._extra_fakes(graph)]
        try:
            run = self._target(self._copy(graph), [*inputs, *extras])
        except CONTROL_FLOW:
            raise
        except Exception as error:
            raise Declined(Reason.TARGET_FAILED, self._failure(error)) from error
        self._record(name, self._target.makes)
        return self._checked(run, name), []

    def __call__(
        self, graph: fx.GraphModule, name: str, inputs: Sequence[Any]
    ) -> tuple[Executable, Guards]:
        """Lower at run time, for a call that needs it. Where the target fails the graph runs."""
        try:
            run, guards = self._lower_late(graph, inputs)
        except Exception as error:
            reason = self._failure(error)
            warnings.warn(
                f"formwright: variant {name!r} runs without code generation. {reason}",
                FormwrightWarning,
                stacklevel=2,
            )
            self._decline(LOWER, name, Reason.TARGET_FAILED, reason)
            self._record(name, "eager")
            return graph, []
        self._record(name, self._target.makes)
        return self._checked(run, name), guards

    def _lower_late(
        self, graph: fx.GraphModule, inputs: Sequence[Any]
    ) -> tuple[Executable, Guards]:
        """On fake inputs, with the guards that this adds. A graph that writes to its inputs is
        lowered on the real ones, because it matters how these overlap; then sizes are fixed."""
        if Facts(graph.graph).writes_inputs:
            if self._captured.dynamic:
                raise ValueError("it writes to its inputs, and how they overlap is not known here")
            return self._target(self._copy(graph), list(inputs)), []
        mode = self._captured.mode
        fakes = [
            *(_clean(f, mode) for f in self._captured.fakes),
            *(_clean(f, mode) for f in self._extra_fakes(graph)),
        ]
        with tracing_in(mode), new_guards(mode.shape_env, fakes) as guards:
            run = self._target(self._copy(graph), fakes)
        return run, guards

    def _extra_fakes(self, graph: fx.GraphModule) -> list[Any]:
        placeholders = graph.graph.find_nodes(op="placeholder")
        return [n.meta["val"] for n in placeholders[len(self._captured.fakes) :]]

    def _copy(self, graph: fx.GraphModule) -> fx.GraphModule:
        """Targets take ownership of the graph they get; ours stays whole."""
        module = fx.GraphModule(graph, copy_graph(graph.graph))
        keep_dynamo_identity(self._captured.module, module)
        return module

    def _failure(self, error: Exception) -> str:
        return f"target {self._target.name!r} failed on it: {type(error).__name__}: {error}"

    def _record(self, name: str, state: str) -> None:
        self._report.variants.append(VariantReport(self._number, name, state))

    def _decline(self, row: str, name: str, code: Reason, reason: str) -> None:
        """A variant that was not compiled, or not checked, or found wrong."""
        self._report.record(row, sites=1, declined=(Decline("", name, "", code, reason),))

    def _checked(self, run: Executable, name: str) -> Executable:
        if not self._options.verify:
            return run
        if self._options.padding == "remove" and RealTokens.name in name.split("+"):
            reason = (
                "padded rows of its outputs are zeros, as asked for, and not as in the reference"
            )
            self._decline(VERIFY, name, Reason.NOT_COMPARABLE, reason)
            return run
        if Facts(self._captured.module.graph).is_random:
            reason = "it draws random numbers, which no rewrite has to draw alike"
            self._decline(VERIFY, name, Reason.RANDOM, reason)
            return run
        tell = functools.partial(self._verified, name)
        return Verified(run, self._captured.module, len(self._captured.fakes), tell)

    def _verified(self, name: str, code: Reason | None, reason: str) -> None:
        if code is None:
            self._report.record(VERIFY, sites=1, rewritten=1)
            return
        if code is Reason.VERIFY_FAILED:
            warnings.warn(
                f"formwright: variant {name!r} disagrees with the unrewritten graph and is not "
                f"used: {reason}",
                FormwrightWarning,
                stacklevel=2,
            )
        self._decline(VERIFY, name, code, reason)


def _clean(value: Any, mode: FakeTensorMode) -> Any:
    """A fake tensor of `mode` with the size, strides and dtype of `value`, fresh from tracing."""
    if not isinstance(value, FakeTensor):
        return value
    with mode:
        fresh = torch.empty_strided(
            value.size(), value.stride(), dtype=value.dtype, device=value.device
        )
    return fresh.requires_grad_(value.requires_grad)
