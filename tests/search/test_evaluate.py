"""One evaluation, whole: what it yields, and that it fails in one way only."""

import json
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from formwright.search import METRICS, BlockSpec, EvaluationError, cost_of
from formwright.search.evaluate import latency, layer_latency, stages
from formwright.search.evaluate.evaluator import evaluate, evaluation_seed
from formwright.search.evaluate.machine import machine
from formwright.search.evaluate.quiet import VARIABLE
from formwright.search.tasks import TASKS

from .evaluations import PLAIN, TINY, WHOLE, arch, attention, counting, tokens_arch


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    monkeypatch.setattr(latency, "AIM_S", 0.01)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "quiet"))


def replace_build(monkeypatch, build):
    monkeypatch.setattr(import_module("formwright.search.evaluate.train"), "build", build)


def test_what_one_evaluation_yields():
    measured = evaluate(WHOLE)

    assert {"quality", "latency_ms", "latency_p95_ms", "latency_ratio"} <= set(measured.values)
    assert 0 <= measured.values["quality"] <= 1
    assert 0 < measured.values["latency_ms"] <= measured.values["latency_p95_ms"]
    assert measured.broken == ""
    details = measured.details
    assert json.loads(json.dumps(details, allow_nan=False)) == details
    assert (details["seed"], details["steps"], details["batch"]) == (5, 3, 16)
    assert (details["budget"], details["until"], details["lr"]) == ("3 steps", 1.0, 6e-3)
    assert set(details["seconds"]) >= {"train", "compile", "measure"}
    assert (details["skipped"], details["undecided"]) == ({"decode": "not wanted"}, [])
    assert details["latency"]["batch"] == 16
    assert details["machine"]["threads"] == 1
    assert re.fullmatch("m1:[0-9a-f]{64}", details["machine"]["fingerprint"])
    fused = next(r for r in details["report"]["passes"] if r["name"] == "fuse_attention")
    assert fused["rewritten"] == 1


def test_what_is_counted_is_always_there():
    cost, values = cost_of(TINY.architecture), evaluate(replace(TINY, metrics=())).values
    assert values == {
        "params": cost.params,
        "flops": cost.flops,
        "activation_bytes": 4 * cost.activations,
        "state_bytes": 4 * cost.state,
    }


def refuse(monkeypatch, *names):
    """The stages of these names fail the test when they run."""
    changed = tuple(
        replace(stage, run=lambda subject: pytest.fail("it was run"))
        if stage.name in names
        else stage
        for stage in stages.STAGES
    )
    monkeypatch.setattr(stages, "STAGES", changed)


def test_only_what_is_wanted_is_done(monkeypatch):
    quality = evaluate(PLAIN).values["quality"]
    with monkeypatch.context() as m:
        refuse(m, "latency")
        measured = evaluate(replace(PLAIN, metrics=TINY.metrics))
        assert "compiler" not in str(measured.details.get("report"))
    assert measured.values["quality"] == quality  # a latency changes no training
    assert measured.details["skipped"] == dict.fromkeys(("latency", "decode"), "not wanted")
    refuse(monkeypatch, "decode", "train")
    measured = evaluate(replace(PLAIN, metrics=("latency_p95_ms",)))
    assert "quality" not in measured.values
    assert measured.details["skipped"] == dict.fromkeys(("decode", "train"), "not wanted")


EARLY = {
    "params<=500": (("latency", "decode", "train"), r"^params is \d+, not <= 500$"),
    "latency_ms<=1e-9": (("decode", "train"), r"^latency_ms is .*, not <= 1e-09$"),
    "latency_ms>=1e9": (("decode", "train"), r"^latency_ms is"),
}


@pytest.mark.parametrize(("constraint", "skipped", "words"), [(k, *v) for k, v in EARLY.items()])
def test_a_broken_constraint_ends_it_before_anything_dearer(
    monkeypatch, constraint, skipped, words
):
    refuse(monkeypatch, *skipped)
    measured = evaluate(replace(PLAIN, constraints=("flops<=1e9", constraint)))
    assert re.search(words, measured.broken)
    assert measured.details["skipped"] == dict.fromkeys(skipped, measured.broken)
    assert measured.values["params"] == cost_of(PLAIN.architecture).params
    assert "quality" not in measured.values


def test_every_metric_is_measured_by_one_stage():
    assert sorted(name for stage in stages.STAGES for name in stage.metrics) == sorted(METRICS)


def test_all_of_them_at_once_where_tokens_are_generated(monkeypatch):
    monkeypatch.setitem(TASKS._loaded, "counting", counting(score="bits"))
    asked = replace(WHOLE, task="counting", architecture=tokens_arch(), metrics=tuple(METRICS))
    measured = evaluate(asked)
    assert set(measured.values) == set(METRICS)
    assert measured.details["bits_per_token"] > 0
    details = dict(measured.details)
    assert json.loads(json.dumps(details, allow_nan=False)) == details
    with pytest.raises(EvaluationError, match="decode_ms wants a causal task"):
        evaluate(replace(WHOLE, metrics=("decode_ms",)))


def test_a_quality_decides_once_it_is_the_last():
    asked = replace(TINY, constraints=("quality>=0.99", "latency_ms<=1e-9"))
    assert evaluate(asked).broken.startswith("quality is ")
    early = evaluate(replace(asked, until=0.5))
    assert early.broken == ""
    assert early.details["undecided"] == ["quality"]


def test_what_layers_predict_decides_beyond_its_error(monkeypatch):
    found = {"median_ms": 5.2, "ratio": 3.0, "error": 0.1, "parts": {"stem": 5.2}, "new": 0}
    calibration = SimpleNamespace(models=0)
    said = SimpleNamespace(**found, machine=machine(1, "eager"), calibration=calibration)
    monkeypatch.setattr(layer_latency, "predict", lambda architecture, **how: said)
    asked = replace(WHOLE, latency="layers", constraints=("latency_ms<=5",))
    near = evaluate(asked)
    assert (near.broken, near.values["latency_ms"]) == ("", 5.2)
    assert near.details["latency"]["predicted"]
    assert near.details["undecided"] == ["latency_ms", "latency_ratio", "throughput"]
    far = evaluate(replace(asked, constraints=("latency_ms<=4",)))
    assert far.broken == "latency_ms is 5.2, not <= 4"
    with pytest.raises(EvaluationError, match=r"^latency_p95_ms: not predicted from layers"):
        evaluate(replace(asked, metrics=("latency_p95_ms",)))


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


@torch._dynamo.config.patch(recompile_limit=2)
def test_a_process_evaluates_as_many_as_it_is_given():
    """Dynamo gives up on a function after so many models: 8, unless it is told another number."""
    timed = replace(WHOLE, metrics=("latency_ms",), target="eager")
    for _ in range(4):
        measured = evaluate(timed)
        fused = next(r for r in measured.details["report"]["passes"] if r["name"].startswith("fus"))
        assert fused["rewritten"] == 1


WRONG = {
    "task": (replace(TINY, task="digit"), "unknown task 'digit'; known: .*Did you mean 'digits'"),
    "target": (
        replace(WHOLE, target="eagre"),
        "unknown target 'eagre'; .*Did you mean 'eager'",
    ),
    "block": (replace(TINY, architecture=arch(BlockSpec("atention"))), r"layers\[0\].*'atention'"),
    "heads": (replace(TINY, architecture=arch(attention(heads=3))), r"^layers\[0\]"),
    "image": (
        replace(TINY, architecture=arch(image=(3, 8, 8))),
        r"made for images \(3, 8, 8\).*; digits has",
    ),
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
        evaluate(replace(WHOLE, target="eagre"))


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
    code = """
import pickle, sys
from formwright.search import ArchSpec
from formwright.search.budget import Budget
from formwright.search.evaluate.checkpoint import forget
from formwright.search.evaluate.evaluator import Evaluation
architecture = ArchSpec.of_images((1, 8, 8), 10, 2, 32, ())
made = Evaluation(architecture, "digits", Budget(1), 1, 1, "eager", 0, 1)
assert pickle.loads(pickle.dumps(made)) == made
forget(made)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_batch_larger_than_the_split_is_still_a_batch():
    assert evaluate(replace(PLAIN, batch=500)).details["latency"]["batch"] == 500


def test_a_task_that_draws_while_it_loads_changes_nothing(monkeypatch):
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


def test_whole_models_that_are_measured_teach_the_prediction(monkeypatch, tmp_path):
    monkeypatch.setenv("FORMWRIGHT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(latency, "AIM_S", 0.01)
    timed = replace(PLAIN, metrics=("latency_ms",), target="eager")
    predicted = replace(timed, latency="layers")
    first = evaluate(predicted).details["latency"]
    evaluate(timed)
    second = evaluate(predicted).details["latency"]

    assert (first["models"], second["models"]) == (0, 1)
    assert (first["new"] > 0, second["new"]) == (True, 0)
    assert second["parts"] == first["parts"]
