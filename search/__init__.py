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

if TYPE_CHECKING:
    from .blocks import BLOCKS as BLOCKS
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
    from .front import dominates as dominates
    from .front import machine_of as machine_of
    from .front import pareto as pareto
    from .front import same_machine as same_machine
    from .local import make_pool as make_pool
    from .local import run_search as run_search
    from .model import build as build
    from .norms import NORMS as NORMS
    from .objective import METRICS as METRICS
    from .objective import Direction as Direction
    from .objective import Measurement as Measurement
    from .objective import Metric as Metric
    from .objective import metric_named as metric_named
    from .propose import SAMPLERS as SAMPLERS
    from .result import Result as Result
    from .run.log import MemoryLog as MemoryLog
    from .run.log import TrialLog as TrialLog
    from .run.log import refused as refused
    from .run.loop import drive as drive
    from .run.pool import Pool as Pool
    from .search_spec import SearchSpec as SearchSpec
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
    "pareto": ".front",
    "dominates": ".front",
    "same_machine": ".front",
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
    "Measurement": ".objective",
    "TrialLog": ".run.log",
    "follows": ".trial",
    "refused": ".run.log",
    "BLOCKS": ".blocks",
    "SPACES": ".space",
    "TASKS": ".tasks",
    "SAMPLERS": ".propose",
    "MemoryLog": ".run.log",
    "SearchError": ".errors",
    "SpecError": ".errors",
    "UnknownNameError": ".errors",
    "EvaluationError": ".errors",
    "PoolError": ".errors",
    "Fenced": ".errors",
}

__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
