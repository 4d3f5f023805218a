"""The architecture search: a space of architectures, evaluated by real training and by latency on
the graph that our compiler rewrote, explored by an Optuna sampler, here or on Ray.

It may import `formwright.compiler` (only `evaluate/latency.py` does); it must not know the service,
gRPC or SQLAlchemy. Everything is loaded on first use (PEP 562), so that specs need no torch.
The flow: `search_spec.py` -> `run/loop.py` -> `propose/` -> `evaluate/` -> `run/log.py` ->
`front.py`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ != "formwright.search":
    raise ImportError("import formwright.search, not search")

from ..extras import needs

if TYPE_CHECKING:
    from .artefact.folder import load as load
    from .artefact.make import Kept as Kept
    from .artefact.make import keep as keep
    from .blocks import BLOCKS as BLOCKS
    from .budget import UNITS as UNITS
    from .budget import Budget as Budget
    from .cost import cost_of as cost_of
    from .describe import pattern as pattern
    from .drawing import draw as draw
    from .ends import HEADS as HEADS
    from .ends import STEMS as STEMS
    from .errors import EvaluationError as EvaluationError
    from .errors import Fenced as Fenced
    from .errors import PoolError as PoolError
    from .errors import SearchError as SearchError
    from .errors import SpecError as SpecError
    from .errors import UnknownNameError as UnknownNameError
    from .evaluate.cache import cache_folder as cache_folder
    from .fidelity import kendall as kendall
    from .fidelity import ranking_fidelity as ranking_fidelity
    from .front import UNNAMED as UNNAMED
    from .front import dominates as dominates
    from .front import joins as joins
    from .front import machine_of as machine_of
    from .front import pareto as pareto
    from .front import same_machine as same_machine
    from .local import make_pool as make_pool
    from .local import run_search as run_search
    from .model import build as build
    from .norms import NORMS as NORMS
    from .objective import METRICS as METRICS
    from .objective import Constraint as Constraint
    from .objective import Direction as Direction
    from .objective import Measurement as Measurement
    from .objective import Metric as Metric
    from .objective import metric_named as metric_named
    from .outlook import Plan as Plan
    from .outlook import count_settings as count_settings
    from .outlook import plan_of as plan_of
    from .propose import SAMPLERS as SAMPLERS
    from .propose.study_export import to_study as to_study
    from .propose.study_writer import study_url as study_url
    from .result import Result as Result
    from .run.file_log import FileLog as FileLog
    from .run.log import MemoryLog as MemoryLog
    from .run.log import TrialLog as TrialLog
    from .run.log import answered as answered
    from .run.log import refused as refused
    from .run.loop import drive as drive
    from .run.pool import Pool as Pool
    from .search_checks import PROXY_NAMES as PROXY_NAMES
    from .search_spec import SearchSpec as SearchSpec
    from .show.board import Board as Board
    from .show.figure import Figure as Figure
    from .show.figures import growth_figure as growth_figure
    from .show.figures import pareto_figures as pareto_figures
    from .show.growths import growths as growths
    from .show.html.assets import asset as asset
    from .show.html.report import report_page as report_page
    from .show.html.report import save_report as save_report
    from .show.html.templates import templates as templates
    from .show.live import drawn as drawn
    from .show.picture import picture as picture
    from .show.summary import as_text as as_text
    from .show.summary import summary as summary
    from .show.tables import arrow as arrow
    from .show.tables import front_table as front_table
    from .show.tables import trials_table as trials_table
    from .space import SPACES as SPACES
    from .spec import ArchSpec as ArchSpec
    from .spec import BlockSpec as BlockSpec
    from .spec import LayerSpec as LayerSpec
    from .spec import StageSpec as StageSpec
    from .spelling import canonical as canonical
    from .tasks import TASKS as TASKS
    from .trial import Trial as Trial
    from .trial import TrialState as TrialState
    from .trial import follows as follows
    from .whole import write_whole as write_whole

# name -> the module that owns it
_LAZY = {
    "run_search": ".local",
    "make_pool": ".local",
    "drive": ".run.loop",
    "Pool": ".run.pool",
    "build": ".model",
    "canonical": ".spelling",
    "cost_of": ".cost",
    "draw": ".drawing",
    "pattern": ".describe",
    "NORMS": ".norms",
    "STEMS": ".ends",
    "HEADS": ".ends",
    "Result": ".result",
    "to_study": ".propose.study_export",
    "study_url": ".propose.study_writer",
    "keep": ".artefact.make",
    "Kept": ".artefact.make",
    "load": ".artefact.folder",
    "summary": ".show.summary",
    "as_text": ".show.summary",
    "picture": ".show.picture",
    "Board": ".show.board",
    "drawn": ".show.live",
    "Figure": ".show.figure",
    "pareto_figures": ".show.figures",
    "growth_figure": ".show.figures",
    "growths": ".show.growths",
    "asset": ".show.html.assets",
    "report_page": ".show.html.report",
    "save_report": ".show.html.report",
    "write_whole": ".whole",
    "templates": ".show.html.templates",
    "front_table": ".show.tables",
    "trials_table": ".show.tables",
    "arrow": ".show.tables",
    "kendall": ".fidelity",
    "ranking_fidelity": ".fidelity",
    "pareto": ".front",
    "dominates": ".front",
    "UNNAMED": ".front",
    "same_machine": ".front",
    "joins": ".front",
    "machine_of": ".front",
    "SearchSpec": ".search_spec",
    "ArchSpec": ".spec",
    "LayerSpec": ".spec",
    "StageSpec": ".spec",
    "BlockSpec": ".spec",
    "Trial": ".trial",
    "TrialState": ".trial",
    "Metric": ".objective",
    "METRICS": ".objective",
    "metric_named": ".objective",
    "Direction": ".objective",
    "Constraint": ".objective",
    "Measurement": ".objective",
    "TrialLog": ".run.log",
    "follows": ".trial",
    "refused": ".run.log",
    "answered": ".run.log",
    "BLOCKS": ".blocks",
    "UNITS": ".budget",
    "PROXY_NAMES": ".search_checks",
    "Budget": ".budget",
    "SPACES": ".space",
    "Plan": ".outlook",
    "count_settings": ".outlook",
    "plan_of": ".outlook",
    "TASKS": ".tasks",
    "SAMPLERS": ".propose",
    "MemoryLog": ".run.log",
    "FileLog": ".run.file_log",
    "SearchError": ".errors",
    "SpecError": ".errors",
    "UnknownNameError": ".errors",
    "EvaluationError": ".errors",
    "PoolError": ".errors",
    "Fenced": ".errors",
    "cache_folder": ".evaluate.cache",
}

__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needs("search", f"{__name__}.{name}"):
        return getattr(import_module(_LAZY[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
