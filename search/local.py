"""`run_search`: a search without a service, in this process or on Ray.

It must not know the service. Next: `run/loop.py`, which does the work.
"""

from __future__ import annotations

from contextlib import nullcontext

from ..extras import needs
from .evaluate.evaluator import evaluate
from .result import Result
from .run.log import MemoryLog, TrialLog
from .run.loop import drive
from .run.pool import Pool, SerialPool
from .search_spec import SearchSpec
from .show.live import showing
from .trial import Trial


def run_search(
    spec: SearchSpec,
    *,
    workers: int = 0,
    log: TrialLog | None = None,
    pool: Pool | None = None,
    progress: bool = True,
) -> Result:
    """Runs a search to its end and returns what it found.

    `workers` is the number of Ray worker processes; with 0 everything runs in this process. A
    `log` that holds trials already is gone on from. `pool` brings workers of your own, which stay
    open. On standard error a terminal shows how far it is and the front so far, anything else has
    a few lines, unless `progress` is False. Raises SpecError, or PoolError if Ray does not start.
    """
    log = log if log is not None else MemoryLog()
    workforce = pool or make_pool(workers, spec.threads)
    try:
        with showing(spec, log.history()) if progress else nullcontext(_silent) as seen:
            drive(spec, workforce, log, seen)
    finally:
        if pool is None:
            workforce.close()
    return Result(spec, tuple(log.history()))


def make_pool(workers: int, threads: int = 1, address: str | None = None) -> Pool:
    """A pool that evaluates candidates: `workers` Ray actors, or this process if 0."""
    if not workers:
        return SerialPool(evaluate)
    with needs("search", "a pool with workers"):
        from .run.ray_pool import RayPool  # ray is loaded by those who ask for it

    return RayPool(evaluate, workers, threads=threads, address=address)


def _silent(trial: Trial) -> None:
    """For whoever wants to see nothing."""
