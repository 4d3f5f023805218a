"""For authors of passes, here and outside: state what a pass does as Before and Expected.

    assert_rewrites(fuse_attention, before, expected, q, k, v)
    assert_declines(fuse_attention, before, q, k, v, code=Reason.OTHER_AXIS)

Both run the pass alone on the captured graph. `assert_rewrites` checks the law too: values and
gradients of the graph before and after, for the inputs as they are and in float64.
It is not imported by the rest of the compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from .backend import compile_or_fall_back
from .capture import Captured, capture
from .facts import Facts
from .graph import to_text
from .lower import target
from .options import Options
from .passes.contract import Outcome, Pass, RunPass
from .passes.dead_code import remove_dead_code
from .passes.subgraph import ancestors
from .report import Reason, Report
from .verify import compare

# What a report must never say of a program that we took, however strange the program.
FAILURES = frozenset({Reason.INTERNAL_ERROR, Reason.TARGET_FAILED, Reason.VERIFY_FAILED})


def capture_call(
    function: Callable[..., Any], *inputs: Any, target_name: str = "inductor", **keywords: Any
) -> tuple[Captured, list[Any]]:
    """The one graph of `function(*inputs)` in the dialect, and its real inputs with the weights."""
    found: list[tuple[Captured, list[Any]]] = []

    def keep(gm: fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
        real = [x.node.hint if isinstance(x, torch.SymInt) else x for x in example_inputs]
        found.append((capture(gm, example_inputs, target_name), real))
        return gm

    torch.compiler.reset()
    torch.compile(function, backend=keep, fullgraph=True, **keywords)(*inputs)
    if len(found) != 1:
        raise ValueError(f"{len(found)} graphs were compiled, not one")
    return found[0]


def run_pass(run: RunPass, module: fx.GraphModule, options: Options | None = None) -> Outcome:
    """Run one pass on a captured graph, in place, and check that the graph is whole afterwards."""
    outcome = run(module.graph, Facts(module.graph), options or Options())
    module.graph.lint()
    module.recompile()
    return outcome


def assert_rewrites(
    run: RunPass,
    before: Callable[..., Any],
    expected: Callable[..., Any],
    *inputs: Any,
    options: Options | None = None,
    sites: int = 1,
    double: bool = True,
    **keywords: Any,
) -> None:
    """`before` becomes the graph of `expected` at `sites` sites, and both compute the same: values
    and gradients, for `inputs` as they are and (unless `double` is off) in float64."""
    for given in (inputs, tuple(map(_double, inputs))) if double else (inputs,):
        captured, real = capture_call(before, *given, **keywords)
        outcome = run_pass(run, captured.module, options)
        if outcome.rewritten != sites:
            raise AssertionError(f"{outcome.rewritten} of {sites} rewritten: {outcome.declined}")
        wanted, _ = capture_call(expected, *given, **keywords)
        run_pass(remove_dead_code, captured.module)
        run_pass(remove_dead_code, wanted.module)
        got, want = _shape(captured.module.graph), _shape(wanted.module.graph)
        if got != want:
            raise AssertionError(f"after the pass:\n{got}\n\nexpected:\n{want}")
        original, _ = capture_call(before, *given, **keywords)
        difference = compare(captured.module, original.module, real, len(real))
        if difference is not None:
            raise AssertionError(f"before and after differ: {difference}")


def assert_declines(
    run: RunPass,
    before: Callable[..., Any],
    *inputs: Any,
    code: Reason,
    options: Options | None = None,
    **keywords: Any,
) -> Outcome:
    """The pass leaves every site of `before` as it is, for the reason `code`, graph untouched."""
    captured, _ = capture_call(before, *inputs, **keywords)
    text = to_text(captured.module.graph)
    outcome = run_pass(run, captured.module, options)
    codes = [d.code for d in outcome.declined]
    if outcome.rewritten or not codes or set(codes) != {code}:
        raise AssertionError(f"{outcome.rewritten} sites rewritten; declined: {outcome.declined}")
    if to_text(captured.module.graph) != text:
        raise AssertionError("the graph was changed")
    return outcome


def compile_with(
    passes: Sequence[Pass],
    function: Callable[..., Any],
    report: Report,
    *,
    options: Options | None = None,
    **keywords: Any,
) -> Callable[..., Any]:
    """`torch.compile` with this backend and another list of passes; fills `report`."""
    chosen = options or Options(target="eager")
    lower = target(chosen.target, chosen.target_options)

    def with_passes(gm: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        return compile_or_fall_back(gm, inputs, chosen, lower, report, passes)

    return torch.compile(function, backend=with_passes, **keywords)


def _shape(graph: fx.Graph) -> str:
    """The graph as text, numbered from the output back, inputs by name: equal for two graphs that
    differ in the order of independent nodes only."""
    return to_text(graph, ancestors(graph.output_node()))


def _double(x: Any) -> Any:
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        return x
    return x.detach().double().requires_grad_(x.requires_grad)
