"""Where a latency was measured. Latencies compare only where the fingerprints are equal.

It must not know what is measured. Next: `latency.py`.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ... import __version__
from ..spec_json import canonical_json

ARM = ("CPU implementer", "CPU part", "CPU variant")  # where no name is told
CGROUPS = Path("/sys/fs/cgroup")
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


@dataclass(frozen=True)
class Machine:
    """Everything that a latency depends on beside the architecture, as far as we can name it."""

    cpu: str
    cores: int
    threads: int
    torch: str
    formwright: str
    target: str

    @property
    def fingerprint(self) -> str:
        """`m1:` and the SHA-256 of the canonical JSON."""
        return "m1:" + hashlib.sha256(canonical_json(asdict(self)).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"fingerprint": self.fingerprint}


@dataclass(frozen=True)
class Conditions:
    """How the machine was at the time: the governor of the processor's clock and the cgroup's quota
    in cores, None where there is none to be read, and the load of the last minute. They change
    while the machine stays the same, so they are no part of its fingerprint."""

    governor: str | None
    quota: float | None
    load: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def conditions() -> Conditions:
    """Of this machine, now."""
    governor = "".join(_lines(GOVERNOR)).strip() or None
    quota = cpu_quota(_lines(Path("/proc/self/cgroup")), CGROUPS)
    return Conditions(governor, quota, os.getloadavg()[0] if hasattr(os, "getloadavg") else None)


def machine(threads: int, target: str) -> Machine:
    """This machine, with the number of threads and the target of a measurement."""
    import torch

    return Machine(
        cpu=cpu_model(),
        cores=usable_cores(),
        threads=threads,
        torch=str(torch.version.__version__),
        formwright=__version__,
        target=target,
    )


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """torch computes with `count` threads inside the block. It holds for the whole process."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cpu_model() -> str:
    """As the system calls the processor; on ARM by the numbers of its maker and part."""
    found: dict[str, str] = {}
    for line in _lines(Path("/proc/cpuinfo")):
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    if found.get("model name"):
        return found["model name"]
    if numbers := " ".join(found[key] for key in ARM if found.get(key)):
        return f"{platform.machine()} {numbers}"
    return _apple() or platform.processor() or platform.machine()


def _apple() -> str:
    if platform.system() != "Darwin":
        return ""
    ask = ["sysctl", "-n", "machdep.cpu.brand_string"]
    return subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()


def usable_cores() -> int:
    """The cores that this process may run on, and no more than its cgroup's quota pays for."""
    known = hasattr(os, "sched_getaffinity")  # not on every system
    cores = len(os.sched_getaffinity(0)) if known else (os.cpu_count() or 1)
    quota = cpu_quota(_lines(Path("/proc/self/cgroup")), CGROUPS)
    return max(1, min(cores, math.ceil(quota)) if quota else cores)


def cpu_quota(memberships: list[str], root: Path) -> float | None:
    """The least CPU quota of a cgroup (v1 or v2) that the process is in, in cores; None if there
    is no limit. `memberships` are the lines of /proc/self/cgroup."""
    quotas = []
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / controllers if controllers else root
        here = top / path.lstrip("/")
        # in a container the path may be the host's: then only the top is there to be read
        for group in {top, here, *(up for up in here.parents if up.is_relative_to(top))}:
            quotas.append(_quota(group))
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(group: Path) -> float | None:
    words = " ".join(_lines(group / "cpu.max")).split()  # v2: "max 100000" or "150000 100000"
    if not words:
        parts = ("cpu.cfs_quota_us", "cpu.cfs_period_us")  # v1: -1 is no limit
        words = [word for part in parts for word in _lines(group / part)]
    if len(words) != 2 or words[0] in ("max", "-1"):
        return None
    return int(words[0]) / int(words[1])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
