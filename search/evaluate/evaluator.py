"""One evaluation, whole: count, compile, measure, train, as far as it is wanted.

`Evaluation` is everything the numbers depend on, so equal ones give equal quality on one machine.
It must not know trials or workers; importing it loads no torch, for the loop that makes evaluations
needs none. Next: `stages.py`.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass

from ..budget import Budget
from ..errors import EvaluationError
from ..objective import Measurement
from ..search_spec import RATE
from ..spec import ArchSpec
from .failure import Deadline, reason
from .quiet import working

# The number of threads, random numbers and compiled code belong to the process.
one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Evaluation:
    """What a worker is given. `architecture` is trained on `task` for `budget`, in batches of
    `batch` examples, up to the share `until` of it (the schedule is that of the whole), once with
    each of `rates`, after `pretrain` steps of self-pretraining. Compiled for `target`, it is
    measured on one batch of validation inputs ("whole"), or predicted from its "layers". All with
    `threads` threads and within `timeout_s` seconds.

    Only what `metrics` are about is done, and what costs nothing; the first of `constraints` that
    is broken by what was measured ends it. `weights` are its "own", or "shared" with all that its
    network holds: then `seed` is that of the search. `checkpoint` is the folder where trainings are
    kept between rungs and after a kill; "" is nowhere. `proxies` are read for the record."""

    architecture: ArchSpec
    task: str
    budget: Budget
    batch: int
    threads: int
    target: str
    seed: int
    timeout_s: int
    until: float = 1.0
    rates: tuple[float, ...] = (RATE,)
    pretrain: int = 0
    metrics: tuple[str, ...] = ("quality", "latency_ms", "params")
    latency: str = "whole"
    weights: str = "own"
    constraints: tuple[str, ...] = ()
    checkpoint: str = ""
    proxies: tuple[str, ...] = ()


def evaluation_seed(user_seed: int, fingerprint: str, rung: int = 0) -> int:
    """The seed of one architecture: it depends on nothing that happened before in a search.

    >>> evaluation_seed(0, "a1:00") == evaluation_seed(0, "a1:00", rung=0)
    True
    """
    digest = hashlib.sha256(f"{user_seed}|{fingerprint}|{rung}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 2**63


def evaluate(evaluation: Evaluation) -> Measurement:
    """Measures one candidate; a process does one at a time, and the others wait.

    Raises EvaluationError with one line for people, whatever is wrong with the candidate. The
    time limit is looked at between steps: code that never returns is for the pool to end.
    """
    with one_at_a_time:
        try:
            with working():  # loading torch is work too, but not the candidate's
                import torch

                from .machine import using_threads
                from .stages import evaluated
            deadline = Deadline.after(evaluation.timeout_s)
            threads = using_threads(evaluation.threads)
            with threads, torch.random.fork_rng(devices=[]), torch.enable_grad():
                return evaluated(evaluation, deadline)
        except EvaluationError:
            raise
        except Exception as error:
            raise EvaluationError(reason(error)) from error
