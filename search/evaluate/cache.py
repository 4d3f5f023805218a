"""Where evaluations keep what is dear to make again: trainings that go on, latencies of layers.

Everything in there can be deleted at any time. The environment variable `FORMWRIGHT_CACHE_DIR`
names another folder than `formwright` in the user's cache. It must not know what is kept.
Next: `checkpoint.py`.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

VARIABLE = "FORMWRIGHT_CACHE_DIR"


def cache_folder(name: str) -> Path:
    """The folder for one kind of thing; it need not be there yet."""
    given = os.environ.get(VARIABLE)
    user = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        user = user.expanduser()
    except RuntimeError:  # a user without a home
        user = Path(tempfile.gettempdir()) / f"formwright-{os.getuid()}"
    return (Path(given) if given else user / "formwright") / name
