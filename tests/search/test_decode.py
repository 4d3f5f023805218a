"""The time of one step of generation, and what is said of models that have none."""

import json

import pytest
import torch
from torch import nn

from formwright.search import ArchSpec, BlockSpec, EvaluationError, LayerSpec, StageSpec, build
from formwright.search.evaluate import decode as module
from formwright.search.evaluate import latency
from formwright.search.evaluate.decode import decode
from formwright.search.evaluate.failure import Deadline
from formwright.search.evaluate.quiet import VARIABLE
from formwright.search.space.metaformer import attention

LENGTH = 12
MAMBA = BlockSpec.of("mamba2", expand=2, head_width=8, state=8, conv=4, chunk=4)


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    monkeypatch.setattr(latency, "AIM_S", 0.01)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "quiet"))


def language(*mixers, causal=True, head="language"):
    stem = BlockSpec.of("tokens", vocabulary=11, length=LENGTH, causal=causal, positions=True)
    layers = tuple(LayerSpec(mixer, None, "rms") for mixer in mixers)
    heads = {
        "language": BlockSpec.of("language", tied=False),
        "classes": BlockSpec.of("classes", classes=2),
    }
    return ArchSpec(stem, (StageSpec(16, layers),), BlockSpec("rms"), heads[head])


def tokens():
    return torch.randint(11, (4, LENGTH))


def run(model, example, deadline=None):
    deadline = deadline or Deadline.after(600)
    return decode(model, example, target="eager", threads=1, deadline=deadline)


def test_a_step_of_a_hybrid_is_compiled_and_measured_at_the_end():
    found = run(build(language(MAMBA, attention(16, 2))), tokens())

    assert found.uncompiled == ""
    assert found.graph_hash
    assert found.tokens == LENGTH - 1
    assert found.values() == {"decode_ms": found.times.median_ms}
    json.dumps(found.record(), allow_nan=False)


def test_what_is_stepped_is_what_a_whole_call_would_say():
    """The state is that of the sequence, or the time would be of a shorter one."""
    model, example, seen = build(language(attention(16, 2))), tokens(), []
    step = model.step

    def looking(inputs, state):
        seen.append((inputs.clone(), state))
        return step(inputs, state)

    model.step = looking
    run(model, example)

    inputs, (at, _) = seen[-1]
    assert inputs.tolist() == example[:1, -1].tolist()
    assert at.tolist() == [LENGTH - 1]


def test_series_are_stepped_by_stretches():
    stem = BlockSpec.of("series", channels=3, length=12, patch=4, causal=True, positions=False)
    head = BlockSpec.of("token_classes", classes=2)
    layers = (LayerSpec(MAMBA, None, "rms"),)
    spec = ArchSpec(stem, (StageSpec(16, layers),), BlockSpec("rms"), head)
    assert run(build(spec), torch.randn(2, 3, 12)).tokens == 2


def test_where_a_step_cannot_be_compiled_it_is_measured_as_it_is(monkeypatch):
    def refuse(*_):
        raise EvaluationError("no such thing")

    monkeypatch.setattr(module, "compiled", refuse)
    found = run(build(language(MAMBA)), tokens())

    assert (found.uncompiled, found.graph_hash) == ("no such thing", "")
    assert found.times.median_ms > 0


@pytest.mark.parametrize("changed", [{"causal": False}, {"head": "classes"}])
def test_models_that_cannot_step(changed):
    with pytest.raises(EvaluationError, match="decode_ms cannot be measured: only a causal stem"):
        run(build(language(attention(16, 2), **changed)), tokens())


def test_modules_that_know_no_steps():
    class Flat(nn.Module):
        stem = nn.Embedding(11, 4)

    with pytest.raises(EvaluationError, match=r"no begin\(\) and step\(\)"):
        run(Flat(), tokens())
    with pytest.raises(EvaluationError, match="wants sequences"):
        run(nn.Linear(3, 3), torch.randn(4, 3))


def test_the_time_limit():
    with pytest.raises(EvaluationError, match=r"took longer than 5 s \(decoding\)"):
        run(build(language(MAMBA)), tokens(), Deadline(0.0, 5))
