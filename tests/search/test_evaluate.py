"""One evaluation, whole: what it yields, and that it fails in one way only."""

import json
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from torch import nn

from formwright.search import METRICS, ArchSpec, BlockSpec, EvaluationError, LayerSpec
from formwright.search.evaluate import latency
from formwright.search.evaluate.evaluator import Evaluation, evaluate, evaluation_seed
from formwright.search.evaluate.quiet import VARIABLE

MLP = BlockSpec.of("mlp", hidden=16, activation="gelu")


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    monkeypatch.setattr(latency, "AIM_S", 0.01)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "quiet"))


def arch(mixer="attention", layers=1, image=(1, 8, 8), classes=10, **settings):
    whole = {"heads": 4, "kv_heads": 4, "head_width": 4, "positions": "none", "span": 4}
    mixer = BlockSpec.of(mixer, **(whole | settings))
    return ArchSpec.of_images(image, classes, 2, 16, (LayerSpec(mixer, MLP, "layer"),) * layers)


TINY = Evaluation(
    architecture=arch(),
    task="digits",
    steps=3,
    batch=16,
    threads=1,
    target="eager",
    seed=5,
    timeout_s=600,
)


def replace_build(monkeypatch, build):
    monkeypatch.setattr(import_module("formwright.search.model"), "build", build)


def test_what_one_evaluation_yields():
    measured = evaluate(TINY)

    assert set(measured.values) == set(METRICS)
    assert 0 <= measured.values["quality"] <= 1
    assert 0 < measured.values["latency_ms"] <= measured.values["latency_p95_ms"]
    details = measured.details
    assert json.loads(json.dumps(details, allow_nan=False)) == details
    assert (details["seed"], details["steps"], details["batch"]) == (5, 3, 16)
    assert set(details["seconds"]) == {"train", "compile", "measure"}
    assert details["latency"]["samples"] >= 30
    assert details["latency"]["batch"] == 16
    assert details["machine"]["threads"] == 1
    assert re.fullmatch("m1:[0-9a-f]{64}", details["machine"]["fingerprint"])
    fused = next(r for r in details["report"]["passes"] if r["name"] == "fuse_attention")
    assert fused["rewritten"] == 1


def test_params_are_those_that_are_trained(monkeypatch):
    def build(_):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10, affine=False))
        model[1].bias.requires_grad_(False)
        return model

    replace_build(monkeypatch, build)
    assert evaluate(TINY).values["params"] == 640


def test_equal_evaluations_have_equal_quality_and_others_do_not():
    def numbers(evaluation):
        measured = evaluate(evaluation)
        return measured.values["quality"], measured.details["train_loss"]

    before = torch.get_rng_state()
    first = numbers(TINY)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert numbers(TINY) == first
    assert numbers(replace(TINY, seed=6))[1] != first[1]


def test_a_model_that_draws_is_seeded_too(monkeypatch):
    def build(_):
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))

    replace_build(monkeypatch, build)
    assert evaluate(TINY).details["train_loss"] == evaluate(TINY).details["train_loss"]


def test_a_process_evaluates_as_many_as_it_is_given():
    one_step = replace(TINY, steps=1)
    for layers in range(1, 11):
        measured = evaluate(replace(one_step, architecture=arch(layers=layers)))
        fused = next(r for r in measured.details["report"]["passes"] if r["name"].startswith("fus"))
        assert fused["rewritten"] == layers


WRONG = {
    "task": (replace(TINY, task="digit"), "unknown task 'digit'; known: .*Did you mean 'digits'"),
    "target": (
        replace(TINY, target="eagre"),
        "unknown target 'eagre'; .*Did you mean 'eager'",
    ),
    "block": (replace(TINY, architecture=arch("atention")), r"layers\[0\].*'atention'"),
    "heads": (replace(TINY, architecture=arch(heads=3)), r"^layers\[0\]"),
    "image": (replace(TINY, architecture=arch(image=(3, 8, 8))), "made for images"),
    "classes": (replace(TINY, architecture=arch(classes=9)), "digits has .* in 10"),
    "time": (replace(TINY, timeout_s=0), "^took longer than 0 s"),
    "threads": (replace(TINY, threads=0), "^RuntimeError: set_num_threads"),
}


@pytest.mark.parametrize(("evaluation", "words"), WRONG.values(), ids=list(WRONG))
def test_what_is_wrong_is_told_in_one_line(evaluation, words):
    with pytest.raises(EvaluationError, match=words) as caught:
        evaluate(evaluation)
    assert "\n" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_wrong_target_is_told_before_training(monkeypatch):
    replace_build(monkeypatch, lambda _: pytest.fail("it was built"))
    with pytest.raises(EvaluationError, match="unknown target"):
        evaluate(replace(TINY, target="eagre"))


class Raises(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error, self.weight = error, nn.Parameter(torch.zeros(1))

    def forward(self, x):
        raise self.error


ERRORS = [MemoryError(), KeyError("a"), RecursionError("deep\ndeeper"), StopIteration()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_a_candidate_raises_is_an_evaluation_error(monkeypatch, error):
    replace_build(monkeypatch, lambda _: Raises(error))
    with pytest.raises(EvaluationError, match=f"^{type(error).__name__}") as caught:
        evaluate(TINY)
    assert "\n" not in str(caught.value)
    replace_build(monkeypatch, lambda _: nn.Linear(3, 3))
    with pytest.raises(EvaluationError, match="RuntimeError: mat1 and mat2"):
        evaluate(TINY)


def test_to_be_interrupted_is_no_failure_of_the_candidate(monkeypatch):
    replace_build(monkeypatch, lambda _: Raises(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        evaluate(TINY)


def test_seeds_are_pinned():
    assert evaluation_seed(0, "a1:00") == 6404985997337185530
    seeds = {evaluation_seed(*of) for of in ((0, "a"), (1, "a"), (0, "b"), (0, "a", 1))}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_evaluations_are_made_and_sent_without_torch():
    code = (
        "import pickle, sys; from formwright.search.evaluate import evaluator as e; "
        "from formwright.search import ArchSpec; a = ArchSpec.of_images((1, 8, 8), 10, 2, 32, ()); "
        "x = e.Evaluation(a, 'digits', 1, 1, 1, 'eager', 0, 1); "
        "assert pickle.loads(pickle.dumps(x)) == x; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_batch_larger_than_the_split_is_still_a_batch():
    assert evaluate(replace(TINY, batch=500)).details["latency"]["batch"] == 500


def test_a_task_that_draws_while_it_loads_changes_nothing(monkeypatch):
    from formwright.search.tasks import TASKS

    digits, draws = TASKS.load("digits"), [7, 0, 1]

    def load():
        torch.rand(draws.pop() if draws else 0)
        return digits.load()

    monkeypatch.setitem(TASKS._loaded, "digits", replace(digits, load=load))
    first, second = evaluate(TINY), evaluate(TINY)
    assert first.details["train_loss"] == second.details["train_loss"]


def test_without_gradients_around_it_is_trained_all_the_same():
    with torch.no_grad():
        assert "quality" in evaluate(TINY).values
