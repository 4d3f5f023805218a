"""The C library's allocator keeps what is freed, while something is measured.

By default glibc returns a large block to the kernel when it is freed, or not, as the heap happens
to lie; where it does, every call pays for a page fault per 4 KiB that it touches. That made equal
models differ by up to 25 % between processes, in calls of the same reference. A server that runs
one model for long is on the good side of it. It must not know what is measured.
Next: `timing.py`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # names of mallopt(3)
MIB = 1 << 20
NEVER = (1 << 31) - 1  # the largest int
# The least first: older glibc refuses more than 32 MiB.
KEEPING = ((MMAP_THRESHOLD, 32 * MIB), (MMAP_THRESHOLD, 1 << 30), (TRIM_THRESHOLD, NEVER))
# What glibc's own adaption ends at, in a process that has freed a block of this size once.
USUAL = ((MMAP_THRESHOLD, 32 * MIB), (TRIM_THRESHOLD, 64 * MIB))


@contextmanager
def keeping_memory() -> Iterator[bool]:
    """Inside, freed memory stays with the process; afterwards it goes back, all but 64 MiB. Yields
    whether the C library can do that: glibc can, and others change nothing."""
    library = _glibc()
    if library is None:
        yield False
        return
    mallopt, trim = library
    for name, value in KEEPING:
        mallopt(name, value)
    try:
        yield True
    finally:
        for name, value in USUAL:
            mallopt(name, value)
        trim(0)


@cache
def _glibc() -> tuple[Callable[[int, int], int], Callable[[int], int]] | None:
    try:
        library = ctypes.CDLL("libc.so.6")
        return library.mallopt, library.malloc_trim
    except (AttributeError, OSError):
        return None
