"""Cores, memory, open files, shared memory, and folders: what this machine has left.

It must not know the database or the server. Next: `ray_cluster.py`.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ...search import cache_folder
from .finding import Finding, failed, ok, warning
from .look import Look

ENOUGH, LITTLE = 2**30, 2**26  # bytes of a disk: below the one a warning, below the other a failure
PER_WORKER = 600 * 2**20  # bytes of memory: a process with torch, and a small model in training
SHARED = 128 * 2**20  # bytes of shared memory: Ray's object store, which we make small
FILES = 1024
CGROUP = Path("/sys/fs/cgroup")
MEMORY = Path("/proc/meminfo")
SHM = Path("/dev/shm")


def of_cores(look: Look) -> Iterator[Finding]:
    """Cores that we may use, and what the environment says about threads."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    given = os.environ.get("OMP_NUM_THREADS", "")
    said = f"{cores} of {os.cpu_count()}; OMP_NUM_THREADS {given or 'not set'}"
    if cores and given.isdecimal() and int(given) > cores:
        yield warning("cores", f"{said}: more threads than cores", f"OMP_NUM_THREADS={cores}")
        return
    yield ok("cores", said)


def of_memory(look: Look) -> Iterator[Finding]:
    """Whether the workers fit in."""
    free = _free_memory()
    if free is None:
        yield ok("memory", "not known on this system")
        return
    workers = int(look.value("workers").value)
    wanted = PER_WORKER * max(1, workers)
    said = f"{_gib(free)} free; {workers} workers want {_gib(wanted)}"
    if free < wanted:
        fits = max(0, free // PER_WORKER)
        yield warning("memory", said, f"formwright serve --workers {fits}, or make room")
        return
    yield ok("memory", said)


def _free_memory() -> int | None:
    """Of the machine, or of the container if that has less."""
    try:
        lines = MEMORY.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    rows = dict(line.split(":", 1) for line in lines if ":" in line)
    free = int(rows.get("MemAvailable", "0 kB").split()[0]) * 1024
    try:
        limit = (CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((CGROUP / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return free
    return min(free, int(limit) - used) if limit.isdecimal() else free


def of_files(look: Look) -> Iterator[Finding]:
    """How many files and connections a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = f"{_limit(soft)} at once, at most {_limit(hard)}; each watcher takes one"
    if 0 <= soft < FILES:
        remedy = f"ulimit -n {max(FILES, 4096) if hard < 0 else min(hard, 65536)}"
        yield warning("open files", said, f"{remedy} (systemd: LimitNOFILE=65536)")
        return
    yield ok("open files", said)


def _limit(number: int) -> str:
    return "any number" if number < 0 else str(number)


def of_shared_memory(look: Look) -> Iterator[Finding]:
    """Where a Ray of our own keeps its objects. One that is elsewhere does so there."""
    if look.text("ray") or look.value("workers").value == 0 or not SHM.is_dir():
        return
    free = shutil.disk_usage(SHM).free
    said = f"{free / 2**20:.0f} MiB free in {SHM}"
    if free < SHARED:
        remedy = "run the container with --shm-size=256m, or serve with --workers 0"
        yield warning("shared memory", f"{said}; Ray wants {SHARED >> 20}", remedy)
        return
    yield ok("shared memory", said)


def of_cache(look: Look) -> Iterator[Finding]:
    """The folder of trainings and latencies."""
    yield of_folder("cache", cache_folder("").absolute(), look.variable("cache", "FOLDER"))


def of_temporary(look: Look) -> Iterator[Finding]:
    """Ray's own files, and what the compiler generates."""
    try:
        folder = tempfile.gettempdir()
    except OSError as error:  # nowhere could a file be written
        yield failed("temporary files", str(error), "make room, or name a folder in TMPDIR")
        return
    yield of_folder("temporary files", Path(folder), "TMPDIR=FOLDER")


def of_folder(name: str, folder: Path, other: str) -> Finding:
    """Whether it can be written, or made, and has room. `other` says how to name another."""
    there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return failed(name, f"cannot write in {folder}", f"chown or chmod {there}, or {other}")
    free = shutil.disk_usage(there).free
    said = f"{_gib(free)} free in {folder}"
    if free >= ENOUGH:
        return ok(name, said)
    told = failed if free < LITTLE else warning
    return told(name, f"{said}: little", f"make room there, or {other}")


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
