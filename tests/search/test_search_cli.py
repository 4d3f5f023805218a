"""`formwright blocks`, `formwright spaces` and `formwright describe`, as a user calls them."""

import io
import json
import random
from pathlib import Path
from xml.etree import ElementTree

import pytest

from formwright.__main__ import main
from formwright.search import BLOCKS, SPACES, cost_of, pattern
from formwright.search.space import Signature

DIGITS = Signature.of_images((1, 8, 8), 10)


@pytest.mark.parametrize(("command", "names"), [("blocks", BLOCKS), ("spaces", SPACES)])
def test_everything_is_listed(command, names, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert main([command]) == 0
    table = capsys.readouterr().out
    assert main([command, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert [row["name"] for row in rows] == names.names()
    assert all(name in table for name in names.names())


def test_one_block(capsys):
    assert main(["blocks", "mamba2", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)

    assert row["settings"] == dict.fromkeys(
        ("expand", "head_width", "state", "conv", "chunk"), "int"
    )
    assert (row["kind"], row["symbol"], row["sees"]) == ("mixer", "M", "earlier tokens")


def test_the_size_of_a_space(capsys):
    assert main(["spaces", "metaformer", "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["size"] == SPACES.load("metaformer").size()


@pytest.mark.parametrize("command", ["blocks", "spaces"])
def test_a_wrong_name_is_refused(command, capsys):
    assert main([command, "metafromer"]) == 2

    said = capsys.readouterr().err
    assert said.startswith(f"formwright {command}: unknown")
    assert "'metafromer'" in said


@pytest.mark.parametrize("name", SPACES.names())
def test_the_page_says_how_large_a_space_is(name):
    page = (Path(__file__).parents[2] / "docs" / "search.md").read_text()

    (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
    assert row.endswith(f"| {SPACES.load(name).size():,} |")


# --- describe -------------------------------------------------------------------------------------

SPECS = {
    name: SPACES.load(name).decode(SPACES.load(name).sample(random.Random(3)), DIGITS)
    for name in SPACES.names()
}


@pytest.mark.parametrize("name", SPECS)
def test_the_parts_cost_what_the_whole_costs(name, capsys):
    spec = SPECS[name]
    assert main(["describe", spec.to_json(), "--json"]) == 0
    parts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    total = cost_of(spec)

    assert sum(part["params"] for part in parts) == total.params
    assert sum(part["flops"] for part in parts) == total.flops
    assert sum(part["state"] for part in parts) == total.state
    assert sum(part["activations"] for part in parts) == total.activations


@pytest.mark.parametrize("way", ["file", "-", "text"])
def test_a_spec_is_read_from_anywhere(way, tmp_path, monkeypatch, capsys):
    spec = SPECS["hybrid_mamba"]
    path = tmp_path / "spec.json"
    path.write_text(spec.to_json())
    monkeypatch.setattr("sys.stdin", io.StringIO(spec.to_json()))
    given = {"file": str(path), "-": "-", "text": spec.to_json()}[way]

    assert main(["describe", given]) == 0
    said = capsys.readouterr().out
    assert pattern(spec) in said
    assert f"{cost_of(spec).params:,} parameters" in said
    assert said.splitlines()[-1] == spec.fingerprint()


@pytest.mark.parametrize("name", SPECS)
def test_the_drawing(name, tmp_path, capsys):
    spec = SPECS[name]
    assert main(["describe", spec.to_json(), "--svg", str(tmp_path / "a.svg")]) == 0
    text = (tmp_path / "a.svg").read_text()
    root = ElementTree.fromstring(text)
    svg = "{http://www.w3.org/2000/svg}"

    blocks = sum(b is not None for layer in spec.layers for b in (layer.mixer, layer.channel))
    assert len(root.findall(f"{svg}g/{svg}rect")) >= blocks
    assert root.find(f"{svg}title").text.endswith(spec.short())
    assert text.count("http") == 1  # the name of the format: nothing comes from outside
    for rect in root.iter(f"{svg}rect"):
        assert 0 <= float(rect.get("y")) + float(rect.get("height")) <= float(root.get("height"))
        assert 0 <= float(rect.get("x")) + float(rect.get("width")) <= float(root.get("width"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere.json", "No such file"),
        ("{", "not JSON"),
        ('{"schema": 9}', "9 is not known here"),
        (SPECS["metaformer"].to_json().replace('"mlp"', '"mpl"'), "Did you mean 'mlp'"),
        (SPECS["metaformer"].to_json().replace('"gelu"', '"spam"'), "an activation is one of"),
        (SPECS["metaformer_staged"].to_json().replace('"classes"', '"language"', 1), "language"),
    ],
    ids=["file", "json", "schema", "name", "activation", "head"],
)
def test_what_is_no_spec_is_refused(given, said, capsys):
    assert main(["describe", given]) == 2

    error = capsys.readouterr().err
    assert error.startswith("formwright describe: ")
    assert said in error
