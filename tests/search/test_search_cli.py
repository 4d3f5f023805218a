"""`formwright blocks` and `formwright spaces`, as a user calls them."""

import json
from pathlib import Path

import pytest

from formwright.__main__ import main
from formwright.search import BLOCKS, SPACES


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
