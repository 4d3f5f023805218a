"""Latency added up from layers: the books are right, nothing is measured twice, errors shown."""

from dataclasses import replace

import pytest

from formwright.search import (
    ArchSpec,
    BlockSpec,
    EvaluationError,
    LayerSpec,
    SpecError,
    StageSpec,
    build,
)
from formwright.search.blocks import Site
from formwright.search.evaluate import latency
from formwright.search.evaluate.cache import VARIABLE as CACHE
from formwright.search.evaluate.calibrate import DOUBT, FEW, Calibration
from formwright.search.evaluate.failure import Deadline
from formwright.search.evaluate.latency import measure
from formwright.search.evaluate.layer_latency import (
    LEAST,
    WHOLE,
    measured_alone,
    parts_of,
    predict,
    record,
)
from formwright.search.evaluate.layer_store import Entry, Store
from formwright.search.evaluate.machine import machine
from formwright.search.evaluate.pieces import carrier, halves, pieces, skeleton
from formwright.search.evaluate.quiet import VARIABLE as QUIET
from formwright.search.evaluate.timing import REFERENCE
from formwright.search.layout import lay_out
from formwright.search.space.metaformer import attention

POOL, CONV = BlockSpec.of("pool", size=3), BlockSpec.of("conv", size=3)
COSTS = {"skeleton": 3.0, "pool": 1.0, "conv": 2.0, "mlp": 4.0}  # calls of the reference
OPENED = 0.5  # what any layer costs once


@pytest.fixture(autouse=True)
def _own(monkeypatch, tmp_path):
    monkeypatch.setattr(latency, "AIM_S", 0.01)
    monkeypatch.setenv(QUIET, str(tmp_path / "quiet"))
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))


def mlp(hidden=32):
    return BlockSpec.of("mlp", hidden=hidden, activation="gelu")


def layer(mixer=POOL, channel=None, **more):
    return LayerSpec(mixer, channel or mlp(), "rms", **more)


def images(*layers, width=16, patch=2):
    return ArchSpec.of_images((1, 8, 8), 10, patch, width, layers)


def invented(asked=None, costs=COSTS):
    """Measures without a clock: a model takes what its blocks cost. Notes what it is asked for."""

    def measured(spec, batch, threads, target, deadline):
        if asked is not None:
            asked.append(spec)
        blocks = [b for at in spec.layers for b in (at.mixer, at.channel) if b is not None]
        once = OPENED if spec.layers else 0.0
        ratio = costs["skeleton"] + once + sum(costs[block.name] for block in blocks)
        return Entry(spec.to_json(), ratio / 2, ratio, 0.5)

    return measured


def run(spec, measured=None, *, batch=4, threads=1, deadline=None):
    deadline = deadline or Deadline.after(600)
    return predict(
        spec, batch=batch, threads=threads, target="eager", deadline=deadline, measured=measured
    )


def store(batch=4):
    return Store.of(machine(1, "eager").fingerprint, batch, REFERENCE)


def kept(spec, ratio):
    """As `record` keeps it."""
    store().put(WHOLE, spec.fingerprint(), Entry(spec.to_json(), ratio / 2, ratio, 0.5))


# --- the books ----------------------------------------------------------------------------------


def test_parts_add_up():
    found = run(images(layer(POOL), layer(CONV), layer(POOL)), invented())

    in_calls = {path: round(ms / 0.5, 9) for path, ms in found.parts.items()}
    assert in_calls == {
        "skeleton": 3.0,
        "opened": 0.5,
        "layers[0].mixer": 1.0,
        "layers[0].channel": 4.0,
        "layers[1].mixer": 2.0,
        "layers[1].channel": 4.0,
        "layers[2].mixer": 1.0,
        "layers[2].channel": 4.0,
    }
    assert found.ratio == pytest.approx(19.5)
    assert found.median_ms == pytest.approx(sum(found.parts.values())) == pytest.approx(9.75)
    assert found.machine == machine(1, "eager")


def test_layers_of_stages_are_found_by_their_paths():
    stages = (StageSpec(16, (layer(POOL),)), StageSpec(32, (layer(CONV),), merge=2))
    spec = replace(images(), stages=stages)
    parts = parts_of(spec, lambda spec: invented()(spec, 4, 1, "eager", None))
    assert "stages[0].layers[0].mixer" in parts
    assert "stages[1].layers[0].channel" in parts
    assert sum(parts.values()) == pytest.approx(3 + 0.5 + 1 + 4 + 2 + 4)


def test_what_measures_below_nothing_adds_next_to_nothing():
    found = run(images(layer()), invented(costs=COSTS | {"pool": -1.0}))
    assert found.parts["layers[0].mixer"] == pytest.approx(LEAST * 0.5)


def test_equal_layers_are_measured_once_wherever_they_stand():
    asked = []
    run(images(*[layer(POOL)] * 3), invented(asked))
    # the skeleton, and carriers: with none, one and three small mlps, with pools, with mlps
    assert len(asked) == len(set(asked)) == 6
    assert run(images(*[layer(CONV)] * 3), invented(asked)).new == 1
    assert run(images(layer(POOL, mlp(16))), invented(asked)).new == 0  # that is the small one


def test_another_batch_or_number_of_threads_is_measured_anew():
    asked = []
    run(images(layer()), invented(asked))
    run(images(layer()), invented(asked), batch=8)
    run(images(layer()), invented(asked), threads=2)
    assert len(asked) == 3 * 6


# --- pieces -------------------------------------------------------------------------------------


def test_a_layer_is_cut_in_half_where_that_is_the_same():
    whole = layer()
    for residual in ("pre", "post"):
        cut = dict(halves(replace(whole, residual=residual)))
        assert [(h.mixer, h.channel) for h in cut.values()] == [(POOL, None), (None, mlp())]
        assert {h.residual for h in cut.values()} == {residual}
    parallel = replace(whole, residual="parallel")
    assert list(halves(parallel)) == [("", parallel)]
    assert list(halves(replace(whole, mixer=None, channel=None))) == []
    assert {h.scale for _, h in halves(replace(whole, scale=1e-5))} == {1.0}


def test_halves_have_the_parameters_of_the_whole():
    for residual in ("pre", "post"):
        whole = layer(CONV, residual=residual)
        cut = [half for _, half in halves(whole)]
        assert params(images(whole)) == params(images(*cut))


def params(spec):
    return sum(p.numel() for p in build(spec).parameters())


def test_a_mixer_stands_where_it_stood():
    """Between channel mixers, or beside its like."""

    def carriers(spec):
        for piece in list(pieces(spec))[2:]:
            for _, small in piece.terms:
                yield [b.name for at in small.layers for b in (at.mixer, at.channel) if b]

    assert list(carriers(images(layer()))) == [
        ["mlp", "pool", "mlp", "pool", "mlp"],
        ["mlp"] * 3,
        ["mlp"] * 3,
        ["mlp"],
    ]
    alone = LayerSpec(POOL, None, "rms")
    assert list(carriers(images(alone))) == [["mlp", "pool", "pool"], ["mlp"]]


def test_an_architecture_without_layers_is_its_skeleton():
    assert [piece.path for piece in pieces(images())] == ["skeleton"]
    assert run(images(), invented()).ratio == COSTS["skeleton"]


@pytest.mark.parametrize(
    "site", [Site(16, (4, 2)), Site(8, (12,)), Site(8, (12,), causal=True)], ids=str
)
def test_a_carrier_has_the_site(site):
    made = carrier(site, BlockSpec("rms"), (LayerSpec(attention(site.width, 2), None, "rms"),))
    (stage,) = lay_out(made).stages
    assert stage.site == site


def test_other_grids_have_no_carrier():
    with pytest.raises(EvaluationError, match="3 dimensions"):
        carrier(Site(8, (2, 2, 2)), BlockSpec("rms"), ())


def test_a_skeleton_keeps_what_is_around_layers():
    stages = (StageSpec(16, (layer(),)), StageSpec(32, (layer(),), merge=2))
    spec = replace(images(), stages=stages)
    bare = skeleton(spec)
    assert [(s.width, s.merge, s.layers) for s in bare.stages] == [(16, 1, ()), (32, 2, ())]
    assert (bare.stem, bare.norm, bare.head) == (spec.stem, spec.norm, spec.head)


def test_carriers_do_not_depend_on_the_task():
    one, other = images(layer()), ArchSpec.of_images((3, 16, 16), 2, 4, 16, (layer(),))
    assert skeleton(one) != skeleton(other)
    assert list(pieces(one))[1:] == list(pieces(other))[1:]


# --- errors are shown ---------------------------------------------------------------------------


def test_while_nothing_is_known_the_error_is_large():
    found = run(images(layer()), invented())
    assert (found.error, found.calibration) == (DOUBT, Calibration())
    assert found.error_ms == found.median_ms * DOUBT


def test_whole_models_that_were_measured_correct_the_sum():
    spec = images(layer())
    for depth in range(1, FEW + 1):
        other = images(*[layer()] * depth)
        before = run(other, invented())
        kept(other, 2.0 + 1.5 * (before.ratio if depth == 1 else 3.5 + 5.0 * depth))
    found = run(spec, invented())

    assert found.calibration.models == FEW
    assert found.ratio == pytest.approx(2.0 + 1.5 * 8.5)
    assert found.error == pytest.approx(0.0, abs=1e-6)
    assert sum(found.parts.values()) == pytest.approx(8.5 * 0.5)  # as they were


def test_whole_models_of_unknown_layers_say_nothing_and_cost_nothing():
    asked = []
    kept(images(layer(CONV)), 10.0)
    found = run(images(layer(POOL)), invented(asked))
    assert found.calibration.models == 0
    assert CONV not in [at.mixer for spec in asked for at in spec.layers]
    run(images(layer(CONV)), invented())
    assert run(images(layer(POOL)), invented()).calibration.models == 1


# --- the real thing -----------------------------------------------------------------------------


def test_compiled_timed_predicted_and_compared():
    spec = images(layer(CONV, mlp(16)))
    layout = lay_out(spec)
    example = layout.stem.example(layout.stem_config, 4)
    whole = measure(build(spec), example, target="eager", threads=1, deadline=Deadline.after(600))
    record(spec, whole)  # of layers that nobody has measured
    found = run(spec)
    assert (found.new, found.calibration.models) == (5, 0)  # its mlp is the small one
    assert set(found.parts) == {"skeleton", "opened", "layers[0].mixer", "layers[0].channel"}
    assert found.median_ms >= found.parts["skeleton"] > 0

    record(spec, whole)
    after = run(spec)
    assert after.new == 0
    assert after.calibration.models == 1
    assert after.calibration.typical == pytest.approx(abs(found.ratio / whole.ratio - 1))


def test_causal_layers_are_measured_on_tokens():
    site = Site(8, (6,), causal=True)
    small = carrier(site, BlockSpec("rms"), (LayerSpec(attention(8, 2), None, "rms"),))
    entry = measured_alone(small, 2, 1, "eager", Deadline.after(600))
    assert entry.ratio > 0
    assert ArchSpec.from_json(entry.architecture) == small


def test_what_cannot_be_built_is_told_as_always():
    with pytest.raises(SpecError, match="heads"):
        run(images(LayerSpec(BlockSpec.of("attention", heads=0), None, "rms")), invented())
