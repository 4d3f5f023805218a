"""Times of a call in turn with the reference: which calls count, and what is left as it was."""

import gc
import threading

import pytest
import torch

from formwright.search import EvaluationError
from formwright.search.evaluate import timing
from formwright.search.evaluate.allocator import keeping_memory
from formwright.search.evaluate.failure import Deadline
from formwright.search.evaluate.quiet import VARIABLE
from formwright.search.evaluate.timing import LEAST, Pair, Times, in_turn, reference, times_of


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "quiet"))


def pair(call, fixed=1.0, *, whole=True, processor=None, faults=0):
    return Pair((call, fixed), processor or (call, fixed), whole, faults)


def run(call=lambda: None, deadline=None):
    return in_turn(call, aim_s=0.01, deadline=deadline or Deadline.after(600))


def test_a_call_and_the_reference_in_turn(monkeypatch):
    made = []
    monkeypatch.setattr(timing, "reference", lambda: lambda: made.append("reference"))
    found = run(lambda: made.append("call"))

    assert made == ["call", "reference"] * (len(made) // 2)
    assert LEAST <= len(found.calls) == len(found.reference) <= len(made) // 2 - timing.WARM_UP
    assert found.clock in ("wall", "processor")


def test_disturbed_calls_are_left_out():
    undisturbed = [pair(2.0, 1.0)] * LEAST
    found = times_of([*undisturbed, *[pair(50.0, 40.0, whole=False)] * LEAST], one_thread=True)

    assert found == Times((2.0,) * LEAST, (1.0,) * LEAST, "wall", 0.5, 0.0)


def test_where_hardly_any_is_undisturbed_processor_time_is_taken():
    made = [pair(2.0)] * (LEAST - 1) + [pair(50.0, 9.0, whole=False, processor=(2.0, 1.0))] * 9
    found = times_of(made, one_thread=True)

    assert (found.clock, found.median_ms, found.ratio) == ("processor", 2.0, 2.0)
    assert max(found.calls) == 2.0
    assert found.disturbed == pytest.approx(9 / (LEAST + 8))


def test_of_many_threads_processor_time_says_nothing():
    made = [pair(50.0, whole=False, processor=(2.0, 1.0))] * LEAST
    assert times_of(made, one_thread=False).calls == (50.0,) * LEAST


def test_medians_ratios_and_percentiles_of_known_times():
    calls = tuple(float(n) for n in range(1, 101))
    found = Times(calls, tuple(n / 2 for n in calls), "wall", 0.0, 1.5)

    assert found.median_ms == 50.5
    assert found.p95_ms == pytest.approx(95.05)
    assert found.reference_ms == 25.25
    assert found.ratio == 2.0
    assert found.record() == {
        "samples": 100,
        "reference_ms": 25.25,
        "clock": "wall",
        "disturbed": 0.0,
        "page_faults": 1.5,
    }


def test_drift_does_not_change_the_ratio():
    drift = [1.0 + at / 10 for at in range(LEAST)]
    found = times_of([pair(3 * slow, slow) for slow in drift], one_thread=True)
    assert found.ratio == pytest.approx(3.0)


def test_page_faults_of_the_call_are_counted():
    found = times_of([pair(1.0, faults=at % 2) for at in range(LEAST)], one_thread=True)
    assert found.faults == 0.5


def test_garbage_is_collected_again_afterwards():
    seen = []
    run(lambda: seen.append(gc.isenabled()))
    assert set(seen) == {False}
    assert gc.isenabled()


def test_memory_that_is_kept_is_touched_once():
    """In another thread too, whose heap is another; however the heap lies at first."""
    found = []

    def big():
        torch.empty(3_000_000).fill_(1.0)

    def measured():
        # of 2930 pages; where the machine takes some back meanwhile, it does not do so each time
        found.append(any(run(big).faults < 100 for _ in range(3)))

    measured()
    other = threading.Thread(target=measured)
    other.start()
    other.join()

    with keeping_memory() as kept:
        pass
    assert found == [True, True] or not kept


def test_a_call_is_warm_once_it_touches_no_new_memory(monkeypatch):
    """And one that always does is measured all the same."""
    made = []

    def touching(calls):
        made.clear()

        def after(call, fixed):
            made.append(call)
            return pair(1.0, faults=2930 if len(made) <= calls else 0)

        monkeypatch.setattr(timing, "_pair", after)
        return run()

    assert touching(12).faults == 0
    assert len(made) == 13 + len(touching(12).calls)
    always = touching(1000)
    assert always.faults == 2930
    assert len(made) == timing.WARM_UP + timing.SETTLING + len(always.calls)


def test_the_time_limit():
    with pytest.raises(EvaluationError, match=r"took longer than 5 s \(warming up\)"):
        run(deadline=Deadline(0.0, 5))


def test_a_machine_that_does_not_become_quiet(monkeypatch):
    def noisy(until):
        raise TimeoutError

    monkeypatch.setattr(timing, "alone", noisy)
    with pytest.raises(EvaluationError, match="waiting for a quiet machine"):
        run()


def test_the_reference_is_the_same_work_every_time():
    assert torch.equal(reference()(), reference()())
