"""Training: the recipe learns, is repeatable, and ends early in one clear way."""

import pytest
import torch
from torch import nn

from formwright.errors import FormwrightError
from formwright.search import ArchSpec, BlockSpec, EvaluationError, LayerSpec
from formwright.search.evaluate.failure import Deadline, reason
from formwright.search.evaluate.machine import using_threads
from formwright.search.evaluate.train import _batches, rate, train
from formwright.search.tasks import TASKS
from formwright.search.tasks.task import Split


@pytest.fixture(autouse=True)
def _one_thread():
    with using_threads(1):
        yield


@pytest.fixture(scope="module")
def digits():
    return TASKS.load("digits").load()


def run(model, splits, *, steps=5, seed=0, deadline=None):
    deadline = deadline or Deadline.after(600)
    both = (splits["train"], splits["validation"])
    return train(model, *both, steps=steps, batch=64, seed=seed, deadline=deadline)


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 10))


class Broken(nn.Module):
    """Right until it was called `after` times, then multiplied by `by`."""

    def __init__(self, after, by):
        super().__init__()
        self.model, self.left, self.by = linear(), after, by

    def forward(self, x):
        self.left -= 1
        return self.model(x) * (1.0 if self.left >= 0 else self.by)


@pytest.mark.parametrize("mixer", ["attention", "pool"])
def test_a_small_metaformer_learns_digits(digits, mixer):
    from formwright.search.model import build
    from formwright.search.space.metaformer import MIXERS

    mlp = BlockSpec.of("mlp", hidden=32, activation="gelu")
    layer = LayerSpec(MIXERS[mixer](32), mlp, "layer")
    model = build(ArchSpec.of_images((1, 8, 8), 10, 2, 32, (layer, layer)))

    result = run(model, digits, steps=300)

    assert result.quality > 0.9
    assert result.loss < 0.5
    assert result.steps == 300
    assert result.seconds > 0
    assert not model.training


def test_equal_seeds_give_equal_results_whatever_else_was_drawn(digits):
    first = run(linear(), digits, steps=20)
    model = linear()
    torch.randn(7)
    second = run(model, digits, steps=20)
    other = run(linear(), digits, steps=20, seed=1)

    assert (first.quality, first.loss) == (second.quality, second.loss)
    assert first.loss != other.loss


def test_the_global_generator_is_left_alone(digits):
    model, before = linear(), torch.get_rng_state()
    run(model, digits)
    assert torch.equal(torch.get_rng_state(), before)


def test_quality_is_the_share_of_the_whole_validation_split():
    images = torch.zeros(1000, 1, 2, 2)
    images[:, 0, 0, 0] = 1.0
    labels = torch.zeros(1000, dtype=torch.long)
    labels[-100:] = 1  # in the last chunk only
    train_split = Split(images, torch.zeros(1000, dtype=torch.long))
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    result = run(model, {"train": train_split, "validation": Split(images, labels)}, steps=50)
    assert result.quality == pytest.approx(0.9)


@pytest.mark.parametrize("by", [float("inf"), float("nan")])
def test_divergence_names_the_step(digits, by):
    with pytest.raises(EvaluationError, match=r"^diverged at step 4$"):
        run(Broken(3, by), digits)
    with pytest.raises(EvaluationError, match=r"^diverged at step 5$"):  # only validation saw it
        run(Broken(5, by), digits)


def test_a_gradient_that_is_not_finite_is_divergence_too(digits):
    class Steep(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = linear()

        def forward(self, x):
            y = self.model(x)
            return y + torch.sqrt(y - y)  # zero, with an infinite slope

    with pytest.raises(EvaluationError, match="diverged at step 1"):
        run(Steep(), digits)


def test_the_time_limit(digits):
    with pytest.raises(EvaluationError, match=r"than 5 s \(training, after 0 of 5 steps\)"):
        run(linear(), digits, deadline=Deadline(0.0, 5))


def test_only_matrices_decay_and_frozen_parameters_stay(digits):
    model = linear()
    model[2].bias.requires_grad_(False)
    frozen = model[2].bias.clone()
    unused = nn.Parameter(torch.ones(3))
    model.register_parameter("unused", unused)
    run(model, digits)
    assert torch.equal(model[2].bias, frozen)
    assert torch.equal(unused, torch.ones(3))


def test_batches_are_passes_over_the_data():
    batches = _batches(10, 4, torch.Generator().manual_seed(0))
    drawn = torch.cat([next(batches) for _ in range(5)]).tolist()
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]
    assert len(next(_batches(3, 8, torch.Generator()))) == 8  # more than there are


def test_the_rate_is_positive_at_every_step():
    for steps in (1, 2, 3, 10, 300):
        assert all(rate(step, steps) > 0 for step in range(steps))


def test_reasons_are_one_line():
    class Packed(RuntimeError):
        inner_exception = FormwrightError("known: a, b\n Did you mean 'a'?")

    assert reason(Packed("backend raised")) == "known: a, b Did you mean 'a'?"
    assert reason(RuntimeError("shapes differ\nat line 3")) == "RuntimeError: shapes differ"
    assert reason(MemoryError()) == "MemoryError"
