"""The generated code is what the proto file says, and the proto file keeps to its style."""

import importlib.util
import re
from pathlib import Path

import pytest

from formwright.search import SearchSpec, TrialState
from formwright.search.testing import an_architecture
from formwright.service import SearchState
from formwright.service.convert import (
    from_spec,
    from_trial_state,
    to_search_state,
    to_spec,
    to_trial_state,
)
from formwright.service.errors import InvalidRequest
from formwright.service.wire import search_pb2 as pb

ROOT = Path(__file__).resolve().parents[2]
WIRE = ROOT / "service" / "wire"
PROTO = ROOT / "proto" / "formwright" / "v1" / "search.proto"


def test_generating_again_gives_the_same(tmp_path):
    spec = importlib.util.spec_from_file_location("generate", ROOT / "proto" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    generate.generate(tmp_path)

    made = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    kept = {
        path.name: path.read_text(encoding="utf-8")
        for path in WIRE.iterdir()
        if path.suffix in (".py", ".pyi") and path.name != "__init__.py"
    }
    assert made == kept


def test_every_rpc_has_its_own_request_and_response():
    text = PROTO.read_text(encoding="utf-8")
    rpcs = re.findall(r"rpc (\w+)\((\w+)\)\s+returns \((?:stream )?(\w+)\)", text)

    assert len(rpcs) == len(pb.DESCRIPTOR.services_by_name["SearchService"].methods)
    for name, request, response in rpcs:
        assert (request, response) == (f"{name}Request", f"{name}Response")


FULL = SearchSpec(
    knobs=("depth=2",),
    constraints=("params<=20000", "quality>=0.9"),
    baselines=(an_architecture().to_json(),),
    budget="2000000 tokens",
    rates=(1e-3, 6e-3, 2e-2),
    pretrain=100,
    space="matformer",
    keep=4,
    audit=0.1,
    latency="layers",
    weights="shared",
    seconds=3600,
    flops=1e15,
    proxies=("params", "snip"),
)


@pytest.mark.parametrize("spec", [SearchSpec(), FULL], ids=["default", "full"])
def test_a_spec_comes_back_as_it_was_sent(spec):
    assert from_spec(pb.SearchSpec.FromString(to_spec(spec).SerializeToString())) == spec
    fields = {field.name for field in pb.SearchSpec.DESCRIPTOR.fields}
    assert fields == set(SearchSpec.__dataclass_fields__)


@pytest.mark.parametrize("state", SearchState)
def test_every_state_of_a_search_is_on_the_wire(state):
    assert pb.SearchState.Name(to_search_state(state)) == f"SEARCH_STATE_{state}"
    assert len(pb.SearchState.keys()) == len(SearchState) + 1


@pytest.mark.parametrize("state", TrialState)
def test_every_state_of_a_trial_is_on_the_wire(state):
    assert from_trial_state(to_trial_state(state)) is state
    assert len(pb.TrialState.keys()) == len(TrialState) + 1


@pytest.mark.parametrize("state", [0, 99])
def test_a_state_that_is_none_is_refused(state):
    with pytest.raises(InvalidRequest):
        from_trial_state(state)
