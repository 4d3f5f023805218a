"""For authors of tasks, here and outside: what every task promises, as tests that it must pass.

    class TestMyTask(TaskContract):
        task = "my_package.tasks:TASK"      or the name of an installed one

pytest collects the tests from the subclass; it is not needed to import this. It is not imported by
the rest of the search. Next: `tasks/task.py`.

Shapes: N examples, T tokens, C classes.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .ends import STEMS
from .layout import lay_out
from .model import build
from .spec import ArchSpec, BlockSpec, LayerSpec, StageSpec
from .tasks import TASKS, Split, Task
from .tasks.task import SPLITS, UNASKED

WIDTH, BATCH, STEPS = 16, 8, 30


class TaskContract:
    """The tests. A subclass says which task: `task` is a name that is installed, or where it is,
    `module:attribute`. `beside` are others that the one other process is asked about too, so that
    the tests of many tasks start it once."""

    task: str
    beside: tuple[str, ...] = ()

    def test_it_is_registered_by_its_own_name(self) -> None:
        found = found_at(self.task)

        assert isinstance(found, Task)
        assert ":" in self.task or found.name == self.task

    def test_there_are_three_splits_that_are_loaded_once(self) -> None:
        task = found_at(self.task)
        splits = task.load()

        assert set(splits) == set(SPLITS)
        assert task.load() is splits

    def test_inputs_are_those_of_the_stem(self) -> None:
        task = found_at(self.task)
        stem = STEMS.load(task.signature.stem.name)
        wanted = stem.example(lay_out(small(task)).stem_config, 1)
        for split in task.load().values():
            assert len(split.inputs) == len(split.targets) > 0
            assert split.inputs.shape[1:] == wanted.shape[1:]
            assert split.inputs.dtype == wanted.dtype
            if wanted.is_floating_point():
                assert split.inputs.isfinite().all()
            elif task.signature.stem.name == "tokens":
                kinds = dict(task.signature.stem.settings)["vocabulary"]
                assert isinstance(kinds, int)
                assert 0 <= split.inputs.min() <= split.inputs.max() < kinds

    def test_targets_are_those_of_the_head(self) -> None:
        task = found_at(self.task)
        model = build(small(task)).eval()
        for split in task.load().values():
            with torch.no_grad():
                outputs = model(split.inputs[:2])  # [2, C] or [2, T, C]
            assert split.targets.dtype == torch.int64
            assert split.targets.shape[1:] == outputs.shape[1:-1]
            asked = split.targets != UNASKED
            assert asked.flatten(1).any(1).all() if asked.ndim > 1 else asked.all()
            chosen = split.targets[asked]
            assert 0 <= chosen.min() <= chosen.max() < outputs.shape[-1] == task.signature.classes

    def test_what_is_judged_can_be_learnt(self) -> None:
        """Every answer that validation or the test wants was an answer in training."""
        splits = found_at(self.task).load()
        taught = answers(splits["train"])

        assert len(taught) > 1
        for name in ("validation", "test"):
            assert answers(splits[name]) <= taught

    def test_no_example_is_in_two_splits(self) -> None:
        splits = found_at(self.task).load()
        seen = [{x.numpy().tobytes() for x in split.inputs} for split in splits.values()]

        assert sum(map(len, seen)) == len(set[bytes]().union(*seen))

    def test_another_process_reads_the_same(self) -> None:
        there = self._there()

        assert there["data"] == found_at(self.task).data_hash()

    def test_only_loading_imports_torch(self) -> None:
        there = self._there()

        assert not there["torch"]

    def test_what_a_result_says_of_it_is_text(self) -> None:
        record = found_at(self.task).record()

        assert json.loads(json.dumps(record)) == record
        assert record["data"] == found_at(self.task).data_hash()

    def test_a_small_model_learns_a_few_examples(self) -> None:
        task = found_at(self.task)
        split = task.load()["train"]
        first = Split(split.inputs[:BATCH], split.targets[:BATCH])
        losses = few_steps(task, first)

        assert math.isfinite(losses[-1])
        assert losses[-1] < 0.9 * losses[0]

    def _there(self) -> Mapping[str, Any]:
        """What another process says of the task."""
        tasks = tuple(sorted({self.task, *self.beside}))
        found: Mapping[str, Any] = in_another_process(tasks)[self.task]
        return found


@cache
def found_at(task: str) -> Task:
    """What is installed under this name, or is in a module."""
    if ":" not in task:
        return TASKS.load(task)
    module, _, attribute = task.partition(":")
    found: Task = getattr(import_module(module), attribute)
    return found


def small(task: Task) -> ArchSpec:
    """An architecture for it: one layer of attention."""
    mixer = BlockSpec.of(
        "attention", heads=2, kv_heads=2, head_width=WIDTH // 2, positions="none", span=1 << 20
    )
    channel = BlockSpec.of("mlp", hidden=2 * WIDTH, activation="gelu")
    layer = LayerSpec(mixer, channel, BlockSpec("rms"))
    return ArchSpec.of(task.signature, (StageSpec(WIDTH, (layer,)),))


def answers(split: Split) -> set[int]:
    """Every class that is a target."""
    return set(split.targets[split.targets != UNASKED].unique().tolist())


def few_steps(task: Task, split: Split) -> list[float]:
    """The loss before each step of a small model on these examples; the generator of torch is as
    before."""
    losses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(small(task))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(STEPS):
        loss = loss_of(model(split.inputs), split.targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
    """The cross entropy of all that is asked."""
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten(), ignore_index=UNASKED)


@cache
def in_another_process(tasks: tuple[str, ...]) -> Mapping[str, Any]:
    """Of each task there: `data`, its hash, and `torch`, whether finding it imported that."""
    code = (
        "import importlib, json, sys\n"
        f"from {__package__}.tasks import TASKS\n"
        "def find(task):\n"
        "    module, _, name = task.partition(':')\n"
        "    return getattr(importlib.import_module(module), name) if name else TASKS.load(task)\n"
        f"tasks, heavy = {tasks!r}, {{}}\n"
        "for task in tasks:\n"
        "    find(task)\n"
        "    heavy[task] = 'torch' in sys.modules\n"
        "said = {t: {'data': find(t).data_hash(), 'torch': heavy[t]} for t in tasks}\n"
        "print(json.dumps(said))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
