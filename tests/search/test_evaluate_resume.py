"""Trainings that are cut, by a rung or by a kill, end as those that were not, bit for bit."""

import itertools
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from formwright.search import BlockSpec, EvaluationError
from formwright.search.budget import Budget
from formwright.search.evaluate import checkpoint, train
from formwright.search.evaluate.checkpoint import Checkpoint, forget, key
from formwright.search.evaluate.evaluator import evaluate
from formwright.search.evaluate.failure import Deadline
from formwright.search.evaluate.learn import fitted, learn
from formwright.search.evaluate.machine import using_threads
from formwright.search.evaluate.quiet import VARIABLE
from formwright.search.evaluate.train import Training
from formwright.search.tasks import TASKS

from .evaluations import TINY, arch, counting, tokens_arch

MAMBA = BlockSpec.of("mamba2", expand=2, head_width=4, state=4, conv=2, chunk=4)
NINE = replace(TINY, budget=Budget(9))
SPOKEN = replace(NINE, task="counting", architecture=tokens_arch())
CASES = {
    "attention": NINE,
    "statistics": replace(NINE, architecture=arch(norm=BlockSpec.of("prepbn", steps=4))),
    "recurrence": replace(SPOKEN, architecture=tokens_arch(mixer=MAMBA)),
    "tied": replace(SPOKEN, architecture=tokens_arch(tied=True)),
    "rates": replace(NINE, rates=(1e-3, 6e-3, 2e-2)),
    "pretrained": replace(NINE, pretrain=4),
    "tokens": replace(SPOKEN, budget=Budget(12 * 16 * 9, "tokens"), pretrain=2),
    "flops": replace(NINE, budget=Budget(3e7, "flops")),
}


@pytest.fixture(autouse=True)
def _here(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "quiet"))
    monkeypatch.setitem(TASKS._loaded, "counting", counting(score="bits", pretrain="next"))
    with using_threads(1):
        yield


def learnt(evaluation):
    task = TASKS.load(evaluation.task)
    with torch.random.fork_rng(devices=[]):
        return learn(evaluation, task, task.load(), Deadline.after(600))


def same(first, second):
    """Whether every rate came to the same, down to the last bit of each weight."""
    assert len(first.learnt) == len(second.learnt)
    for one, other in zip(first.learnt, second.learnt, strict=True):
        assert (one.rate, one.quality) == (other.rate, other.quality)
        assert one.course.last.losses == other.course.last.losses
        weights = other.model.state_dict()
        for name, weight in one.model.state_dict().items():
            assert torch.equal(weight, weights[name]), name
    return True


def cut(monkeypatch, evaluation, after):
    """Ends the evaluation after so many steps, as a signal would, with all of them kept."""
    left, step = [after], Training._step

    def stop(training, descend):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return step(training, descend)

    with monkeypatch.context() as m:
        m.setattr(Training, "_step", stop)
        m.setattr(checkpoint, "EVERY_S", -1.0)
        with pytest.raises(KeyboardInterrupt):
            learnt(evaluation)


@pytest.mark.parametrize("case", CASES)
def test_rungs_end_where_one_training_does(case, tmp_path):
    whole = learnt(CASES[case])
    kept = replace(CASES[case], checkpoint=str(tmp_path / "kept"))
    for until in (1 / 3, 2 / 3):
        part = learnt(replace(kept, until=until))
        assert part.best.course.last.step < whole.best.course.last.step
    last = learnt(kept)
    assert all(one.course.resumed.startswith("train, step ") for one in last.learnt)
    assert same(last, whole)
    again = learnt(kept)  # all of it is there
    assert again.flops == 0
    assert same(again, whole)


CUT = {
    "statistics": CASES["statistics"],
    "rates": replace(SPOKEN, budget=Budget(4), rates=(1e-3, 6e-3)),
    "pretrained": CASES["tokens"],
}


@pytest.mark.parametrize("case", CUT)
def test_a_kill_at_any_step_changes_nothing(case, tmp_path, monkeypatch):
    whole = learnt(CUT[case])
    steps = sum(sum(one.course.ran.values()) for one in whole.learnt)
    for after in range(0, steps, 2):
        kept = replace(CUT[case], checkpoint=str(tmp_path / str(after)))
        cut(monkeypatch, kept, after)
        last = learnt(kept)
        made = sum(sum(one.course.ran.values()) for one in last.learnt)
        assert made == steps - after
        assert same(last, whole)


def test_a_model_that_draws_goes_on_drawing(tmp_path, monkeypatch):
    def build(_):
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))

    monkeypatch.setattr(train, "build", build)
    whole = learnt(NINE)
    kept = replace(NINE, checkpoint=str(tmp_path / "kept"))
    learnt(replace(kept, until=0.5))
    torch.rand(5)
    assert same(learnt(kept), whole)


@pytest.mark.parametrize("evaluation", [NINE, replace(CASES["rates"], until=0.5)])
def test_the_trained_model_can_be_had_again(evaluation, tmp_path):
    kept = replace(evaluation, checkpoint=str(tmp_path / "kept"))
    values = evaluate(kept).values
    for of, made in ((kept, 0), (evaluation, 1)):
        model, learnt = fitted(of)
        assert (learnt.flops > 0) == made
        assert learnt.quality == values["quality"]
        split = TASKS.load("digits").load()["validation"]
        right = (model(split.inputs).argmax(-1) == split.targets).float().mean().item()
        assert right == pytest.approx(values["quality"])


# It does not take its last step: however late it is killed, it has not ended. The task is one that
# loads no scikit-learn, which would take longer than all the rest.
SCRIPT = """
import pickle, sys, time
sys.path.insert(0, sys.argv[2])
from evaluations import counting
from formwright.search.evaluate import checkpoint
from formwright.search.evaluate.evaluator import evaluate
from formwright.search.evaluate.train import Training
from formwright.search.tasks import TASKS
TASKS._loaded["counting"] = counting(score="bits", pretrain="next")
evaluation = pickle.load(open(sys.argv[1], "rb"))
step = Training._step
def waiting(training, descend):
    if training.step + 1 == evaluation.budget.amount:
        time.sleep(600)
    return step(training, descend)
Training._step = waiting
checkpoint.EVERY_S = 0.0
evaluate(evaluation)
"""


def test_a_killed_process_has_a_successor(tmp_path):
    folder = tmp_path / "kept"
    kept = replace(SPOKEN, budget=Budget(60), checkpoint=str(folder))
    (tmp_path / "evaluation").write_bytes(pickle.dumps(kept))
    given = [str(tmp_path / "evaluation"), str(Path(__file__).parent)]
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, *given])
    ends = time.monotonic() + 300
    while not list(folder.glob("*.training")) and time.monotonic() < ends:
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    measured = evaluate(kept)
    (row,) = measured.details["rates"]
    assert row["resumed"].startswith("train, step ")
    alone = evaluate(replace(kept, checkpoint=""))
    assert measured.values == alone.values
    assert measured.details["train_loss"] == alone.details["train_loss"]


class Evil:
    def __reduce__(self):
        return os.system, ("touch was_run",)


def damaged(path, other):
    """Contents of a file that is not the checkpoint it should be."""
    kept = path.read_bytes()
    yield kept[:-100]
    yield b""
    yield kept[:500] + bytes([kept[500] ^ 1]) + kept[501:]
    yield other.read_bytes()
    pickled = pickle.dumps(Evil(), protocol=2)  # as torch has it
    yield checkpoint.hashlib.sha256(pickled).digest() + pickled


def test_a_file_that_is_not_the_checkpoint_is_as_good_as_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole, kept = learnt(NINE), replace(NINE, checkpoint=str(tmp_path / "kept"))
    learnt(replace(kept, until=0.5))
    other = replace(kept, seed=1)
    learnt(replace(other, until=0.5))
    path, foreign = (Checkpoint(kept.checkpoint, key(e, 6e-3)).path for e in (kept, other))
    for contents in damaged(path, foreign):
        path.write_bytes(contents)
        again = learnt(kept)
        assert again.best.course.resumed == ""
        assert same(again, whole)
    assert not Path("was_run").exists()


def test_data_versions_and_blocks_that_are_others_now_count_too(tmp_path, monkeypatch):
    kept = replace(NINE, checkpoint=str(tmp_path / "kept"), until=0.5)

    def resumed(evaluation=kept):
        return learnt(evaluation).best.course.resumed

    assert resumed() == ""
    assert resumed() != ""
    with monkeypatch.context() as m:
        m.setattr(checkpoint, "code_digest", lambda: "other")
        assert resumed() == ""
    learnt(kept)
    name, data = key(kept, 6e-3), TASKS.load("digits").data_hash()
    assert Checkpoint(kept.checkpoint, name, data).load() is not None
    assert Checkpoint(kept.checkpoint, name, "of other data").load() is None
    build = train.build
    monkeypatch.setattr(train, "build", lambda spec: build(arch(layers=2)))
    assert resumed() == ""


def test_an_earlier_rung_is_trained_anew_and_costs_the_later_one_nothing(tmp_path):
    early = learnt(replace(NINE, until=0.5))
    kept = replace(NINE, checkpoint=str(tmp_path / "kept"))
    whole = learnt(kept)
    path = Checkpoint(kept.checkpoint, key(kept, 6e-3)).path
    before = path.read_bytes()
    assert same(learnt(replace(kept, until=0.5)), early)
    assert path.read_bytes() == before
    assert same(learnt(kept), whole)


def test_what_cannot_be_kept_is_trained_all_the_same(tmp_path):
    (tmp_path / "file").write_text("no folder")
    measured = evaluate(replace(NINE, checkpoint=str(tmp_path / "file" / "kept")))
    assert measured.values == evaluate(NINE).values
    assert "Not a directory" in measured.details["unkept"]


def test_to_forget_deletes_all_of_one_evaluation_and_nothing_else(tmp_path):
    folder = tmp_path / "kept"
    mine = replace(NINE, rates=(1e-3, 6e-3), checkpoint=str(folder))
    other = replace(mine, seed=1)
    for evaluation in (mine, other):
        learnt(replace(evaluation, until=0.5))
    half = folder / f"{key(mine, 1e-3)}.training.0a1b"  # of a writer that was killed
    half.write_bytes(b"half")
    assert len(list(folder.iterdir())) == 5
    forget(replace(mine, until=1.0))
    assert {path.stem for path in folder.iterdir()} == {key(other, rate) for rate in other.rates}
    forget(mine)
    forget(replace(mine, checkpoint=""))


ELSE = {"until", "timeout_s", "metrics", "constraints", "latency", "target", "checkpoint", "rates"}
ELSE |= {"proxies"}
CHANGED = {
    "architecture": arch(layers=2),
    "task": "recall",
    "budget": Budget(9, "tokens"),
    "batch": 17,
    "threads": 2,
    "seed": 6,
    "pretrain": 1,
    "weights": "shared",
}


def test_every_field_is_in_the_name_or_has_nothing_to_do_with_the_training():
    assert {field.name for field in fields(NINE)} == ELSE | set(CHANGED)
    names = {key(replace(NINE, **{name: value}), 6e-3) for name, value in CHANGED.items()}
    assert len(names | {key(NINE, 6e-3), key(NINE, 1e-3)}) == len(CHANGED) + 2


def test_a_training_by_the_clock_goes_on_with_its_clock(tmp_path, monkeypatch):
    reads = itertools.count()  # 8 ms from one to the next, and so a step
    clock = SimpleNamespace(perf_counter=lambda: 0.008 * next(reads))
    monkeypatch.setattr(train, "time", clock)
    kept = replace(TINY, budget=Budget(0.2, "seconds"), checkpoint=str(tmp_path / "kept"))
    first = learnt(replace(kept, until=0.5)).best.course
    then = learnt(kept).best.course
    assert then.resumed == f"train, step {first.last.step}"
    assert first.last.before_s < 0.1 <= first.last.elapsed_s < 0.2 <= then.last.elapsed_s
    assert then.last.before_s < 0.2
    assert then.ran["train"] == then.last.step - first.last.step


@pytest.mark.parametrize("rates", [(9.0,), (9.0, 10.0)])
def test_a_rate_that_diverges_loses_and_only_if_all_do_it_fails(rates, monkeypatch):
    step = Training._step
    monkeypatch.setattr(
        Training, "_step", lambda t, d: None if t.recipe.rate > 1 and t.step == 4 else step(t, d)
    )
    measured = evaluate(replace(NINE, rates=(*rates, 6e-3)))
    assert measured.details["lr"] == 6e-3
    lost = [row for row in measured.details["rates"] if "error" in row]
    assert lost == [{"rate": rate, "error": "diverged at step 5"} for rate in rates]
    with pytest.raises(EvaluationError, match=r"^diverged at step 5"):
        evaluate(replace(NINE, rates=rates))


def test_the_best_of_the_rates_counts():
    rates = (1e-5, 6e-3, 1e-3)
    measured = evaluate(replace(NINE, budget=Budget(40), rates=rates))
    alone = [evaluate(replace(NINE, budget=Budget(40), rates=(rate,))) for rate in rates]
    qualities = [one.values["quality"] for one in alone]
    assert len(set(qualities)) > 1
    assert measured.values["quality"] == max(qualities)
    assert {row["rate"]: row["quality"] for row in measured.details["rates"]} == dict(
        zip(rates, qualities, strict=True)
    )
