"""Characters of Python: the standard library's own sources, each next character asked.

Real text that every installation has; nothing is downloaded. No file is in two splits. Versions of
Python differ in their sources, so results compare only where `Task.record` names the same data; how
many windows there are is the same everywhere. Importing this must not import torch. Next:
`pins.py`.

Shapes: N windows, T characters of a window.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np

from ..errors import EvaluationError
from ..spec import BlockSpec, Signature
from .generated import Ints
from .pins import PINS
from .task import Split, Task

WINDOW = 128
WINDOWS = {"train": 8192, "validation": 1024, "test": 1024}
FILES = {
    "train": (
        "argparse.py",
        "configparser.py",
        "dataclasses.py",
        "difflib.py",
        "doctest.py",
        "enum.py",
        "ftplib.py",
        "functools.py",
        "imaplib.py",
        "ipaddress.py",
        "mailbox.py",
        "optparse.py",
        "pickle.py",
        "pickletools.py",
        "shutil.py",
        "smtplib.py",
        "socket.py",
        "subprocess.py",
        "threading.py",
    ),
    "validation": ("calendar.py", "random.py", "statistics.py", "tempfile.py", "weakref.py"),
    "test": ("fractions.py", "heapq.py", "plistlib.py", "socketserver.py", "uuid.py", "trace.py"),
}
KNOWN = bytes([10, *range(32, 127)])  # a line's end, and what can be printed
RARE = len(KNOWN)
"""The one token of all other bytes."""


@cache
def load() -> Mapping[str, Split]:
    """Windows that do not overlap, from the first file of a split on. Raises EvaluationError where
    this Python comes without its sources."""
    return {name: _split(name) for name in WINDOWS}


def library() -> Path:
    """Where the standard library is."""
    return Path(sysconfig.get_path("stdlib"))


def coded(text: bytes) -> Ints:
    """A token for each byte, lines ending in one.

    >>> coded(bytes([13, 10, 32, 126, 9])).tolist()
    [0, 1, 95, 96]
    """
    codes = np.full(256, RARE, dtype=np.int64)
    codes[list(KNOWN)] = np.arange(RARE)
    found: Ints = codes[np.frombuffer(text.replace(b"\r\n", b"\n"), dtype=np.uint8)]
    return found


def _split(name: str) -> Split:
    import torch

    try:
        text = b"".join((library() / file).read_bytes() for file in FILES[name])
    except OSError as error:
        raise EvaluationError(f"python_chars wants Python's own sources: {error}") from error
    tokens, count = coded(text), WINDOWS[name]
    if len(tokens) <= count * WINDOW:
        had, wanted = len(tokens), count * WINDOW
        raise EvaluationError(f"the sources for {name} have {had} characters, not over {wanted}")
    inputs, targets = (tokens[at : at + count * WINDOW].reshape(count, -1) for at in (0, 1))
    return Split(torch.from_numpy(inputs.copy()), torch.from_numpy(targets.copy()))


TASK = Task(
    name="python_chars",
    signature=Signature.of_tokens(RARE + 1, WINDOW, head=BlockSpec("language")),
    load=load,
    score="bits",
    pins=PINS["python_chars"],
)
