"""Each example runs, quickly and to the end, and is short."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example(path, tmp_path):
    done = subprocess.run(
        [sys.executable, str(path), "--quick"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=900,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip()
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60
