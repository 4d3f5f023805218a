"""Workers as Ray actors, on this machine or a cluster: the one file that imports ray.

An actor evaluates one candidate at a time and is never restarted by Ray: a lost one is an outcome,
and the log's attempt number is the fence. Ray executes; it keeps nothing that matters. It must not
know what a search is. Next: `reaper.py`, which ends what a killed process leaves behind.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.exceptions import RayActorError, RayError

from ...errors import one_line
from ..errors import PoolError
from .pool import Evaluate, Job, Outcome, attempt
from .reaper import Reaper

CONNECT_S = 5.0
START_S = 120.0
# Ray gives its own node 30 s to register, which a busy machine may need for something else
TIMED_OUT = "The current node timed out during startup"
LONGEST = 25  # characters
OBJECT_STORE = 80 * 2**20  # bytes; measurements are small, and Ray would take 30 % of the memory


@dataclass
class _Running:
    job: Job
    actor: Any
    ends: float


class RayPool:
    """`workers` actors of `threads` threads each, on the cluster at `address` ("host:port", or
    "ray://host:port" for its client server), or on one started here for as long as the pool is
    open. On a cluster each asks for `cpus` CPUs, which may be a fraction; for as many as it has
    threads by default. A candidate ends itself at its time limit; a worker that
    has not after another `grace_s` is ended. Raises PoolError if Ray cannot be started."""

    def __init__(
        self,
        evaluate: Evaluate,
        workers: int,
        *,
        threads: int = 1,
        address: str | None = None,
        cpus: float | None = None,
        grace_s: float = 30.0,
    ) -> None:
        if workers < 1:
            raise PoolError(f"wanted one worker or more, got {workers}")
        if cpus is not None and not (0 <= cpus <= 1 or (cpus > 1 and cpus == int(cpus))):
            raise PoolError(f"wanted a whole number of CPUs, or a part of one, got {cpus}")
        self.slots = workers
        self._grace_s = grace_s
        self._cpus = _RAY.join(workers, threads if cpus is None else cpus, address)
        self._closed = False
        self._idle: list[Any] = []
        self._running: dict[Any, _Running] = {}
        self._ready: dict[Any, Any] = {}  # by actor: done once it has started
        try:
            self._evaluate = ray.put(evaluate)
            self._idle = [self._actor() for _ in range(workers)]
            ray.get(list(self._ready.values()), timeout=START_S)
        except BaseException as error:
            self.close()
            if isinstance(error, RayError):
                raise PoolError(f"the workers did not start: {_why(error)}") from error
            raise

    def _actor(self) -> Any:
        make = ray.remote(num_cpus=self._cpus, max_restarts=0, max_task_retries=0)(_Worker)
        actor: Any = make.remote(self._evaluate)
        self._ready[actor] = actor.ready.remote()
        return actor

    def submit(self, job: Job) -> None:
        if self._closed or not self._idle:
            raise PoolError("the pool is closed" if self._closed else "every slot is taken")
        actor = self._idle.pop()
        ends = time.monotonic() + job.evaluation.timeout_s + self._grace_s
        with _ray_may_be_gone():
            self._running[actor.run.remote(job)] = _Running(job, actor, ends)

    def wait(self, timeout_s: float) -> list[Outcome]:
        if not self._running:
            return []
        with _ray_may_be_gone():
            ready, _ = ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
            if ready:  # and whatever else is there by now
                ready, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
            outcomes = [self._collect(reference) for reference in ready]
            now = time.monotonic()
            late = [reference for reference, run in self._running.items() if run.ends < now]
            return outcomes + [self._end(reference) for reference in late]

    def _collect(self, reference: Any) -> Outcome:
        run = self._running.pop(reference)
        try:
            outcome: Outcome = ray.get(reference)
        except RayActorError as error:
            self._replace(run.actor)
            return Outcome(run.job, error=f"the worker was lost: {_why(error)}", lost=True)
        except RayError as error:  # the outcome itself could not be brought here
            self._replace(run.actor)
            return Outcome(run.job, error=one_line(f"{type(error).__name__}: {error}"), lost=True)
        self._idle.append(run.actor)
        return outcome

    def _end(self, reference: Any) -> Outcome:
        run = self._running.pop(reference)
        started, _ = ray.wait([self._ready.pop(run.actor)], timeout=0)
        self._replace(run.actor)
        limit = run.job.evaluation.timeout_s
        if not started:  # no place was found for it: the candidate has not been tried
            return Outcome(run.job, error=f"no worker within {limit} s", lost=True)
        return Outcome(run.job, error=f"did not end within {limit} s and was ended")

    def _replace(self, actor: Any) -> None:
        self._ready.pop(actor, None)
        ray.kill(actor)
        self._idle.append(self._actor())

    def stop(self) -> None:
        running, self._running = self._running, {}
        with _ray_may_be_gone():
            for run in running.values():
                self._replace(run.actor)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if ray.is_initialized():  # or somebody has ended it meanwhile; asking would start another
            for actor in [*self._idle, *(run.actor for run in self._running.values())]:
                with suppress(RayError):
                    ray.kill(actor)
        self._idle, self._running = [], {}
        _RAY.leave()


class _Worker:
    """The actor: holds what evaluates, and whatever that keeps warm."""

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate

    def ready(self) -> None:
        pass

    def run(self, job: Job) -> Outcome:
        return attempt(self._evaluate, job)


@contextmanager
def _ray_may_be_gone() -> Iterator[None]:
    """Whatever Ray raises about itself becomes a PoolError: the pool is of no use any more."""
    try:
        yield
    except RayError as error:
        raise PoolError(f"Ray has failed: {_why(error)}") from error


def _nothing() -> None:
    pass


class _Ray:
    """The one Ray that a process can have, shared by its pools: the first that comes starts it, or
    finds it up; the last that goes ends what was started here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pools = 0
        self._end: Callable[[], None] = _nothing
        self._local = False

    def join(self, workers: int, cpus: float, address: str | None) -> float:
        """The CPUs that an actor asks Ray for. Raises PoolError."""
        with self._lock:
            if self._pools and self._local and address is not None:
                raise PoolError(f"a local Ray is up for other pools; close them to use {address}")
            if not self._pools:
                self._local = not ray.is_initialized() and address is None
                self._end = _start(max(1, round(workers * cpus)), address)
            self._pools += 1
        # One that was started here is only for our pools, which bound their actors themselves.
        if self._local:
            return 0
        has = ray.cluster_resources().get("CPU", 0)
        if has < workers * cpus:
            self.leave()
            wants = f"{workers} workers of {cpus:g} CPUs each want {workers * cpus:g}"
            raise PoolError(f"{wants}, Ray has {has:g}")
        return cpus

    def leave(self) -> None:
        with self._lock:
            self._pools -= 1
            if not self._pools:
                self._end()
                self._end = _nothing


_RAY = _Ray()


def _start(cpus: int, address: str | None) -> Callable[[], None]:
    """Connects to Ray, or starts it; returns what undoes it. A Ray that was up already stays up."""
    if ray.is_initialized():
        return _nothing
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report to its makers
    if address is not None:
        return connect(address)
    try:
        return _start_here(cpus)
    except PoolError as error:
        if TIMED_OUT not in str(error):
            raise
    return _start_here(cpus)


def _start_here(cpus: int) -> Callable[[], None]:
    """Starts a Ray of our own; returns what ends it. One that does not start leaves nothing."""
    here = tempfile.gettempdir()
    # Ray puts sockets some 70 characters below, and their paths end at 107
    try:
        folder = tempfile.mkdtemp(prefix="fw-ray-", dir=here if len(here) <= LONGEST else "/tmp")
    except OSError as error:
        raise PoolError(f"no folder for Ray's files: {error}") from error
    reaper = Reaper(folder)

    def close() -> None:
        ray.shutdown()
        reaper.close()

    try:
        before = set(psutil.Process().children(recursive=True))
        _init(num_cpus=cpus, object_store_memory=OBJECT_STORE, _temp_dir=folder)
        started = set(psutil.Process().children(recursive=True)) - before
        reaper.watch([process for process in started if _is_ray(process)])
    except BaseException:  # an interruption too: it takes seconds
        close()
        raise
    return close


def connect(address: str) -> Callable[[], None]:
    """Joins a cluster; returns what leaves it. Raises PoolError."""
    _check_listens(address)
    _init(address=address)
    return ray.shutdown


def _init(**options: Any) -> None:
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)  # its hints are for people who set up clusters
    try:
        ray.init(
            namespace="formwright",
            include_dashboard=False if "address" not in options else None,
            log_to_driver=False,
            configure_logging=False,
            **options,
        )
    except Exception as error:
        hint = "; if it wants a token, give it in RAY_AUTH_TOKEN" if "address" in options else ""
        raise PoolError(one_line(f"Ray did not start: {error}") + hint) from error
    finally:
        logger.setLevel(level)


def _check_listens(address: str) -> None:
    """Ray itself would try for minutes. Raises PoolError if nobody listens at `host:port`."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():  # "auto", or another of Ray's spellings
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_S).close()
    except OSError as error:
        raise PoolError(f"no Ray cluster answers at {address}: {error}") from error


def _is_ray(process: psutil.Process) -> bool:
    try:
        return "ray" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _why(error: RayError) -> str:
    """Ray's reason in one line; the rest of its message is about our internals."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1].partition("Some common causes")[0] if lines else type(error).__name__
    return one_line(reason, 200)
