"""`Answers`: encoded answers to requests that only read, for as long as the database is the same.

Whether it is the same is asked of the database itself, in microseconds and without a transaction
(`Database.version`), so that what other processes write is seen at once. Where the database cannot
say, nothing is kept. It must not know what the bytes mean. Next: `servicer.py`.
"""

from __future__ import annotations

from collections import OrderedDict

MOST_BYTES = 32 << 20
LARGEST = 1 << 20  # one that is larger is not kept,
LONGEST = 4096  # nor one to a longer request
EACH = 256  # what keeping one takes besides

Key = tuple[str, bytes]  # the method, with whose searches are seen, and the request


class Answers:
    """By method and encoded request, the latest used ones. Not thread safe."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._kept: OrderedDict[Key, bytes] = OrderedDict()
        self._version: int | None = None
        self._bytes, self._most = 0, most_bytes
        self.hits = self.misses = 0

    def get(self, key: Key, version: int | None) -> bytes | None:
        """The answer as of this version, if it is kept."""
        found = None
        if version is not None and version == self._version:
            found = self._kept.get(key)
        if found is None:
            self.misses += 1
        else:
            self.hits += 1
            self._kept.move_to_end(key)
        return found

    def lookups(self) -> dict[tuple[str, ...], float]:
        """How many there were, by what came of them."""
        return {("hit",): self.hits, ("miss",): self.misses}

    def put(self, key: Key, version: int | None, answer: bytes) -> None:
        """`version` is from before the answer was read. One that is out of date is not kept."""
        if version is None or len(answer) > LARGEST or len(key[1]) > LONGEST:
            return
        if version != self._version:
            if self._version is not None and version < self._version:
                return
            self._kept.clear()
            self._version, self._bytes = version, 0
        before = self._kept.pop(key, None)
        self._kept[key] = answer
        self._bytes += _size(key, answer) - (0 if before is None else _size(key, before))
        while self._bytes > self._most:
            self._bytes -= _size(*self._kept.popitem(last=False))


def _size(key: Key, answer: bytes) -> int:
    return len(key[1]) + len(answer) + EACH
