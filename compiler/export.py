"""The same passes for `torch.export` users: an exported program in, a rewritten one out.

Signature, weights and input and output specs stay; only what can be decided from the graph alone
is rewritten (nothing is prepared or dispatched at run time: a program has no prologue).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .graph import fake, to_text
from .instruments import instruments
from .lower import target
from .options import Options
from .pipeline import Pipeline, check_names
from .report import CAPTURE, current_report
from .torch_compat import replace_graph


def transform(
    exported_program: torch.export.ExportedProgram, options: Mapping[str, Any] | None = None
) -> torch.export.ExportedProgram:
    """`exported_program` with its graph rewritten; the given one is not changed.

    Use it on what `torch.export.export` returns, before `run_decompositions`: afterwards softmax,
    dropout and attention are no longer whole and nothing is found. The report goes to `collect()`.
    Called under `torch.no_grad()` the result is for inference; otherwise it may be trained too.
    Raises TypeError, UnknownNameError or OptionError.
    """
    given_program: Any = exported_program
    if not isinstance(given_program, torch.export.ExportedProgram):
        given = type(given_program).__name__
        raise TypeError(
            f"transform takes an ExportedProgram (torch.export.export(model, inputs)), not {given}"
        )
    chosen = Options.of(options)
    target(chosen.target, chosen.target_options)
    check_names(chosen)
    report = current_report()
    module = exported_program.graph_module
    _mark_inputs(exported_program)
    number = report.start_graph()
    report.hash_graph(to_text(module.graph))
    report.record(CAPTURE, sites=1, rewritten=1)  # it is in the dialect as it comes
    graph = Pipeline.of(chosen, report, instruments(number)).straight(module)
    program: torch.export.ExportedProgram = replace_graph(exported_program, graph)
    return program


def _mark_inputs(program: torch.export.ExportedProgram) -> None:
    """Say of each input whether a gradient may be wanted, as a captured graph does: a parameter's
    own word, and of the user's inputs any that can have one."""
    parameters = program.graph_signature.inputs_to_parameters
    for node in program.graph.find_nodes(op="placeholder"):
        value = fake(node)
        name = parameters.get(node.name)
        wanted = value is not None and value.is_floating_point()
        if name is not None:
            wanted = program.state_dict[name].requires_grad
        node.meta["requires_grad"] = wanted
