"""The report: what was rewritten, what was not, and why, site by site.

A `Report` is filled while graphs are compiled and goes on filling when a variant is compiled
later. It must not know how any pass works. `collect()` is how callers get one.
"""

from __future__ import annotations

import hashlib
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any


class Reason(StrEnum):
    """Why something was left as it is. Stable codes, documented in docs/reasons.md."""

    # whole graphs
    HIGHER_ORDER_OP = "higher_order_op"
    FUNCTION_TRANSFORM = "function_transform"
    INPUT_METADATA_CHANGED = "input_metadata_changed"
    UNSUPPORTED_INPUT = "unsupported_input"
    CHANGES_STATE = "changes_state"
    UNTRACEABLE = "untraceable"
    INTERNAL_ERROR = "internal_error"
    TARGET_FAILED = "target_failed"
    VERIFY_FAILED = "verify_failed"
    RANDOM = "random"
    NOT_COMPARABLE = "not_comparable"
    # sites
    MUTATED = "mutated"
    AUTOCAST = "autocast"
    OTHER_AXIS = "other_axis"
    OTHER_READERS = "other_readers"
    NOT_A_PRODUCT = "not_a_product"
    UNKNOWN_OP = "unknown_op"
    SCALE_NOT_CONSTANT = "scale_not_constant"
    MASK_NOT_PROVEN = "mask_not_proven"
    SHAPES = "shapes"
    DTYPES = "dtypes"
    DROPOUT = "dropout"
    GRADIENT_MODE = "gradient_mode"
    BUDGET = "budget"
    NOT_WORTH_IT = "not_worth_it"
    ALIASES_OUTPUT = "aliases_output"
    TRAINING = "training"
    NO_PADDING = "no_padding"
    PADDING_READ = "padding_read"
    AXES = "axes"
    DEVICE = "device"
    MEAN_READ = "mean_read"
    MEAN_WRITTEN = "mean_written"


@dataclass(frozen=True)
class Decline:
    """One site that stayed as it was. `where` is the module path, `source` is `file:line`."""

    where: str
    op: str
    source: str
    code: Reason
    reason: str


def describe(error: Exception, name: str) -> Decline:
    """The row of something of ours that failed: what, and in which of our lines."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    what = str(error).partition("\n")[0]  # the rest may be a whole graph
    reason = f"{type(error).__name__}: {what} ({frame.name}, line {frame.lineno})"
    source = f"{frame.filename}:{frame.lineno}"
    return Decline("", name, source, Reason.INTERNAL_ERROR, reason)


@dataclass
class PassReport:
    """What one pass did, over all graphs of a report. `ms` is the time in the pass."""

    name: str
    sites: int = 0
    rewritten: int = 0
    declined: list[Decline] = field(default_factory=list)
    ms: float = 0.0


@dataclass
class VariantReport:
    """One variant of one graph that was needed so far, and what became of it: `compiled`, `eager`
    (the target failed on it, so the graph runs as it is), or `analysed` (by `explain`)."""

    graph: int
    name: str
    state: str


@dataclass
class Report:
    """What the compiler did to one or several graphs. `print(report)` is a table for people."""

    graphs: int = 0
    graph_hash: str = ""
    variants: list[VariantReport] = field(default_factory=list)
    prepared_bytes: int = 0
    passes: list[PassReport] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.RLock()

    def row(self, name: str) -> PassReport:
        """The row of the pass called `name`, made at first use."""
        with self._lock:
            for row in self.passes:
                if row.name == name:
                    return row
            self.passes.append(PassReport(name))
            return self.passes[-1]

    def record(
        self,
        name: str,
        *,
        sites: int = 0,
        rewritten: int = 0,
        declined: tuple[Decline, ...] = (),
        ms: float = 0.0,
    ) -> None:
        """Add what a pass did on one graph to its row."""
        with self._lock:
            row = self.row(name)
            row.sites += sites
            row.rewritten += rewritten
            row.declined.extend(declined)
            row.ms += ms

    @contextmanager
    def dropped_on_error(self) -> Iterator[None]:
        """What is recorded inside the block is taken back if the block raises."""
        with self._lock:
            rows = [replace(p, declined=list(p.declined)) for p in self.passes]
            before = (self.graph_hash, self.prepared_bytes, list(self.variants), rows)
        try:
            yield
        except BaseException:
            with self._lock:
                self.graph_hash, self.prepared_bytes, self.variants, self.passes = before
            raise

    def start_graph(self) -> int:
        """Count one more graph; returns its number."""
        with self._lock:
            self.row(CAPTURE)  # the first row of the table, whatever comes of the graph
            self.graphs += 1
            return self.graphs - 1

    def hash_graph(self, text: str) -> None:
        """Add a captured graph, given as stable text, to the hash of what was compiled."""
        with self._lock:
            digest = hashlib.sha256((self.graph_hash + text).encode()).hexdigest()
            self.graph_hash = digest[:16]

    def declines(self, code: Reason | None = None) -> list[Decline]:
        """All declined sites, or those with one reason."""
        rows = [d for p in self.passes for d in p.declined]
        return rows if code is None else [d for d in rows if d.code is code]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON-ready; the keys are a stable format."""
        with self._lock:
            return {
                "graphs": self.graphs,
                "graph_hash": self.graph_hash,
                "variants": [asdict(v) for v in self.variants],
                "prepared_bytes": self.prepared_bytes,
                "passes": [
                    {
                        **asdict(p),
                        "declined": [{**asdict(d), "code": d.code.value} for d in p.declined],
                    }
                    for p in self.passes
                ],
            }

    def __str__(self) -> str:
        from .table import render  # rich is loaded only by those who print

        return render(self)


# Rows of the report that are not passes of the pipeline: they count graphs and variants.
CAPTURE, LOWER, VERIFY = "capture", "lower", "verify"

_collector: ContextVar[Report | None] = ContextVar("formwright_collector", default=None)


@contextmanager
def collect() -> Iterator[Report]:
    """A report of every graph that this context compiles inside the `with` block.

    with formwright.compiler.collect() as report:
        compiled(x)
    print(report)
    """
    report = Report()
    token = _collector.set(report)
    try:
        yield report
    finally:
        _collector.reset(token)


def current_report() -> Report:
    """The report that a graph compiled now belongs to: the innermost `collect()`, or a new one."""
    return _collector.get() or Report()
