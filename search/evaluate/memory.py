"""The most memory that a call takes beside the weights and its inputs.

On a CPU: every block that torch's allocator hands out and takes back during one call, outputs
included, as torch's profiler records them; the peak of their sum is the same in every run. What
libraries take by themselves (oneDNN's scratch memory, buffers of threads) does not pass by the
allocator and is not in it. On a GPU: torch's own peak over the same call. It must not know models.
Next: `latency.py`.
"""

from __future__ import annotations

import gc
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from ..errors import EvaluationError

Call = Callable[[], object]


def peak_bytes(call: Call, device: torch.device) -> int:
    """Calls twice: what a first call makes and keeps is not counted. Raises EvaluationError where
    this torch cannot tell."""
    call()
    if device.type == "cuda":
        return _peak_of_cuda(call, device)
    if device.type != "cpu":
        raise EvaluationError(f"peak_bytes is known on cpu and cuda, not on {device.type}")
    return peak_of(_changes(call))


def peak_of(changes: Iterable[int]) -> int:
    """The most that is held at once.

    >>> peak_of([100, 50, -100, 20, -50, -20])
    150
    """
    held = most = 0
    for change in changes:
        held += change
        most = max(most, held)
    return most


def _changes(call: Call) -> list[int]:
    """Bytes taken (above 0) and given back, in order."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # read once; else it tells of each start
    was = gc.isenabled()
    gc.disable()  # what it frees in between is not the call's
    try:
        events = _events(call)
    finally:
        if was:
            gc.enable()
    changes = [event for event in events if event.get("name") == "[memory]"]
    if not changes:
        raise EvaluationError("torch's profiler saw no memory: another one may be running")
    inside: set[int] = set()
    kept = []
    for event in sorted(changes, key=lambda e: float(e["ts"])):
        size, place = int(event["args"]["Bytes"]), event["args"].get("Addr")
        if size > 0:
            inside.add(place)
        elif place not in inside:
            continue  # of before the call
        kept.append(size)
    return kept


def _events(call: Call) -> list[dict[str, Any]]:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        made = call()
        del made
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiled.export_chrome_trace(str(path))
        events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return events


def _peak_of_cuda(call: Call, device: torch.device) -> int:
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    made = call()
    torch.cuda.synchronize(device)
    del made
    return torch.cuda.max_memory_allocated(device) - before
