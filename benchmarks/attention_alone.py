"""One contestant of attention.py in a process of its own: first call and memory.

attention.py starts it, with an empty cache folder where first calls are compared, and reads the
line of JSON that it prints. Linux only: it resets the peak of the resident memory through
/proc/self/clear_refs.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import torch
from attention_contestants import prepare
from attention_models import Case
from measure import resident_mb, settle

from formwright.compiler import Report, collect

CALLS = 3


def alone(name: str, case: Case, threads: int) -> dict[str, Any]:
    """Seconds until the first result, and memory of calls after it."""
    torch.set_num_threads(threads)
    at_start = settle()
    with collect() as report:
        started = time.perf_counter()
        call = prepare(name, case, threads, arena=False)
        call()
        first = time.perf_counter() - started
    call()
    before, peaks = [], []
    for _ in range(CALLS):
        before.append(settle())
        kept = call()
        peaks.append(resident_mb("VmHWM"))
        del kept
    return {
        "first_s": first,
        "at_start_mb": at_start,
        "before_mb": statistics.median(before),
        "peak_mb": statistics.median(p - b for p, b in zip(peaks, before, strict=True)),
        **(ours(report) if name == "ours" else {}),
    }


def ours(report: Report) -> dict[str, Any]:
    """Seconds of capture and passes, and what they did."""
    passes = {
        p.name: {
            "ms": p.ms,
            "sites": p.sites,
            "rewritten": p.rewritten,
            "declined": [d.code.value for d in p.declined],
        }
        for p in report.passes
    }
    return {"passes_s": sum(p.ms for p in report.passes) / 1e3, "passes": passes}


def main() -> None:
    task = json.loads(sys.argv[sys.argv.index("--one") + 1])
    print(json.dumps(alone(task["name"], Case(**task["case"]), task["threads"])))


if __name__ == "__main__":
    main()
