"""The latency of an architecture, added up from layers that are compiled and measured once each.

    what is around layers + the sum of what each adds, then a map learnt from whole models

Compiling a candidate takes longer than a short training; its layers are few kinds. Sums are in
calls of the reference, as they drift less than times do. Every whole model that is measured later
makes the prediction, and what is said of its error, better (`record`). It must not know the
compiler or training. Next: `pieces.py`, `layer_store.py`, `calibrate.py`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import EvaluationError, SpecError
from ..layout import lay_out
from ..model import build
from ..spec import ArchSpec
from .calibrate import Calibration, Seen, calibrated
from .failure import Deadline
from .latency import Latency, measure
from .layer_store import Entry, Store
from .machine import Machine, machine
from .pieces import pieces
from .quiet import working
from .timing import REFERENCE

SMALL, WHOLE = "small", "whole"  # kinds of entries: models of one layer, and those to compare with
MOST = 200  # whole models to compare with
LEAST = 1e-3  # calls of the reference; what adds nothing may measure below nothing

Measured = Callable[[ArchSpec, int, int, str, Deadline], Entry]
"""Of a small model, the batch, the threads, the target and the time limit."""

_sums: dict[tuple[Path, str], float] = {}


@dataclass(frozen=True)
class Prediction:
    """`median_ms` of a call, of which `parts` (what each adds, in ms, before the map) are added up
    and mapped. `calibration` is the map; `new` small models had to be measured."""

    median_ms: float
    ratio: float
    parts: Mapping[str, float]
    calibration: Calibration
    machine: Machine
    new: int

    @property
    def error(self) -> float:
        """How far the truth may be away, as a part of the prediction."""
        return self.calibration.error

    @property
    def error_ms(self) -> float:
        return self.median_ms * self.error


def predict(
    architecture: ArchSpec,
    *,
    batch: int,
    threads: int,
    target: str,
    deadline: Deadline,
    measured: Measured | None = None,
) -> Prediction:
    """The latency of a call with `batch` inputs, as `measure` would find it.

    Layers that this machine has not measured yet are measured first (by `measured_alone`), each by
    one worker, and kept on disk. Raises EvaluationError if one cannot be, SpecError for an
    architecture that cannot be laid out.
    """
    measured = measured or measured_alone
    here = machine(threads, target)
    store = Store.of(here.fingerprint, batch, REFERENCE)
    found: list[Entry] = []
    new = 0

    def look(spec: ArchSpec) -> Entry:
        nonlocal new
        entry = store.get(SMALL, spec.fingerprint())
        if entry is None:
            with store.locked(SMALL, spec.fingerprint(), deadline):
                entry = store.get(SMALL, spec.fingerprint())  # by whoever had the lock before
                if entry is None:
                    deadline.check("measuring layers")
                    entry = measured(spec, batch, threads, target, deadline)
                    store.put(SMALL, spec.fingerprint(), entry)
                    new += 1
        found.append(entry)
        return entry

    parts = parts_of(architecture, look)
    calibration = calibrated(_seen(store))
    ratio = calibration(sum(parts.values()))
    once = statistics.median(entry.reference_ms for entry in found)
    in_ms = {path: part * once for path, part in parts.items()}
    return Prediction(ratio * once, ratio, in_ms, calibration, here, new)


def record(architecture: ArchSpec, latency: Latency) -> None:
    """Keeps what was measured of a whole architecture, for later predictions; only where its layers
    were measured too, for else there is nothing to compare. Raises EvaluationError where it cannot
    be kept."""
    store = Store.of(latency.machine.fingerprint, latency.batch, REFERENCE)
    if _sum_of_known(architecture.to_json(), store) is not None:
        store.put(WHOLE, architecture.fingerprint(), _entry(architecture, latency))


def parts_of(architecture: ArchSpec, look: Callable[[ArchSpec], Entry]) -> dict[str, float]:
    """What each part adds, in calls of the reference, by its path; `look` knows small models."""
    return {
        piece.path: max(sum(many * look(spec).ratio for many, spec in piece.terms), LEAST)
        for piece in pieces(architecture)
    }


def measured_alone(
    spec: ArchSpec, batch: int, threads: int, target: str, deadline: Deadline
) -> Entry:
    """A small model, compiled and timed. Raises EvaluationError."""
    with torch.random.fork_rng(devices=[]), working():
        torch.default_generator.manual_seed(0)
        layout = lay_out(spec)
        example = layout.stem.example(layout.stem_config, batch)
        model = build(spec)
    return _entry(spec, measure(model, example, target=target, threads=threads, deadline=deadline))


def _entry(spec: ArchSpec, latency: Latency) -> Entry:
    return Entry(spec.to_json(), latency.median_ms, latency.ratio, latency.reference_ms)


def _seen(store: Store) -> list[Seen]:
    """Whole models that were measured, where all their small models were too."""
    pairs = []
    for entry in store.newest(WHOLE, MOST):
        added = _sum_of_known(entry.architecture, store)
        if added is not None:
            pairs.append((added, entry.ratio))
    return pairs


def _sum_of_known(text: str, store: Store) -> float | None:
    """Without measuring anything; None if something is not known."""
    key = (store.folder, text)
    if key not in _sums:

        def look(spec: ArchSpec) -> Entry:
            entry = store.get(SMALL, spec.fingerprint())
            if entry is None:
                raise LookupError
            return entry

        try:
            _sums[key] = sum(parts_of(ArchSpec.from_json(text), look).values())
        except (EvaluationError, LookupError, SpecError):
            return None
    return _sums[key]
