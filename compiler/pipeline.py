"""The pipeline: which passes run, in which order, and how one is run safely.

A pass works on a copy. If it raises or leaves a broken graph, its work is dropped, the report says
so, and the run goes on: our mistake costs speed, never the user's run. A pass that returns a
derivation splits the road: behind it the graph holds only where the derivation does, and the
graph before it goes through the remaining passes when it is first needed.
It must not know what any pass does. To add a pass: write `passes/<name>.py`, add a row here.
"""

from __future__ import annotations

import dataclasses
import functools
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from .dispatch import Choice, Leaf
from .errors import FormwrightWarning, UnknownNameError
from .facts import Facts
from .graph import copy_graph
from .instruments import Instrument
from .options import Options
from .passes.attention import fuse_attention, fuse_attention_by_call
from .passes.contract import Derivation, Outcome, Pass, RunPass
from .passes.dead_code import remove_dead_code
from .passes.demand_tokens import demand_tokens
from .passes.equate_norms import equate_norms
from .passes.fold_norms import fold_norms
from .passes.functionalise import functionalise
from .passes.hoist_weights import hoist_weights
from .passes.identities import remove_identities
from .passes.lower_norms import lower_norms, lower_norms_wanted
from .passes.merge_projections import merge_projections
from .passes.open_layers import open_layers
from .passes.raise_norms import raise_norms
from .passes.remove_padding import remove_padding
from .passes.shorten_norms import shorten_norms, shorten_norms_by_call
from .report import Report, describe

PASSES: tuple[Pass, ...] = (
    Pass("remove_dead_code", remove_dead_code),
    Pass("functionalise", functionalise),
    Pass("open_layers", open_layers),
    Pass("remove_identities", remove_identities),
    Pass("raise_norms", raise_norms, wanted=lambda o: o.norm != "off"),
    Pass("fuse_attention", fuse_attention, fuse_attention_by_call, lambda o: o.attention),
    Pass("remove_dead_code", remove_dead_code),
    Pass("fold_norms", fold_norms, wanted=lambda o: o.norm in ("rms", "crms")),
    Pass("shorten_norms", shorten_norms, shorten_norms_by_call, lambda o: o.norm == "crms"),
    Pass("equate_norms", equate_norms, wanted=lambda o: o.norm != "off"),
    Pass("demand_tokens", demand_tokens, wanted=lambda o: o.demand),
    Pass("remove_padding", speculate=remove_padding, wanted=lambda o: o.padding != "off"),
    Pass("remove_dead_code", remove_dead_code),
    Pass("lower_norms", speculate=lower_norms, wanted=lower_norms_wanted),
    Pass("merge_projections", speculate=merge_projections),
    Pass("hoist_weights", speculate=hoist_weights),
)


def check_names(options: Options) -> None:
    """Raises UnknownNameError if a pass is to be disabled that there is not."""
    known = {p.name for p in PASSES}
    for name in options.disable:
        if name not in known:
            raise UnknownNameError("pass to disable", name, known)


@dataclass(frozen=True)
class Pipeline:
    """The passes chosen by the options, and where their work is recorded."""

    passes: tuple[Pass, ...]
    options: Options
    report: Report
    instruments: tuple[Instrument, ...] = ()

    @classmethod
    def of(
        cls,
        options: Options,
        report: Report,
        instruments: tuple[Instrument, ...] = (),
        passes: Sequence[Pass] = PASSES,
    ) -> Pipeline:
        """The passes that `options` want."""
        chosen = tuple(p for p in passes if p.wanted(options) and p.name not in options.disable)
        return cls(chosen, options, report, instruments)

    def expand(self, module: fx.GraphModule) -> Leaf | Choice:
        """Run all passes on the graph of `module`; the variants that come of it, as a tree."""
        return self._expand(module, module.graph, 0, ())

    def straight(self, module: fx.GraphModule) -> fx.Graph:
        """Run the passes in the form that needs no dispatch; the graph that comes of it."""
        graph = module.graph
        for row in self.passes:
            if row.run is not None:
                graph, _ = self._run(row.name, row.run, graph)
        return graph

    def _expand(
        self, root: fx.GraphModule, graph: fx.Graph, start: int, held: tuple[str, ...]
    ) -> Leaf | Choice:
        for i in range(start, len(self.passes)):
            row, before = self.passes[i], graph
            run = row.speculate or row.run
            if run is None:
                continue
            graph, derivation = self._run(row.name, run, graph)
            if derivation is not None:
                holds = self._expand(root, graph, i + 1, (*held, derivation.name))
                otherwise = functools.partial(self._otherwise, root, before, i, held)
                return Choice(derivation, holds, otherwise)
        return Leaf("+".join(held) or "general", fx.GraphModule(root, graph))

    def _otherwise(
        self, root: fx.GraphModule, graph: fx.Graph, i: int, held: tuple[str, ...]
    ) -> Leaf | Choice:
        """The other side of a choice: pass `i` in its plain form, then the rest as usual. The sites
        were counted on the first side, so what happens here is not reported again."""
        quiet = dataclasses.replace(self, report=Report(), instruments=())
        row = self.passes[i]
        if row.run is not None:
            graph, _ = quiet._run(row.name, row.run, graph)
        return quiet._expand(root, graph, i + 1, held)

    def _run(self, name: str, run: RunPass, graph: fx.Graph) -> tuple[fx.Graph, Derivation | None]:
        """One pass on a copy of the graph, which takes its place if all went well."""
        self._show("before", name, graph)
        started = time.perf_counter()
        copy = copy_graph(graph)
        try:
            outcome = run(copy, Facts(copy), self.options)
            copy.lint()
        except Exception as error:
            outcome = _failed(name, error)
        if outcome.rewritten or outcome.derivation is not None:
            graph = copy
        self.report.record(
            name,
            sites=outcome.sites,
            rewritten=outcome.rewritten,
            declined=tuple(outcome.declined),
            ms=(time.perf_counter() - started) * 1e3,
        )
        self.report.prepared_bytes += outcome.prepared_bytes
        self._show("after", name, graph, outcome.rewritten)
        return graph, outcome.derivation

    def _show(self, moment: str, *what: Any) -> None:
        """Show the graph to every instrument; one that fails costs its own output only."""
        for instrument in self.instruments:
            try:
                getattr(instrument, moment)(*what)
            except Exception as error:
                name = type(instrument).__name__
                warnings.warn(
                    f"formwright: {name} failed: {error}", FormwrightWarning, stacklevel=2
                )


def _failed(name: str, error: Exception) -> Outcome:
    row = describe(error, name)
    warnings.warn(
        f"formwright: pass {name!r} failed and was skipped; the model runs without. {row.reason}",
        FormwrightWarning,
        stacklevel=2,
    )
    return Outcome(declined=[row])
