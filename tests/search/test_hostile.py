"""What adversaries tried: broken plug-ins, strange values, logs of others. Each gets a clear error
or a failed trial; nothing raw, nothing silent."""

import copy
import enum
import pickle
from dataclasses import replace

import pytest

from formwright.search import (
    ArchSpec,
    BlockSpec,
    Measurement,
    MemoryLog,
    Result,
    SearchError,
    SearchSpec,
    SpecError,
    TrialState,
    UnknownNameError,
    drive,
)
from formwright.search.propose import SAMPLERS, Sampler
from formwright.search.run.pool import SerialPool
from formwright.search.space import SPACES, OneOf, Rule, Space
from formwright.search.space.metaformer import SPACE, decode

SPEC = SearchSpec(trials=3, target="eager")
GOOD = {"quality": 0.5, "latency_ms": 1.0, "params": 10.0}


def good(evaluation):
    return Measurement(GOOD)


def with_space(monkeypatch, **changed):
    monkeypatch.setitem(SPACES._loaded, "metaformer", replace(SPACE, **changed))


def raises(*given):
    raise KeyError("width")


def misfits(*given):
    raise SpecError("too small", "image")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"decode": raises}, "the space 'metaformer' fails: KeyError: 'width'"),
        ({"decode": lambda *given: "x"}, "the space 'metaformer' made a str, not an ArchSpec"),
        ({"decode": misfits}, "the space 'metaformer' holds nothing for this task: image: too"),
        (
            {"rules": (Rule(("depth",), raises, "no"),)},
            "the space 'metaformer' fails: KeyError",
        ),
        (
            {"rules": (Rule(("depth",), lambda _: False, "no"),)},
            "nothing drawn keeps its rules: no",
        ),
    ],
)
def test_a_broken_space_is_named(monkeypatch, changed, says):
    with_space(monkeypatch, **changed)
    log = MemoryLog()
    with pytest.raises(SpecError, match=says):
        drive(SPEC, SerialPool(good), log)
    assert log.history() == []


class Broken:
    def __init__(self, at):
        self.at = at

    def ask(self, number, draw):
        if self.at == "nothing":
            return None
        return raises() if self.at == "ask" else {g.name: g.choices[-1] for g in SPACE.genes}

    def tell(self, trial):
        if self.at == "tell":
            raises()


@pytest.mark.parametrize("at", ["make", "ask", "tell", "nothing"])
def test_a_broken_sampler_is_named(monkeypatch, at):
    make = raises if at == "make" else lambda *given: Broken(at)
    monkeypatch.setitem(SAMPLERS._loaded, "tpe", Sampler("tpe", make))
    with pytest.raises(SpecError, match=r"the s(ampler 'tpe'|pace 'metaformer') fails"):
        drive(SPEC, SerialPool(good), MemoryLog())


def test_a_search_that_cannot_succeed_ends_early():
    def evaluate(evaluation):
        raise RuntimeError("no such target")

    log = MemoryLog()
    with pytest.raises(
        SearchError, match="the first 10 trials failed alike: RuntimeError: no such"
    ):
        drive(replace(SPEC, trials=20), SerialPool(evaluate), log)
    ended = [trial for trial in log.history() if trial.state.final]
    assert len(ended) == 10
    assert len(log.history()) == 11  # one was prepared ahead


@pytest.mark.parametrize(
    "genes",
    [
        (),
        (OneOf("a", ()),),
        (OneOf("a", (1, 1)),),
        (OneOf("a", (float("nan"),)),),
        (OneOf("a", (1,)), OneOf("a", (2,))),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(genes):
    with pytest.raises(SpecError):
        Space("s", genes, decode)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (None, "wanted a Measurement, got NoneType"),
        (Measurement({"quality": 1.0}), "was not measured: latency_ms, params"),
        (Measurement({**GOOD, "quality": float("nan")}), "not a finite number: quality"),
        (SystemExit(3), "SystemExit: 3"),
    ],
)
def test_a_useless_measurement_is_a_failed_trial(made, says):
    def evaluate(evaluation):
        if isinstance(made, BaseException):
            raise made
        return made

    log = MemoryLog()
    drive(SPEC, SerialPool(evaluate), log)
    assert [(t.state, t.error) for t in log.history()] == [(TrialState.FAILED, says)] * 3


def test_a_log_of_another_space_is_refused(monkeypatch):
    log = MemoryLog()
    drive(SPEC, SerialPool(good), log)
    small = replace(SPACE, genes=(*SPACE.genes[1:], OneOf("patch", (4,))))
    monkeypatch.setitem(SPACES._loaded, "metaformer", small)
    with pytest.raises(SpecError):
        drive(replace(SPEC, trials=5), SerialPool(good), log)


def test_a_log_with_one_architecture_twice_goes_on():
    log = MemoryLog()
    drive(replace(SPEC, trials=1), SerialPool(good), log)
    again = replace(log.history()[0], number=1, state=TrialState.PENDING, values={}, details={})
    log.append(again)
    drive(SPEC, SerialPool(good), log)
    assert [trial.state for trial in log.history()] == [TrialState.SUCCEEDED] * 3


def test_many_trials_stay_distinct_when_the_sampler_repeats_itself():
    log = MemoryLog()
    drive(replace(SPEC, trials=60), SerialPool(good), log)
    monotone = Sampler("same", lambda *given: Broken("never"))
    SAMPLERS._loaded["random"], kept = monotone, SAMPLERS.load("random")
    try:
        log = MemoryLog()
        drive(replace(SPEC, trials=60, sampler="random"), SerialPool(good), log)
    finally:
        SAMPLERS._loaded["random"] = kept
    assert len({trial.architecture.fingerprint() for trial in log.history()}) == 60


class Act(enum.StrEnum):
    GELU = "gelu"


class Size(enum.IntEnum):
    BIG = 4


def test_equal_specs_are_equal_text():
    plain = BlockSpec("b", (("act", "gelu"), ("size", 4)))
    fancy = BlockSpec("b", (("size", Size.BIG), ("act", Act.GELU)))
    assert (plain, hash(plain)) == (fancy, hash(fancy))
    assert plain.to_dict() == fancy.to_dict()
    different = [BlockSpec.of("b", x=value) for value in (1, 1.0, True, "1")]
    assert len(set(different)) == 4
    spec = ArchSpec.of_images((1, 8, 8), 10, 2, 16, [])
    assert ArchSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, [], {}])
def test_a_setting_is_a_plain_finite_value(value):
    with pytest.raises(SpecError):
        BlockSpec.of("b", x=value)
    with pytest.raises(SpecError):
        BlockSpec("b", (("x", 1), ("x", 2)))


@pytest.mark.parametrize("objectives", [[[]], [{}], [None], "quality", [], None])
def test_strange_objectives_are_refused(objectives):
    with pytest.raises(SpecError):
        SearchSpec.from_dict({"objectives": objectives})
    if objectives and isinstance(objectives, list):
        with pytest.raises(SpecError):
            Result(SPEC, ()).front(objectives)


@pytest.mark.parametrize(
    "error", [UnknownNameError("space", "x", ["y"], "space"), SpecError("no", "layers[0]")]
)
def test_errors_travel_between_processes(error):
    for twin in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert (type(twin), str(twin), twin.field) == (type(error), str(error), error.field)
