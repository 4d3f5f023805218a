"""docs/architectures.md is true: its example runs, and every row of every table is on it."""

import re
import runpy
from pathlib import Path

import pytest

from formwright.search import BLOCKS, HEADS, NORMS, STEMS

PAGE = (Path(__file__).parents[2] / "docs" / "architectures.md").read_text()

DRAWINGS = Path(__file__).parents[2] / "docs" / "drawings"


def test_the_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(code, {})

    assert capsys.readouterr().out.startswith("tokens w64 rms | mamba2 gated_mlp128 | attention4")


@pytest.mark.parametrize("table", [BLOCKS, NORMS, STEMS, HEADS], ids=lambda t: t.kind)
def test_every_row_is_on_it(table):
    for name in table.names():
        assert f"`{name}`" in PAGE, name


def test_the_drawings_are_those_of_today():
    made = runpy.run_path(str(DRAWINGS / "draw.py"))["drawings"]()

    assert {path.stem for path in DRAWINGS.glob("*.svg")} == set(made)
    for name, svg in made.items():
        assert (DRAWINGS / f"{name}.svg").read_text() == svg
        assert f"drawings/{name}.svg" in PAGE
