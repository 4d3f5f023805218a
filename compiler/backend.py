"""The backend behind `torch.compile(model, backend="formwright")`.

The whole flow is `compile_graph`: capture -> pipeline -> dispatch -> lowering. Around it one rule:
if our own code cannot take a graph, the graph is compiled as it is, and the report says why.
It must not know what any pass does. Next: `capture.py`, `pipeline.py`, `dispatch.py`, `lower.py`.
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import fx

from .capture import capture
from .dispatch import Dispatcher, Leaf
from .errors import Declined, FormwrightWarning
from .graph import to_text
from .instruments import instruments
from .lower import Target, target
from .module_floats import ModuleFloats
from .options import Options
from .passes.contract import Pass
from .pipeline import PASSES, Pipeline, check_names
from .report import CAPTURE, Decline, Reason, Report, current_report, describe
from .torch_compat import CONTROL_FLOW, trace_structured
from .variants import Lowering

log = logging.getLogger(__name__)


def backend(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """What Dynamo calls with each graph. `mode` and `options` come from `torch.compile`.

    Raises UnknownNameError or OptionError for options that are not known, and whatever the target
    raises on the graph as it is.
    """
    chosen = Options.of(options)
    lower = target(chosen.target, chosen.target_options, mode)
    check_names(chosen)
    _floats.make_constant(gm)
    try:
        compiled = compile_or_fall_back(gm, example_inputs, chosen, lower, current_report())
    except CONTROL_FLOW:  # Dynamo comes back with the same frame
        raise
    except Exception:
        _floats.compiled()
        raise
    _floats.compiled()
    return compiled


_floats = ModuleFloats()
backend.reset = _floats.forget  # type: ignore[attr-defined]  # called by torch._dynamo.reset


def compile_or_fall_back(
    gm: fx.GraphModule,
    inputs: Sequence[Any],
    options: Options,
    lower: Target,
    report: Report,
    passes: Sequence[Pass] = PASSES,
) -> Callable[..., Any]:
    """`compile_graph`, or the target alone where that declines or fails."""
    number = report.start_graph()
    try:
        with report.dropped_on_error():
            return compile_graph(gm, inputs, options, lower, report, number, passes)
    except CONTROL_FLOW:
        raise
    except Declined as declined:
        log.info("graph not taken: %s", declined)
        if declined.reason is Reason.TARGET_FAILED:
            warnings.warn(
                f"formwright: a graph is compiled as it is. {declined}",
                FormwrightWarning,
                stacklevel=2,
            )
        row = Decline("", "graph", "", declined.reason, str(declined))
    except Exception as error:
        row = _internal_error(error)
    report.record(CAPTURE, sites=1, declined=(row,))
    return lower(gm, inputs)


def compile_graph(
    gm: fx.GraphModule,
    inputs: Sequence[Any],
    options: Options,
    lower: Target,
    report: Report,
    number: int,
    passes: Sequence[Pass] = PASSES,
) -> Callable[..., Any]:
    """Capture, rewrite, and lower the variant that is expected to run; the others on need.

    Raises Declined where the graph cannot be taken.
    """
    started = time.perf_counter()
    captured = capture(gm, inputs, lower.name)
    ms = (time.perf_counter() - started) * 1e3
    report.hash_graph(to_text(captured.module.graph))

    pipeline = Pipeline.of(options, report, instruments(number), passes)
    tree = pipeline.expand(captured.module)

    lowering = Lowering(captured, lower, report, number, options)
    dispatcher = Dispatcher(tree, lowering, captured.module)
    first = dispatcher.first
    first.executable, first.guards = lowering.while_compiling(first.graph, first.name, inputs)

    report.record(CAPTURE, sites=1, rewritten=1, ms=ms)
    _publish(report)
    if isinstance(tree, Leaf) and tree.executable is not None:
        return tree.executable  # nothing to decide: nothing in the way
    return dispatcher


def _internal_error(error: Exception) -> Decline:
    row = describe(error, "graph")
    warnings.warn(
        f"formwright could not rewrite a graph; it is compiled as it is. {row.reason}",
        FormwrightWarning,
        stacklevel=2,
    )
    log.debug("fallback", exc_info=error)
    return row


def _publish(report: Report) -> None:
    """The report on the log (`TORCH_LOGS="formwright"`) and in the structured trace."""
    log.info("graph %s\n%s", report.graph_hash, report)
    trace_structured(
        "artifact",
        metadata_fn=lambda: {"name": f"formwright_{report.graph_hash}", "encoding": "json"},
        payload_fn=lambda: json.dumps(report.to_dict()),
    )
