"""Every task keeps the contract: splits of its signature; only loading them imports torch."""

import subprocess
import sys

import pytest
import torch

from formwright.search.space import SPACES
from formwright.search.tasks import TASKS


@pytest.fixture(params=TASKS.names())
def task(request):
    return TASKS.load(request.param)


def test_the_splits_are_of_the_signature(task):
    splits = task.load()

    assert set(splits) == {"train", "validation", "test"}
    for split in splits.values():
        assert split.inputs.dtype == torch.float32
        assert split.inputs.shape == (len(split.targets), *task.signature.image)
        assert split.targets.dtype == torch.int64
        assert 0 <= split.targets.min() <= split.targets.max() < task.signature.classes


def test_every_class_is_learnt_and_judged(task):
    splits = task.load()
    for name in ("train", "validation"):
        assert len(splits[name].targets.unique()) == task.signature.classes


def test_naming_spaces_and_tasks_loads_no_torch():
    loads = "import sys\nfrom formwright.search.space import SPACES\n"
    loads += "from formwright.search.tasks import TASKS\n"
    loads += f"for n in {SPACES.names()}: SPACES.load(n)\nfor n in {TASKS.names()}: TASKS.load(n)\n"
    loads += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loads], check=False).returncode == 0
