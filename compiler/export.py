"""The same passes for `torch.export` users: an exported program in, a rewritten one out.

Signature, weights and input and output specs stay; only what can be decided from the graph alone
is rewritten (nothing is prepared or dispatched at run time: a program has no prologue).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .graph import to_text
from .instruments import instruments
from .options import Options
from .pipeline import Pipeline
from .report import current_report
from .torch_compat import replace_graph


def transform(
    exported_program: torch.export.ExportedProgram, options: Mapping[str, Any] | None = None
) -> torch.export.ExportedProgram:
    """`exported_program` with its graph rewritten; the given one is not changed.

    Use it on what `torch.export.export` returns, before `run_decompositions`: afterwards softmax,
    dropout and attention are no longer whole and nothing is found. The report goes to `collect()`.
    Raises UnknownNameError or OptionError.
    """
    chosen = Options.of(options)
    report = current_report()
    module = exported_program.graph_module
    number = report.start_graph()
    report.hash_graph(to_text(module.graph))
    graph = Pipeline.of(chosen, report, instruments(number)).straight(module)
    program: torch.export.ExportedProgram = replace_graph(exported_program, graph)
    return program
