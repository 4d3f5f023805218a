"""An artefact says what is true: its numbers are the evaluator's, and the test split comes last."""

import json
import math
import re
import statistics
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from formwright.search import EvaluationError, Trial, canonical, keep, load
from formwright.search.artefact.agreement import prove
from formwright.search.artefact.seeds import evaluations
from formwright.search.evaluate import shared
from formwright.search.evaluate.evaluator import evaluate
from formwright.search.evaluate.failure import Deadline
from formwright.search.evaluate.train import Batches
from formwright.search.run.ladder import planned
from formwright.search.run.loop import evaluation
from formwright.search.space import matformer
from formwright.search.tasks import TASKS, Split, Task

from .artefacts import BARE, FILES, TINY, kept, metrics_of, names, quick, quickly
from .evaluations import arch, counting, tokens_arch

__all__ = ["quick"]
ARCH = canonical(arch())
LATER = Deadline(math.inf, 600)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, metrics) of three seeds."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch, folder)
        found = keep(ARCH, TINY, folder / "one", seeds=3)
    return found.folder, found.metrics


def searched(spec, architecture=ARCH):
    """What the search itself measures of it."""
    return evaluate(evaluation(spec, Trial(0, {}, architecture), planned(spec)[-1]))


def test_the_folder_is_whole(made):
    folder, metrics = made

    assert names(folder) == FILES
    assert metrics_of(folder) == metrics
    assert json.loads((folder / "report.json").read_text())["graphs"] == 1
    assert set(metrics["values"]) == {
        *("quality", "latency_ms", "latency_p95_ms", "latency_ratio", "throughput", "peak_bytes"),
        *("params", "flops", "activation_bytes", "state_bytes"),
    }
    assert list(metrics["undefined"]) == ["decode_ms"]
    assert metrics["data"] == TASKS.load("digits").record()
    assert not list((folder.parent / "cache" / "trainings").glob("*.training"))


def test_each_seed_is_trained_as_a_search_with_that_seed_does(made, quick):
    _, metrics = made
    qualities = [row["values"]["quality"] for row in metrics["seeds"]]

    for more in range(3):
        spec = replace(TINY, seed=TINY.seed + more, objectives=("quality",))
        measured = searched(spec)
        assert measured.values["quality"] == qualities[more]
        assert measured.details["seed"] == metrics["seeds"][more]["seed"]
    assert len(set(qualities)) > 1


def test_the_best_on_validation_is_kept_and_the_spread_is_told(made):
    _, metrics = made
    qualities = [row["values"]["quality"] for row in metrics["seeds"]]
    tests = [row["test"]["quality"] for row in metrics["seeds"]]
    spread = metrics["spread"]

    assert metrics["kept"] == qualities.index(max(qualities))
    assert metrics["values"]["quality"] == max(qualities)
    assert metrics["test"]["quality"] == tests[metrics["kept"]]
    for name, values in (("quality", qualities), ("test_quality", tests)):
        assert spread[name]["values"] == values
        assert spread[name]["n"] == 3
        assert spread[name]["mean"] == pytest.approx(sum(values) / 3)
        assert spread[name]["std"] == pytest.approx(statistics.stdev(values))
        assert (spread[name]["min"], spread[name]["max"]) == (min(values), max(values))
    assert set(spread) == {"test_quality", *metrics["values"]}


def test_what_is_loaded_scores_what_is_said(made):
    folder, metrics = made
    _, model = load(folder)
    for name, said in (("validation", metrics["validation"]), ("test", metrics["test"])):
        split = TASKS.load("digits").load()[name]
        with torch.no_grad():
            right = (model(split.inputs).argmax(-1) == split.targets).sum().item()
        assert right / len(split.targets) == said["quality"]


def test_the_proof_is_of_every_batch_on_both_kinds_of_inputs(made):
    _, metrics = made
    proof = metrics["agreement"]

    assert proof["passed"]
    cases = {(case["inputs"], case["batch"]) for case in proof["cases"]}
    assert cases == {(kind, size) for kind in ("validation", "random") for size in (1, 3, 16)}
    assert all(0 < law["bound"] < 1e-2 for law in proof["laws"])
    assert max(case["rounding"] for case in proof["cases"]) > 0


def test_the_card_says_how_to_load_it_and_that_works_elsewhere(made, tmp_path):
    folder, metrics = made
    card = (folder / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    after = (
        "import torch\n"
        "torch.manual_seed(0)\n"
        "torch.save(model(torch.randn(4, 1, 8, 8)), 'out')\n"
        "print(spec.fingerprint(), model.training)\n"
    )
    assert "float32 `[batch, 1, 8, 8]`" in card
    assert len([line for line in code.splitlines() if line]) <= 3

    done = subprocess.run(
        [sys.executable, "-c", code + after],
        capture_output=True, text=True, cwd=folder.parent, timeout=600,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [ARCH.fingerprint(), "False"]
    torch.manual_seed(0)
    expected = load(folder)[1](torch.randn(4, 1, 8, 8))
    assert torch.equal(torch.load(folder.parent / "out"), expected)
    for number in ("quality", "latency_ms", "params"):
        assert f"| {number} " in card
    assert metrics["command"] in card


def test_nothing_before_the_last_step_depends_on_the_test_split(monkeypatch, tmp_path, quick):
    """Another test split changes the scores there, and nothing else; it is opened once, when
    everything was measured."""
    told = []

    class Splits(dict):
        def __getitem__(self, name):
            if name == "test" and sys._getframe(1).f_code.co_name != "_hashed":
                told.append("test")
            return super().__getitem__(name)

    task, found = TASKS.load("digits"), []
    digits = task.load()
    turned = digits | {"test": Split(digits["test"].inputs, digits["test"].targets * 0)}
    for splits in (Splits(digits), Splits(turned)):
        told.clear()
        monkeypatch.setitem(TASKS._loaded, "digits", replace(task, load=lambda s=splits: s))
        folder = tmp_path / str(len(found))
        kept(folder, BARE, seeds=2, progress=lambda done, of, what: told.append(what))
        found.append(folder)

        assert told.count("test") == 1
        after = told[told.index("test") + 1 :]
        assert after == ["test split judged"]
    one, other = map(metrics_of, found)
    assert len({(folder / "model.safetensors").read_bytes() for folder in found}) == 1
    assert one["test"] != other["test"]
    assert one["data"] != other["data"]
    assert one["validation"] == other["validation"]
    assert one["agreement"] == other["agreement"]
    assert one["kept"] == other["kept"]


def test_a_language_model(monkeypatch, tmp_path, quick):
    monkeypatch.setitem(TASKS._loaded, "counting", counting(score="bits"))
    spec = replace(TINY, task="counting", rates=(1e-3, 1e-2))

    found = kept(tmp_path / "one", tokens_arch(tied=True), spec)

    assert found.metrics["undefined"] == {}
    assert found.metrics["values"]["decode_ms"] > 0
    assert found.metrics["decoding"]["tokens"] == 11
    assert found.metrics["test"]["bits_per_token"] > 0
    assert {row["rate"] for row in found.metrics["seeds"][0]["rates"]} == {1e-3, 1e-2}
    _, model = load(found.folder)
    assert model.head.linear.weight is model.stem.table.weight
    assert "int64 `[batch, 12]`" in (found.folder / "README.md").read_text()


def test_shared_weights_are_taken_out_of_their_network(monkeypatch, tmp_path, quick):
    monkeypatch.setattr(shared, "_networks", {})
    genes = {"patch": 2, **{f"hidden{at}": of for at, of in enumerate((16, 32, 128, 64))}}
    sub = canonical(matformer.decode(genes, TASKS.load("digits").signature))
    spec = replace(TINY, space="matformer", weights="shared", objectives=("quality",))

    found = kept(tmp_path / "one", sub, spec)

    assert found.metrics["values"]["quality"] == searched(spec, sub).values["quality"]
    assert load(found.folder)[0] == sub


def test_a_seed_that_does_not_learn_is_told(monkeypatch, tmp_path, quick):
    """One example is not finite, and only the second seed draws it."""
    images = torch.randn(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    splits = {n: Split(images.clone(), torch.arange(60) % 10) for n in ("train", "validation")}
    splits["test"] = splits["validation"]
    spec = replace(TINY, task="poisoned", steps=1, batch=20)
    first, second = evaluations(BARE, spec, 2)
    good, bad = (set(Batches(60, 20, e.seed).draw().tolist()) for e in (first, second))
    splits["train"].inputs[min(bad - good)] = float("inf")
    poisoned = Task("poisoned", BARE.signature, lambda: splits)
    monkeypatch.setitem(TASKS._loaded, "poisoned", poisoned)

    found = kept(tmp_path / "one", BARE, spec, 2).metrics

    assert found["failed_seeds"] == {"1": "diverged at step 1"}
    assert found["spread"]["quality"]["n"] == 1
    assert found["spread"]["quality"]["std"] is None
    assert "Seed 1 did not learn" in (tmp_path / "one" / "README.md").read_text()

    splits["train"].inputs.fill_(float("inf"))
    with pytest.raises(EvaluationError, match="with none of 2 seeds: diverged at step 1"):
        kept(tmp_path / "two", BARE, spec, 2)
    assert "two" not in names(tmp_path)


def test_a_compiler_that_is_wrong_in_the_fifth_digit_is_found(tmp_path, quick):
    @torch._dynamo.register_backend
    def nearly_right(graph, inputs):
        return lambda *given: tuple(out * (1 + 2e-5) for out in graph(*given))

    before = names(tmp_path)
    with pytest.raises(EvaluationError, match=r"compiled and eager differ by 2e-05 of the largest"):
        kept(tmp_path / "one", BARE, replace(TINY, target="nearly_right"))
    assert names(tmp_path) - before <= {"quiet", "cache"}


def test_a_model_that_rounds_is_found(quick):
    class Rounds(nn.Module):
        def forward(self, x):
            return (x + 1e5) - 1e5

    agreement = prove(
        Rounds(), ARCH, torch.randn(20, 1, 8, 8),
        batch=4, target="eager", threads=1, deadline=LATER,
    )  # fmt: skip

    rounding, compiled = agreement.laws
    assert compiled.passed
    assert not rounding.passed
    with pytest.raises(EvaluationError, match=r"^fp32 and fp64 differ by 0\.00\d+ of the largest"):
        agreement.check()
