"""Ray: whether it can be loaded, and whether the cluster of the setting `ray` answers.

It must not load ray itself: a process of its own does, and is ended if it takes too long.
Next: `../../search/run/ray_look.py`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from ...errors import one_line
from .finding import Finding, failed, ok, warning
from .installed import installed
from .look import Look

LIMIT_S = 40.0
INSTALL = "pip install 'formwright[search]'"


def of_ray(look: Look) -> Iterator[Finding]:
    """Where workers are wanted."""
    address, workers = look.text("ray"), int(look.value("workers").value)
    if workers == 0:
        yield ok("workers", "not wanted: --workers 0 evaluates in the scheduler's own process")
        return
    if installed("ray") is None:  # the packages say so too; this one says what is lost
        yield warning("workers", "there is no Ray", f"{INSTALL}, or serve with --workers 0")
        return
    found = _asked(address)
    if isinstance(found, str):
        yield failed("workers", found, f"{INSTALL}, or serve with --workers 0")
    elif "error" in found:
        remedy = _remedy(str(found["error"]), str(found["version"]), address)
        yield failed("workers", one_line(str(found["error"]), 300), remedy)
    elif not address:
        yield ok("workers", f"{found['version']}; a server starts its own")
    else:
        yield _of_cluster(found, address, workers)


def _of_cluster(found: dict[str, Any], address: str, workers: int) -> Finding:
    cpus, free, nodes = found["cpus"], found["free"], found["nodes"]
    of = f"{nodes} machine{'s' if nodes != 1 else ''}"
    said = f"{address}, version {found['version']}: {free:g} of {cpus:g} CPUs are free on {of}"
    if cpus < workers:
        remedy = f"formwright serve --workers {int(cpus)}, or add machines: ray start --address"
        return failed("workers", f"{said}; {workers} workers want one each", remedy)
    return ok("workers", said)


def _asked(address: str) -> dict[str, Any] | str:
    """What the process says, or why it says nothing."""
    command = [sys.executable, "-P", "-m", "formwright.search.run.ray_look", address]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT_S, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {LIMIT_S:.0f} s"
    try:
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return f"cannot be loaded: {one_line(last, 200)}"
    return found


def _remedy(error: str, version: str, address: str) -> str:
    if "ersion" in error and "mismatch" in error:
        return f"the same Ray everywhere: pip install ray=={version} on the cluster, or its here"
    if "no Ray cluster answers" not in error:  # somebody listens, and does not take us
        token = (
            "RAY_AUTH_MODE=token RAY_AUTH_TOKEN=... as the cluster's (there: ray get-auth-token)"
        )
        return f"{token}; or it is not well: ray status"
    port = address.rpartition(":")[2]
    return f"ray start --head --port={port} there; or another address in FORMWRIGHT_RAY"
