"""Scores: over every target that is asked, whatever the batches were."""

import math

import pytest
import torch
from torch.nn import functional as F

from formwright.search import BlockSpec, EvaluationError, cost_of
from formwright.search.evaluate import score
from formwright.search.evaluate.failure import Deadline
from formwright.search.evaluate.score import SCORES, chunk_of, judge
from formwright.search.spec import Signature
from formwright.search.tasks import Split
from formwright.search.tasks.task import SCORES as NAMES
from formwright.search.tasks.task import UNASKED

from .evaluations import arch, tokens_arch

LATER = Deadline(math.inf, 600)


def test_every_score_of_a_task_is_known():
    assert set(SCORES) == set(NAMES)


def test_accuracy_is_the_share_of_the_whole_split():
    inputs = torch.eye(2).repeat(300, 1)
    targets = torch.tensor([0, 1]).repeat(300)
    targets[-60:] = 1 - targets[-60:]  # in the last chunk only
    assert judge(lambda x: x, Split(inputs, targets), LATER).quality == pytest.approx(0.9)


def sequences():
    """Logits [20, 7, 5] that are their own model's inputs, and targets of which some are asked."""
    torch.manual_seed(2)
    targets = torch.randint(5, (20, 7))
    targets[torch.rand(20, 7) < 0.6] = UNASKED
    targets[3] = UNASKED  # an example that asks nothing
    return torch.randn(20, 7, 5), targets


@pytest.mark.parametrize("chunk", [1, 3, 256])
def test_of_tokens_each_that_is_asked_counts_alike(chunk):
    logits, targets = sequences()
    asked = targets != UNASKED
    found = judge(lambda x: x, Split(logits, targets), LATER, chunk=chunk)
    assert (
        found.quality == ((logits.argmax(-1) == targets) & asked).sum().item() / asked.sum().item()
    )

    bits = judge(lambda x: x, Split(logits, targets), LATER, score="bits", chunk=chunk)
    each = F.cross_entropy(logits[asked], targets[asked]).item() / math.log(2)
    assert bits.details["bits_per_token"] == pytest.approx(each)
    assert bits.quality == pytest.approx(1 - each / math.log2(5))
    assert bits.details["accuracy"] == found.quality


def test_a_uniform_guess_is_worth_no_bits():
    logits, targets = sequences()
    split = Split(torch.zeros_like(logits), targets)
    assert judge(lambda x: x, split, LATER, score="bits").quality == pytest.approx(0, abs=1e-6)


def test_a_split_that_asks_nothing_is_an_error():
    split = Split(torch.zeros(2, 3, 5), torch.full((2, 3), UNASKED))
    with pytest.raises(EvaluationError, match="asks for nothing"):
        judge(lambda x: x, split, LATER)


def test_what_is_not_finite_has_no_score():
    split = Split(torch.tensor([[0.0, float("nan")]]), torch.zeros(1, dtype=torch.long))
    assert judge(lambda x: x, split, LATER) is None


def test_a_large_vocabulary_is_judged_in_small_batches(monkeypatch):
    assert chunk_of(arch()) == score.CHUNK
    many = Signature.of_tokens(50_000, 512, head=BlockSpec("language"))
    spec = tokens_arch(many)
    assert 1 <= chunk_of(spec) < score.CHUNK
    monkeypatch.setattr(score, "MEMORY", 4 * cost_of(spec).activations * 3)
    assert chunk_of(spec) == 3
    monkeypatch.setattr(score, "MEMORY", 1)
    assert chunk_of(spec) == 1
