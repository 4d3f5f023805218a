"""Peak memory of a call: what is held at once, outputs included, the same in every run."""

import pytest
import torch
from torch import nn

from formwright.search import EvaluationError
from formwright.search.evaluate.latency import compiled, measuring
from formwright.search.evaluate.memory import peak_bytes

CPU = torch.device("cpu")
MB = 250_000  # floats


def test_what_is_held_at_once_counts_and_not_what_was_freed_before():
    x = torch.ones(MB)

    def chain():
        y = x
        for _ in range(10):
            y = y.neg()  # the new one beside the old one, and x was there before
        return y

    def all_kept():
        return [x.neg() for _ in range(10)]

    assert peak_bytes(chain, CPU) == 2 * 4 * MB
    assert peak_bytes(all_kept, CPU) == 10 * 4 * MB


def test_weights_and_inputs_are_not_counted():
    layer, x = nn.Linear(1000, 500), torch.randn(20, 1000)
    with torch.no_grad():
        assert peak_bytes(lambda: layer(x), CPU) == 20 * 500 * 4


def test_what_a_first_call_keeps_is_not_counted():
    kept = []

    def call():
        if not kept:
            kept.append(torch.ones(MB))
        return kept[0].neg()

    assert peak_bytes(call, CPU) == 4 * MB


@pytest.mark.parametrize("target", ["eager", pytest.param("inductor", marks=pytest.mark.inductor)])
def test_of_a_compiled_model_it_is_the_same_every_time(target):
    model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)).eval()
    x = torch.randn(32, 64)
    with measuring(1):
        call = compiled(model, (x,), target).call
        found = {peak_bytes(call, CPU) for _ in range(3)}

    assert len(found) == 1
    assert 32 * (256 + 64) * 4 <= found.pop() <= 32 * (2 * 256 + 64) * 4


def test_other_devices_are_not_known():
    with pytest.raises(EvaluationError, match="not on meta"):
        peak_bytes(lambda: None, torch.device("meta"))


def test_a_call_that_takes_no_memory():
    with pytest.raises(EvaluationError, match="saw no memory"):
        peak_bytes(lambda: None, CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu():
    x = torch.ones(MB, device="cuda")
    assert peak_bytes(lambda: [x + at for at in range(4)], x.device) >= 4 * 4 * MB
