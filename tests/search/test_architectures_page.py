"""docs/architectures.md is true: its example runs, and every row of every table is on it."""

import re
from pathlib import Path

import pytest

from formwright.search import BLOCKS, HEADS, NORMS, STEMS

PAGE = (Path(__file__).parents[2] / "docs" / "architectures.md").read_text()


def test_the_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(code, {})

    assert capsys.readouterr().out.startswith("tokens w64 rms | mamba2 gated_mlp128 | attention4")


@pytest.mark.parametrize("table", [BLOCKS, NORMS, STEMS, HEADS], ids=lambda t: t.kind)
def test_every_row_is_on_it(table):
    for name in table.names():
        assert f"`{name}`" in PAGE, name
