"""Shared weights: one network is trained, and every sub-model is read off it."""

import math
import pickle
import random
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from formwright.search import EvaluationError, canonical
from formwright.search.budget import Budget
from formwright.search.evaluate import shared
from formwright.search.evaluate.checkpoint import forget, key
from formwright.search.evaluate.evaluator import evaluate, evaluation_seed
from formwright.search.evaluate.failure import Deadline
from formwright.search.evaluate.learn import fitted
from formwright.search.evaluate.quiet import VARIABLE
from formwright.search.evaluate.shared import network, whole_of
from formwright.search.evaluate.train import Training
from formwright.search.space import SPACES, matformer
from formwright.search.tasks import TASKS

from .evaluations import TINY, arch

DIGITS = TASKS.load("digits")
LATER = Deadline(math.inf, 600)


def sub(*hidden, patch=2, task=DIGITS):
    genes = {"patch": patch, **{f"hidden{at}": of for at, of in enumerate(hidden)}}
    return canonical(matformer.decode(genes, task.signature))


SHARED = replace(TINY, weights="shared", budget=Budget(6), architecture=sub(16, 32, 128, 64))


@pytest.fixture(autouse=True)
def _here(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "quiet"))
    monkeypatch.setattr(shared, "_networks", {})


def test_every_architecture_of_the_space_has_its_whole():
    for seed in range(4):
        genes = SPACES.load("matformer").sample(random.Random(seed))
        spec = canonical(matformer.decode(genes, DIGITS.signature))
        whole = whole_of(spec)
        assert whole.spec == matformer.whole(DIGITS.signature, genes["patch"])
        assert {whole_of(of).spec for of in whole.subs} == {whole.spec}


def test_others_have_none_and_are_told_so():
    with pytest.raises(EvaluationError, match=r"no network is known .*not in matformer: "):
        evaluate(replace(SHARED, architecture=arch()))


def test_quality_is_that_of_the_slice():
    measured = evaluate(SHARED)
    split = DIGITS.load()["validation"]
    (trained,) = shared._networks.values()
    with torch.no_grad():
        said = trained.net.run(SHARED.architecture, split.inputs).argmax(-1)
        alone = trained.net.extract(SHARED.architecture).eval()(split.inputs).argmax(-1)
    right = (said == split.targets).float().mean().item()
    assert measured.values["quality"] == pytest.approx(right)
    assert measured.values["quality"] == pytest.approx(
        (alone == split.targets).float().mean().item()
    )
    assert measured.details["weights"] == "shared"
    model, _ = fitted(SHARED)
    again = (model(split.inputs).argmax(-1) == split.targets).float().mean().item()
    assert again == pytest.approx(right)


def test_one_training_serves_all(monkeypatch):
    first = evaluate(SHARED)
    assert first.details["training_flops"] > 0
    monkeypatch.setattr(Training, "_step", lambda *given: pytest.fail("it was trained again"))
    others = [sub(16, 16, 16, 16), sub(128, 128, 128, 128), SHARED.architecture]
    measured = [evaluate(replace(SHARED, architecture=of)) for of in others]
    assert measured[-1].values == first.values
    assert {one.details["training_flops"] for one in measured} == {0}
    # on a rung it is the whole training too: it costs nothing
    assert evaluate(replace(SHARED, until=0.5)).values == first.values


def test_the_network_depends_on_the_search_and_not_on_who_asks_first(monkeypatch):
    small, large = (replace(SHARED, architecture=sub(*[of] * 4)) for of in (16, 128))
    forth = [evaluate(of).values["quality"] for of in (small, large)]
    shared._networks.clear()
    back = [evaluate(of).values["quality"] for of in (large, small)]
    assert forth == back[::-1]
    split = DIGITS.load()["train"]
    nets = [network(replace(small, seed=seed), DIGITS, split, 6e-3, LATER) for seed in (5, 6)]
    weights = [of.net.model.head.linear.weight for of in nets]
    assert not torch.equal(*weights)


def test_every_patch_and_rate_has_a_network_of_its_own():
    fine = replace(SHARED, architecture=sub(16, 16, 16, 16, patch=1), rates=(1e-3, 6e-3))
    measured = evaluate(fine)
    evaluate(SHARED)
    assert len(shared._networks) == 3
    rows = measured.details["rates"]
    assert measured.values["quality"] == max(row["quality"] for row in rows)
    assert {row["rate"] for row in rows} == set(fine.rates)


def test_a_killed_training_goes_on_and_ends_alike(tmp_path, monkeypatch):
    whole = evaluate(SHARED)
    shared._networks.clear()
    kept = replace(SHARED, checkpoint=str(tmp_path / "kept"))
    step = Training._step
    with monkeypatch.context() as m:
        m.setattr("formwright.search.evaluate.checkpoint.EVERY_S", -1.0)
        m.setattr(Training, "_step", lambda t, d: 1 / 0 if t.step == 4 else step(t, d))
        with pytest.raises(EvaluationError, match="ZeroDivisionError"):
            evaluate(kept)
    measured = evaluate(kept)
    assert measured.details["rates"][0]["resumed"] == "train, step 4"
    assert measured.values == whole.values
    forget(kept)  # others read it
    assert list((tmp_path / "kept").glob("*.training"))


SCRIPT = """
import pickle, sys
from formwright.search.evaluate.evaluator import evaluate
measured = evaluate(pickle.load(open(sys.argv[1], "rb")))
print(measured.values["quality"], measured.details["training_flops"])
"""


def test_two_processes_share_one_training(tmp_path):
    folder = tmp_path / "kept"
    kept = replace(SHARED, budget=Budget(20), checkpoint=str(folder))
    (tmp_path / "evaluation").write_bytes(pickle.dumps(kept))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "evaluation")]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while not list(folder.glob("*.lock")) and other.poll() is None:
        time.sleep(0.005)
    mine = evaluate(kept)
    quality, flops = other.communicate(timeout=300)[0].split()
    assert float(quality) == mine.values["quality"]
    assert [float(flops) == 0, mine.details["training_flops"] == 0].count(True) == 1


def test_who_waits_too_long_for_the_other_says_so(tmp_path):
    kept = replace(SHARED, checkpoint=str(tmp_path / "kept"), timeout_s=0)
    whole = whole_of(kept.architecture).spec
    of = replace(kept, architecture=whole, seed=evaluation_seed(kept.seed, whole.fingerprint()))
    with (
        shared._one_process(kept.checkpoint, key(of, 6e-3), LATER),
        pytest.raises(EvaluationError, match="waiting for another process to train"),
    ):
        network(kept, DIGITS, DIGITS.load()["train"], 6e-3, Deadline.after(0.3))
