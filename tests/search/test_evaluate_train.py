"""Training: the recipe learns, is repeatable, and ends early in one clear way."""

import pytest
import torch
from torch import nn

from formwright.errors import FormwrightError
from formwright.search import ArchSpec, BlockSpec, EvaluationError, LayerSpec, cost_of
from formwright.search.budget import Budget
from formwright.search.evaluate.failure import Deadline, reason
from formwright.search.evaluate.machine import using_threads
from formwright.search.evaluate.schedule import Plan, plan, rate
from formwright.search.evaluate.score import judge
from formwright.search.evaluate.train import Batches, Recipe, Training, cross_entropy, supervised
from formwright.search.tasks import TASKS
from formwright.search.tasks.task import UNASKED

from .evaluations import tokens_arch


@pytest.fixture(autouse=True)
def _one_thread():
    with using_threads(1):
        yield


@pytest.fixture(scope="module")
def digits():
    return TASKS.load("digits").load()


def run(model, splits, *, steps=5, seed=0, deadline=None):
    """(quality, loss) after a training in place."""
    deadline = deadline or Deadline.after(600)
    train = splits["train"]
    training = Training(model, len(train.targets), Recipe(Plan(steps), 64, seed))
    training.go_on(supervised(model, train), deadline)
    score = judge(model.eval(), splits["validation"], deadline)
    return score and score.quality, training.loss


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

    quality, loss = run(model, digits, steps=300)

    assert quality > 0.9
    assert loss < 0.5


def test_equal_seeds_give_equal_results_whatever_else_was_drawn(digits):
    first = run(linear(), digits, steps=20)
    model = linear()
    torch.randn(7)
    second = run(model, digits, steps=20)
    other = run(linear(), digits, steps=20, seed=1)

    assert first == second
    assert first[1] != other[1]


def test_the_global_generator_is_left_alone(digits):
    model, before = linear(), torch.get_rng_state()
    run(model, digits)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("by", [float("inf"), float("nan")])
def test_divergence_names_the_step(digits, by):
    with pytest.raises(EvaluationError, match=r"^diverged at step 4$"):
        run(Broken(3, by), digits)
    assert run(Broken(5, by), digits)[0] is None  # only validation saw it


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
    batches = Batches(10, 4, 0)
    drawn = torch.cat([batches.draw() for _ in range(5)]).tolist()
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]
    assert len(Batches(3, 8, 0).draw()) == 8  # more than there are


def test_the_rate_is_positive_at_every_step():
    for steps in (1, 2, 3, 10, 300):
        assert all(rate(step, steps) > 0 for step in range(steps))
        assert max(rate(step, steps, 2.0) for step in range(steps)) == 2.0


def test_targets_that_are_not_asked_teach_nothing():
    outputs = torch.randn(2, 3, 5, requires_grad=True)
    targets = torch.tensor([[1, UNASKED, 2], [UNASKED, UNASKED, 4]])
    loss = cross_entropy(outputs, targets)
    loss.backward()
    logs = outputs.detach().log_softmax(-1)
    by_hand = -(logs[0, 0, 1] + logs[0, 2, 2] + logs[1, 2, 4]) / 3
    torch.testing.assert_close(loss.detach(), by_hand)
    assert torch.equal(outputs.grad.abs().sum(-1) > 0, targets != UNASKED)


SPEC = tokens_arch()  # of 12 tokens
UNITS = {
    "steps": (Budget(7), 7),
    "tokens": (Budget(12 * 5 * 4 + 59, "tokens"), 4),
    "flops": (Budget(3 * cost_of(SPEC).flops * 5 * 6 + 1, "flops"), 6),
    "one at least": (Budget(1, "flops"), 1),
}


@pytest.mark.parametrize(("budget", "steps"), UNITS.values(), ids=list(UNITS))
def test_a_budget_pays_for_whole_steps(budget, steps):
    assert plan(budget, SPEC, 5) == Plan(steps)


def test_a_plan_by_the_clock():
    whole = plan(Budget(10, "seconds"), SPEC, 5)
    assert not whole.over(0.5, 3, 4.9)
    assert whole.over(0.5, 3, 5.0)
    assert not whole.over(1e-9, 0, 20.0)  # one step at least
    rates = [whole.rate(1.0, 0, at / 10) for at in range(110)]
    assert 0 < min(rates) <= max(rates) <= 1.0
    assert rates[:10] == sorted(rates[:10])
    assert rates[11:] == sorted(rates[11:], reverse=True)


def test_a_share_of_a_plan_is_monotonous_and_ends_at_the_whole():
    for steps in (1, 2, 10, 300):
        counts = []
        for until in (1 / 27, 1 / 9, 1 / 3, 1.0):
            over = [step for step in range(steps + 1) if Plan(steps).over(until, step, 0.0)]
            counts.append(over[0])
        assert counts == sorted(counts)
        assert counts[0] >= 1
        assert counts[-1] == steps


def test_reasons_are_one_line():
    class Packed(RuntimeError):
        inner_exception = FormwrightError("known: a, b\n Did you mean 'a'?")

    assert reason(Packed("backend raised")) == "known: a, b Did you mean 'a'?"
    assert reason(RuntimeError("shapes differ\nat line 3")) == "RuntimeError: shapes differ"
    assert reason(MemoryError()) == "MemoryError"
