"""Chaos: a real search on Ray workers, whose workers and driver are killed at random, and what must
hold all the same.

    report = chaos(folder, workers=2, kills=16, drivers=4, seed=0)

The search cannot be done before all are killed, however late the kills come: its last trials do not
end until then. Used by the tests in small and by benchmarks/chaos.py for hundreds of kills. It must
not know how a search works. Next: `run/loop.py`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from ..testing_processes import descendants, left, ray_workers
from .errors import SearchError
from .evaluate.evaluator import Evaluation
from .objective import Measurement
from .run.file_log import FileLog
from .run.loop import drive
from .run.pool import SerialPool
from .run.state import State
from .search_spec import SearchSpec
from .trial import Trial, TrialState

PATIENCE_S = 180.0  # without a word from the driver


@dataclass
class Report:
    """What was done, and everything that does not hold; `finished` is how many trials ended."""

    workers_killed: int = 0
    drivers_killed: int = 0
    finished: int = 0
    attempts: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


def spec_of(trials: int, seed: int) -> SearchSpec:
    """A search whose trials are lost as often as it takes."""
    return SearchSpec(trials=trials, seed=seed, sampler="tpe", attempts=100, target="eager")


def slowly(evaluation: Evaluation, hold: Path) -> Measurement:
    """A pure function of the architecture, after 50 to 250 ms, and not while there is a file
    `hold`."""
    number = int(evaluation.architecture.fingerprint()[3:11], 16)
    time.sleep(0.05 + number % 200 / 1000)
    ends = time.monotonic() + PATIENCE_S
    while hold.exists() and time.monotonic() < ends:
        time.sleep(0.02)
    return scored(evaluation)


def scored(evaluation: Evaluation) -> Measurement:
    """The same, at once."""
    number = int(evaluation.architecture.fingerprint()[3:11], 16)
    return Measurement(
        {"quality": number % 97 / 97, "latency_ms": number % 89 + 1.0, "params": number % 83}
    )


def hold_of(path: Path) -> Path:
    """The file that keeps the last trials of the search with this log from ending: its driver makes
    it when few are left, and whoever kills removes it once all are killed."""
    return path.with_suffix(".hold")


def search(path: str, trials: int, seed: int, workers: int) -> None:
    """The driver's process: goes on with the log, and says what it has recorded."""
    from .run.ray_pool import RayPool

    spec, hold = spec_of(trials, seed), hold_of(Path(path))
    pool = RayPool(partial(slowly, hold=hold), workers)
    print("ready", flush=True)
    try:
        log = FileLog(path, spec)
        ended = {trial.number for trial in log.history() if trial.state.final}

        def seen(trial: Trial) -> None:
            if trial.state.final:
                ended.add(trial.number)
            # as many as there are workers may have ended with this one, and as many are running
            if len(ended) >= trials - 3 * workers:
                hold.touch()
            print(trial.number, trial.state.value, flush=True)

        drive(spec, pool, log, seen)
        print("done", flush=True)
    finally:
        pool.close()


def chaos(
    folder: Path,
    *,
    workers: int,
    kills: int,
    drivers: int,
    seed: int,
    trials: int = 60,
    told: Callable[[str], None] = lambda line: None,
) -> Report:
    """Runs a search of `trials` until it is done; meanwhile `kills` workers and `drivers` drivers
    are killed with SIGKILL, at times that `seed` draws: all of them, or the report says so. `told`
    gets a line now and then. Of `drivers` there must be fewer than a search bears over one trial,
    ten, and of `trials` more than three for each worker."""
    rng, report, path = random.Random(seed), Report(), folder / "chaos.jsonl"
    plan = ["worker"] * kills + ["driver"] * drivers
    rng.shuffle(plan)
    acknowledged: list[tuple[int, str]] = []
    started = time.monotonic()
    while True:
        driver = _Driver(path, trials, seed, workers, acknowledged)
        try:
            done = _until_killed(driver, plan, hold_of(path), rng, report)
        finally:
            driver.end()
        told(f"{report.workers_killed} workers and {report.drivers_killed} drivers killed")
        if done:
            break
    report.seconds = time.monotonic() - started
    if plan:
        report.wrong.append(f"the search was done before {len(plan)} kills")
    _check(path, spec_of(trials, seed), acknowledged, workers, report)
    return report


class _Driver:
    """A process that runs `search`; `lines` grow while it lives."""

    def __init__(
        self, path: Path, trials: int, seed: int, workers: int, heard: list[tuple[int, str]]
    ) -> None:
        code = f"from {__name__} import search; search({str(path)!r}, {trials}, {seed}, {workers})"
        self.process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        self.children: set[psutil.Process] = set()
        self.ready, self.done = threading.Event(), threading.Event()
        self.heard, self.last = heard, time.monotonic()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        if self.process.stdout is None:
            return
        for line in self.process.stdout:
            self.last = time.monotonic()
            words = line.decode().split()
            if words == ["ready"]:
                self.ready.set()
            elif words == ["done"]:
                self.done.set()
            elif line.endswith(b"\n") and len(words) == 2:
                self.heard.append((int(words[0]), words[1]))

    def workers(self) -> list[psutil.Process]:
        """Its Ray actors, alive."""
        self.children.update(descendants(self.process.pid))
        return ray_workers(self.process.pid)

    def end(self) -> None:
        """By itself if it is done, else killed; then nothing of it is left."""
        self.workers()
        if not self.done.is_set():
            self.process.kill()
        self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        left(self.children, 30)


def _until_killed(
    driver: _Driver, plan: list[str], hold: Path, rng: random.Random, report: Report
) -> bool:
    """Kills workers by the plan until it is the driver's turn, or the search is done: True then.
    Once nobody is left to kill, the search may end."""
    next_kill = 0.0
    while not driver.done.is_set():
        if not plan:
            hold.unlink(missing_ok=True)  # each time: the driver may make it later
        if driver.process.poll() is not None:
            driver.done.wait(1.0)
            if driver.done.is_set():
                return True
            raise SearchError(f"the driver has ended by itself, with {driver.process.returncode}")
        if time.monotonic() - driver.last > PATIENCE_S:
            raise SearchError(f"the driver has said nothing for {PATIENCE_S:g} s")
        if driver.ready.is_set() and plan and time.monotonic() > next_kill:
            if next_kill and not _kill(driver, plan, report):
                return False
            next_kill = time.monotonic() + rng.uniform(0.05, 0.5)
        time.sleep(0.02)
    return True


def _kill(driver: _Driver, plan: list[str], report: Report) -> bool:
    """The next of the plan; False if it was the driver."""
    if plan[-1] == "driver":
        plan.pop()
        driver.workers()
        driver.process.send_signal(signal.SIGKILL)
        report.drivers_killed += 1
        return False
    if found := driver.workers():
        with suppress(ProcessLookupError):
            os.kill(found[0].pid, signal.SIGKILL)
            plan.pop()
            report.workers_killed += 1
    return True


def _check(
    path: Path, spec: SearchSpec, acknowledged: list[tuple[int, str]], workers: int, report: Report
) -> None:
    """Nothing that was acknowledged is lost, nothing is counted twice, and the suggestions are
    those of the recorded order; with one worker, those of a search that nobody disturbed."""
    log = FileLog(path, spec)
    events, trials = log.events(), log.history()
    log.close()
    recorded = Counter((event.number, event.state.value) for event in events)
    report.finished = sum(trial.state.final for trial in trials)
    report.attempts = sum(trial.attempt for trial in trials)
    lost = [line for line in acknowledged if line not in recorded]
    finals = Counter(event.number for event in events if event.state.final)
    twice = [number for number, count in finals.items() if count > 1]
    same = len({trial.architecture.fingerprint() for trial in trials}) < len(trials)
    other = [t.number for t in trials if t.state is not TrialState.SUCCEEDED]
    for wrong, what in (
        (lost, "acknowledged and lost"),
        (twice, "counted twice"),
        (["one"] if same else [], "an architecture is there twice"),
        (other, "not succeeded"),
        ([len(trials)] if len(trials) != spec.trials else [], "trials, wanted others"),
        (_differing(spec, events), "another suggestion when replayed"),
        (_undisturbed(spec, trials) if workers == 1 else [], "other than undisturbed"),
    ):
        if wrong:
            report.wrong.append(f"{what}: {wrong[:5]}")


def _differing(spec: SearchSpec, events: list[Trial]) -> list[int]:
    state, known, wrong = State(spec), 0, []
    for event in events:
        if event.number == known:
            proposed = state.propose()
            if proposed is None or proposed.architecture != event.architecture:
                wrong.append(event.number)
            known += 1
        state.tell(event)
    return wrong


def _undisturbed(spec: SearchSpec, trials: list[Trial]) -> list[int]:
    from .run.log import MemoryLog

    log = MemoryLog()
    drive(spec, SerialPool(scored), log)
    pairs = zip(log.history(), trials, strict=True)
    return [a.number for a, b in pairs if (a.architecture, a.values) != (b.architecture, b.values)]
