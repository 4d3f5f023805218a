"""How much one client may ask for: calls a second, and calls at once.

A bucket of tokens that fills again by the second. Pure but for the clock that it is given; used in
one thread. It must not know who a client is. Next: `gate.py`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .errors import TooMany

BURST_S = 2.0  # of its rate a client may ask for at once
MOST = 10_000  # clients that are remembered


@dataclass
class _Client:
    left: float
    seen: float
    calls: int = 0


@dataclass
class Limits:
    """`rate` calls a second and `at_once` in flight, each for each client; 0: as many as it
    likes."""

    rate: float
    at_once: int = 0
    clock: Callable[[], float] = time.monotonic
    _clients: OrderedDict[str, _Client] = field(default_factory=OrderedDict)

    def take(self, client: str) -> None:
        """Counts a call. Raises TooMany if it is one too many for now."""
        if not self.has(client):
            raise TooMany(f"more than {self.rate:g} calls a second; call again in a second")
        if self.rate:
            self._clients[client].left -= 1.0

    def has(self, client: str) -> bool:
        """Whether one more call would not be too many for now."""
        if not self.rate:
            return True
        burst, now = max(1.0, BURST_S * self.rate), self.clock()
        known = self._of(client, burst, now)
        known.left = min(burst, known.left + (now - known.seen) * self.rate)
        known.seen = now
        return known.left >= 1.0

    @contextmanager
    def held(self, client: str) -> Iterator[None]:
        """While a call lasts. Raises TooMany if there are too many already."""
        if not self.at_once:
            yield
            return
        known = self._of(client, max(1.0, BURST_S * self.rate), self.clock())
        if known.calls >= self.at_once:
            raise TooMany(f"more than {self.at_once} calls at once; end one, or call again later")
        known.calls += 1
        try:
            yield
        finally:
            known.calls -= 1

    def _of(self, client: str, burst: float, now: float) -> _Client:
        known = self._clients.get(client)
        if known is None:
            known = self._clients[client] = _Client(burst, now)
            while len(self._clients) > MOST:  # whoever has a call in flight holds its own count
                self._clients.popitem(last=False)
        self._clients.move_to_end(client)
        return known
