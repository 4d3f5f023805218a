"""Candidates judged on the weights of one trained network that holds them all.

The whole is trained once for each learning rate: in a process it is kept, and beside the
checkpoints, where a lock lets one process train while the others wait; if that one dies, the next
goes on. A sub-model's quality is then read off (`Supernet.run`), without training. Each step trains
one sub-model, drawn from those whose layers are all of one width ("MatFormer", Devvrit et al.,
2023, section 3.2); the others are never trained themselves. Weights that are shared do not rank as
weights of one's own do. It must not know how a sub-model is judged. Next: `../supernet/`.
"""

from __future__ import annotations

import fcntl
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from torch import Tensor

from ..errors import EvaluationError, SpecError
from ..space import matformer
from ..spec import ArchSpec
from ..supernet import Supernet, narrowed, sampled
from ..supernet.nested import check
from ..tasks.task import Split, Task
from .checkpoint import Checkpoint, key
from .course import Course, Phase, carry_out, phases_of
from .evaluator import Evaluation, evaluation_seed
from .failure import Deadline
from .train import cross_entropy, fresh

NAP_S = 0.1  # between two looks whether another process has trained
MOST = 8  # networks that a process keeps


@dataclass(frozen=True)
class Whole:
    """A network, and the sub-models that its training draws from."""

    spec: ArchSpec
    subs: Sequence[ArchSpec]


def _matformer(architecture: ArchSpec) -> Whole:
    signature = architecture.signature
    if signature is None:
        raise SpecError("its ends are those of no task")
    patch = cast(int, dict(architecture.stem.settings).get("patch", 1))
    whole = matformer.whole(signature, patch)
    return Whole(whole, [narrowed(whole, (of,) * matformer.LAYERS) for of in matformer.HIDDENS])


# space -> the network that holds an architecture of it; raises SpecError where there is none
WHOLES: Mapping[str, Callable[[ArchSpec], Whole]] = {"matformer": _matformer}


def whole_of(architecture: ArchSpec) -> Whole:
    """The network that holds this architecture. Raises EvaluationError where none is known."""
    said = []
    for space, find in WHOLES.items():
        try:
            found = find(architecture)
            check(found.spec, architecture)
            return found
        except SpecError as error:
            said.append(f"not in {space}: {error}")
    raise EvaluationError(f"no network is known whose weights it could share ({'; '.join(said)})")


@dataclass(frozen=True)
class Network:
    """A trained supernet; `course` is how it became one, and what of that was done just now;
    `unkept` says why no checkpoint could be written, if so."""

    net: Supernet
    course: Course
    unkept: str


_networks: dict[str, Network] = {}


def network(
    evaluation: Evaluation, task: Task, split: Split, rate: float, deadline: Deadline
) -> Network:
    """The trained network that holds the architecture of `evaluation`, whose seed is that of the
    search; its own comes from that and the network. It is trained to the end whatever rung it is
    asked on. Raises EvaluationError where there is none, it diverges or the time is up."""
    whole = whole_of(evaluation.architecture)
    seed = evaluation_seed(evaluation.seed, whole.spec.fingerprint())
    of = replace(evaluation, architecture=whole.spec, seed=seed, until=1.0)
    name = key(of, rate)
    if name not in _networks:
        with _one_process(of.checkpoint, name, deadline):
            checkpoint = Checkpoint(of.checkpoint, name, task.data_hash())
            made = _trained(of, whole, split, rate, checkpoint, deadline)
        while len(_networks) >= MOST:
            del _networks[next(iter(_networks))]
        _networks[name] = replace(made, course=replace(made.course, ran={}))
        return made
    return _networks[name]


def _trained(
    of: Evaluation,
    whole: Whole,
    split: Split,
    rate: float,
    checkpoint: Checkpoint,
    deadline: Deadline,
) -> Network:
    nets: list[Supernet] = []

    def make() -> Sequence[Phase]:
        nets.append(net := Supernet(whole.spec, fresh(whole.spec, of.seed)))

        def descend(picked: Tensor, step: int) -> float:
            rng = random.Random(f"{of.seed}|{step}")
            inputs, targets = split.inputs[picked], split.targets[picked]
            (loss,) = sampled(net, whole.subs, inputs, targets, cross_entropy, rng)
            return loss

        return phases_of(net.model, of, split, rate, descend)

    course = carry_out(make, checkpoint, deadline)
    nets[-1].model.eval()
    return Network(nets[-1], course, checkpoint.error)


@contextmanager
def _one_process(folder: str, name: str, deadline: Deadline) -> Iterator[None]:
    """Holds the lock of this training; the kernel frees that of a process that dies. Without a
    folder there is nothing to share."""
    if not folder:
        yield
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    file = os.open(Path(folder) / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                deadline.check("waiting for another process to train the shared weights")
                time.sleep(NAP_S)
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)  # a child forked meanwhile has the same opening
        os.close(file)
