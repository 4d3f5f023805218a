"""For authors of logs, here and outside: the laws of `TrialLog` as tests that a log must pass.

    class TestMyLog(LogContract):
        def make(self): return MyLog()
        def cancel(self, log): log.cancel()

pytest collects the tests from the subclass; it is not needed to import this. It is not imported by
the rest of the search. Next: `run/log.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .errors import Fenced
from .objective import Measurement
from .run.log import TrialLog
from .spec import ArchSpec, BlockSpec, LayerSpec, Scalar
from .trial import Trial, TrialState

THREADS = 8
DETAILS: Mapping[str, Any] = {
    "seed": 2**40,
    "machine": {"fingerprint": "m1:ab", "cores": 2, "turbo": None, "load": [0.1, -0.0, 1e-300]},
    "note": "größer → \u0000 \U0001f600",
    "nested": [[], {}, {"deep": [{"er": True}]}],
}


def an_architecture(number: int = 0) -> ArchSpec:
    """A small one; another for each number."""
    mixer = BlockSpec.of("attention", heads=2, bias=False, scale=0.1)
    layer = LayerSpec(mixer, BlockSpec.of("mlp", ratio=2, act="gelu"), BlockSpec("rms"))
    return ArchSpec.of_images((1, 8, 8), 10, 2, 8 * (number + 1), (layer,))


def a_trial(number: int = 0) -> Trial:
    """Trial `number` as it is proposed."""
    params: dict[str, Scalar] = {
        "width": 8 * (number + 1),
        "scale": 0.1,
        "act": "gelu",
        "bias": False,
    }
    return Trial(number, params, an_architecture(number))


def a_measurement(quality: float = 0.1 + 0.2) -> Measurement:
    values = {"quality": quality, "latency_ms": 1 / 3, "params": 123_456_789}
    return Measurement(values, DETAILS)


class LogContract:
    """The tests. A subclass says how a log is made and how its search is cancelled."""

    def make(self) -> TrialLog:
        """A new, empty log of a search that runs."""
        raise NotImplementedError

    def cancel(self, log: Any) -> None:
        """Cancels the search of a log that `make` made."""
        raise NotImplementedError

    def test_a_new_log_is_empty_and_wanted(self) -> None:
        log = self.make()

        assert log.history() == []
        assert log.wanted()

    def test_a_trial_goes_from_pending_to_its_result(self) -> None:
        log, trial = self.make(), a_trial()
        for step in (trial, trial.started(), trial.started().succeeded(a_measurement())):
            log.append(step)

            assert log.history() == [step]

    def test_what_comes_back_is_what_was_appended(self) -> None:
        log, done = self.make(), a_trial().started().succeeded(a_measurement())
        _append(log, a_trial(), a_trial().started(), done)

        (found,) = log.history()

        assert found == done
        assert dict(found.details) == dict(DETAILS)
        assert found.architecture.fingerprint() == done.architecture.fingerprint()
        kinds = {name: type(value) for name, value in found.params.items()}
        assert kinds == {name: type(value) for name, value in done.params.items()}

    def test_events_come_back_in_the_order_of_appending(self) -> None:
        log, first = self.make(), a_trial().started()
        climbed = first.climbed(a_measurement())
        steps = [a_trial(0), a_trial(1), first, a_trial(1).started(), climbed, climbed.started()]
        log.append(*steps[:2])
        log.append(*steps[2:])
        log.append()

        assert [_bare(trial) for trial in log.events()] == [_bare(trial) for trial in steps]

    def test_what_is_appended_together_is_taken_whole_or_not(self) -> None:
        log, started = self.make(), a_trial().started()
        log.append(a_trial(), started)
        before = log.events()
        for wrong in (a_trial(7), started, a_trial(1).started()):
            try:
                log.append(started.succeeded(a_measurement()), wrong)
            except Fenced:
                assert log.history() == [started]
                assert log.events() == before
            else:
                raise AssertionError("took what cannot follow")

    def test_a_trial_climbs(self) -> None:
        log, started = self.make(), a_trial().started()
        above = started.climbed(a_measurement())
        log.append(a_trial(), started)
        _refuses(log, replace(above, rung=2))
        _refuses(log, replace(above, attempt=2))
        log.append(above)
        _refuses(log, started.succeeded(a_measurement()))
        _refuses(log, above.again("lost"))
        lost = above.started().again("the worker was lost")
        end = lost.started().succeeded(a_measurement(0.9))
        log.append(above.started(), lost, lost.started(), end)

        assert log.history() == [end]
        assert end.values["quality"] == 0.9
        assert (end.rung, end.attempt) == (1, 2)

    def test_the_history_is_by_number(self) -> None:
        log = self.make()
        trials = [a_trial(number) for number in range(12)]
        _append(log, *trials)
        for number in (11, 3, 7):
            trials[number] = trials[number].started()
            log.append(trials[number])

        assert log.history() == trials

    def test_numbers_have_no_gaps(self) -> None:
        log = self.make()
        _refuses(log, a_trial(1))
        log.append(a_trial(0))
        _refuses(log, a_trial(2))
        log.append(a_trial(1))

    def test_a_trial_begins_pending_in_attempt_1(self) -> None:
        log, trial = self.make(), a_trial()
        for state in TrialState:
            if state is not TrialState.PENDING:
                _refuses(log, Trial(0, trial.params, trial.architecture, state))
        _refuses(log, trial.again("lost"))

    def test_a_trial_is_not_appended_twice(self) -> None:
        log = self.make()
        for step in (a_trial(), a_trial().started()):
            log.append(step)
            _refuses(log, step)

    def test_pending_cannot_succeed_or_fail(self) -> None:
        log, trial = self.make(), a_trial()
        log.append(trial)
        _refuses(log, trial.succeeded(a_measurement()))
        _refuses(log, trial.failed("it was not even started"))

    def test_a_final_state_is_final(self) -> None:
        started = a_trial().started()
        ends = started.succeeded(a_measurement()), started.failed("x"), started.pruned("x")
        for end in ends:
            log = self.make()
            _append(log, a_trial(), started, end)
            for after in (*ends, a_trial(), started, started.again("lost"), end.again("lost")):
                _refuses(log, after)

    def test_a_lost_trial_is_tried_again(self) -> None:
        log, first = self.make(), a_trial().started()
        second = first.again("the worker was lost")
        _append(log, a_trial(), first, second)

        assert log.history() == [second]
        assert log.history()[0].attempt == 2
        _append(log, second.started(), second.started().succeeded(a_measurement()))

    def test_an_older_attempt_is_refused(self) -> None:
        log, first = self.make(), a_trial().started()
        second = first.again("the worker was lost")
        _append(log, a_trial(), first, second)
        _refuses(log, first)
        _refuses(log, first.succeeded(a_measurement()))
        log.append(second.started())
        _refuses(log, first.succeeded(a_measurement()))
        _refuses(log, first.again("lost"))
        log.append(second.started().failed("diverged"))

    def test_an_attempt_is_not_skipped(self) -> None:
        log, started = self.make(), a_trial().started()
        _append(log, a_trial(), started)
        _refuses(log, started.again("lost").again("lost"))

    def test_a_trial_keeps_its_genes_and_architecture(self) -> None:
        log, trial = self.make(), a_trial()
        log.append(trial)
        other = a_trial(1)
        running = TrialState.RUNNING
        _refuses(log, Trial(0, other.params, trial.architecture, running))
        _refuses(log, Trial(0, trial.params, other.architecture, running))

    def test_two_trials_may_have_one_architecture(self) -> None:
        log = self.make()
        same = [Trial(number, {"gene": number}, an_architecture()) for number in range(2)]
        _append(log, *same)

        assert log.history() == same

    def test_a_cancelled_search_takes_nothing(self) -> None:
        log, pending = self.make(), a_trial(2)
        done = a_trial(0).started().succeeded(a_measurement())
        _append(log, a_trial(0), a_trial(0).started(), done, a_trial(1), a_trial(1).started())
        log.append(pending)
        self.cancel(log)

        assert not log.wanted()
        first, *rest = log.history()
        assert first == done
        assert [trial.state for trial in rest] == [TrialState.PRUNED] * 2
        assert all(trial.error for trial in rest)
        for trial in (a_trial(3), a_trial(1).started().succeeded(a_measurement())):
            _refuses(log, trial)

    def test_one_of_many_writers_wins(self) -> None:
        log, started = self.make(), a_trial().started()
        _append(log, a_trial(), started)
        results = [started.succeeded(a_measurement(at / THREADS)) for at in range(THREADS)]

        won = _race(log, results)

        assert len(won) == 1
        assert log.history() == won

    def test_one_of_many_proposals_gets_the_number(self) -> None:
        log = self.make()
        same = [Trial(0, {"gene": at}, an_architecture(at)) for at in range(THREADS)]

        won = _race(log, same)

        assert len(won) == 1
        assert log.history() == won


def _bare(trial: Trial) -> Trial:
    return replace(trial, details={})


def _append(log: TrialLog, *trials: Trial) -> None:
    for trial in trials:
        log.append(trial)


def _refuses(log: TrialLog, trial: Trial) -> None:
    """Fenced is raised, and nothing has changed."""
    before = log.history()
    try:
        log.append(trial)
    except Fenced:
        assert log.history() == before
    else:
        raise AssertionError(f"took trial {trial.number}, {trial.state} in {trial.attempt}")


def _race(log: TrialLog, trials: list[Trial]) -> list[Trial]:
    """Appends each in a thread of its own, all at once; those that were taken."""
    gate = threading.Barrier(len(trials))
    won: list[Trial] = []
    lost: list[Exception] = []

    def append(trial: Trial) -> None:
        gate.wait()
        try:
            log.append(trial)
            won.append(trial)
        except Exception as error:
            lost.append(error)

    threads = [threading.Thread(target=append, args=(trial,)) for trial in trials]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(error, Fenced) for error in lost), lost
    return won
