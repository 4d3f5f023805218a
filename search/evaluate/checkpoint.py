"""Trainings on disk, between rungs and after a kill: one file each, whole or not there.

A file is named by a hash of everything its training depends on except how far it goes, so that
another rung, another attempt and another worker find it. It is a digest, and then numbers and text
as torch writes them; no code is read back. What is damaged, of another version or of another
training counts as not there. It must not know how anybody trains, and importing it loads no torch:
the driver forgets trainings. Next: `train.py`.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..spec_json import canonical_json
from .code import code_digest
from .machine import cpu_model

if TYPE_CHECKING:
    from .evaluator import Evaluation

FORMAT = 1
EVERY_S = 15.0  # between two writes inside a rung
END = ".training"
DIGEST = hashlib.sha256().digest_size


def key(evaluation: Evaluation, rate: float) -> str:
    """What one training depends on, hashed: 64 hexadecimal digits."""
    facts = {
        "architecture": evaluation.architecture.fingerprint(),
        "task": evaluation.task,
        "budget": str(evaluation.budget),
        "batch": evaluation.batch,
        "threads": evaluation.threads,
        "seed": evaluation.seed,
        "rate": rate,
        "pretrain": evaluation.pretrain,
        "weights": evaluation.weights,
    }
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()


def forget(evaluation: Evaluation) -> None:
    """Deletes what was kept of the trainings of an evaluation, on whichever rung, if anything was.
    Shared weights stay: others read them."""
    if not evaluation.checkpoint or evaluation.weights == "shared":
        return
    for rate in evaluation.rates:
        for path in Path(evaluation.checkpoint).glob(f"{key(evaluation, rate)}{END}*"):
            path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Deletes what nobody has touched for a week: of searches that were killed for good, and
    shared weights, which no search knows to be the last to read."""
    oldest = time.time() - 7 * 24 * 3600
    for path in folder.glob("*"):
        with suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.unlink()


class Checkpoint:
    """One training in a folder; a folder "" keeps nothing. `data` is the hash of what it is trained
    on. `error` says why it could not be written: then a training that is cut short costs time, and
    no more."""

    def __init__(self, folder: str, name: str, data: str = "") -> None:
        self.path = Path(folder) / f"{name}{END}" if folder else None
        self.error = ""
        self._name, self._data = name, data
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """What `save` was given, or None."""
        import torch

        try:
            data = self.path.read_bytes() if self.path else b""
            digest, kept = data[:DIGEST], data[DIGEST:]
            if not kept or hashlib.sha256(kept).digest() != digest:
                return None
            found = torch.load(io.BytesIO(kept), map_location="cpu", weights_only=True)
        except Exception:  # whatever is wrong with a file, the training can be done again
            return None
        mine = isinstance(found, dict) and found.get("made") == self._made()
        return found["state"] if mine else None

    def save(self, state: Mapping[str, Any]) -> None:
        """Keeps it in place of what was kept: after a crash there is the one or the other."""
        import torch

        self._last = time.monotonic()
        if self.path is None:
            return
        buffer = io.BytesIO()
        torch.save({"made": self._made(), "state": dict(state)}, buffer)
        kept = buffer.getvalue()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write(hashlib.sha256(kept).digest() + kept, self.path)
        except OSError as error:
            self.error = str(error)

    @property
    def due(self) -> bool:
        """Whether the last write was long ago."""
        return self.path is not None and time.monotonic() - self._last > EVERY_S

    def _made(self) -> dict[str, Any]:
        """By whom, of what: another version may sum in another order, and the result would be
        neither's."""
        import torch

        return {
            "format": FORMAT,
            "of": self._name,
            "data": self._data,
            "torch": str(torch.version.__version__),
            "code": code_digest(),
            "cpu": cpu_model(),
        }

    def _write(self, data: bytes, path: Path) -> None:
        half = path.with_name(f"{path.name}.{secrets.token_hex(4)}")  # `forget` finds it too
        with half.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(half, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
