"""Which code this is: a digest of the sources, for what is kept on disk between versions.

A version number does not change with every change of a rule or a block, and what was measured or
half trained by other code must not go on as ours. Blocks of other packages are not in it. It must
not know what is kept. Next: `checkpoint.py`, `layer_store.py`.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

PARTS = ("compiler", "search")


@cache
def code_digest() -> str:
    """Twelve hexadecimal digits of everything that compiles, builds, trains and times."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted(path for part in PARTS for path in (root / part).rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
