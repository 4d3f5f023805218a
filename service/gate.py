"""The gate: who makes a call, and whether it may be made, before anything else is looked at.

Where no tokens are asked for, everybody may do everything. It must not know what a call does, nor
grpc, nor http: it is given what was sent. Next: `access.py`, the nouns; `store/tokens.py`;
`servicer.py` and `web/login.py` ask it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from .access import EVERYBODY, Caller, Scope, hash_of, read_token
from .errors import Forbidden, TooMany, Unauthenticated
from .limits import Limits
from .store.tokens import NOT_VALID, Tokens

FRESH_S = 1.0  # how long what was found of a token stands: so late is the end of one seen
MOST_KNOWN = 10_000
FAILURES = 20.0  # wrong tokens a second from one address; it may begin with twice as many
BEARER = "bearer "
NO_TOKEN = "this server wants a token; `formwright token create` makes one"
TOO_MANY = "too many wrong tokens from this address; call again in a second"
THREADS = 2
T = TypeVar("T")
LOOKS = 8  # of one address at once, for what is not known yet; more wait


@dataclass(eq=False)
class _Turns:
    """Of one address: who has one, or waits for it."""

    free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LOOKS))
    wanted: int = 0


class Gate:
    """`tokens` None: everybody may do everything. `limits` are for each token, `failures` for wrong
    tokens of an address. Used in one event loop."""

    def __init__(
        self,
        tokens: Tokens | None = None,
        limits: Limits | None = None,
        failures: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tokens = tokens
        self._limits = limits or Limits(0)
        self._failures = failures or Limits(FAILURES, clock=clock)
        self._clock = clock
        self._known: OrderedDict[str, tuple[Caller, float]] = OrderedDict()
        self._asking: dict[str, asyncio.Future[Caller]] = {}
        # of its own: many wrong tokens keep nothing else waiting
        self._threads = ThreadPoolExecutor(THREADS, "formwright-gate")
        self._writing = ThreadPoolExecutor(1, "formwright-sessions")
        self._closing = threading.Event()
        self._turns: dict[str, _Turns] = {}

    @property
    def is_open(self) -> bool:
        return self._tokens is None

    async def caller(self, authorization: str | None, peer: str) -> Caller:
        """Who has sent this header. Raises Unauthenticated; TooMany for a peer, an address without
        its port, that sends one wrong token after another."""
        if self._tokens is None:
            return EVERYBODY
        if not authorization:
            raise Unauthenticated(NO_TOKEN)
        text = _bearer(authorization)
        if read_token(text) is None:  # which needs no database
            raise Unauthenticated(NOT_VALID)
        return await self._let_in(hash_of(text), self._tokens.caller_of, text, peer)

    async def of_session(self, secret: str, peer: str) -> Caller:
        """Whose session of the page this is the secret of. Raises Unauthenticated, TooMany."""
        if self._tokens is None:
            return EVERYBODY
        if not secret:
            raise Unauthenticated("log in first")
        return await self._let_in(_of(secret), self._tokens.caller_of_session, secret, peer)

    async def open_session(self, caller: Caller, seconds: float) -> str:
        """The secret of a new session of the page. Raises Unauthenticated."""
        if self._tokens is None:
            raise Unauthenticated("no token is asked for here")
        until = self._clock() + FRESH_S
        secret = await self._write(self._tokens, self._tokens.open_session, caller, seconds)
        self._remember(_of(secret), caller, until)
        return secret

    async def close_session(self, secret: str, peer: str) -> None:
        """It ends at once here, within `FRESH_S` on other servers; no error if there is none.
        Raises TooMany."""
        if self._tokens is None:
            return
        try:
            await self.of_session(secret, peer)  # strangers have nothing written
        except Unauthenticated:
            return
        await self._write(self._tokens, self._tokens.close_session, secret)
        key = _of(secret)
        self._known.pop(key, None)
        self._asking.pop(key, None)  # what was read before says nothing now

    async def _let_in(
        self, key: str, ask: Callable[[str], Caller], given: str, peer: str
    ) -> Caller:
        """Wrong ones are counted once they are known to be wrong, whether anybody still waits or
        not; those of an address are looked up a few at a time."""
        if (known := self._fresh(key)) is not None:
            return known
        # one that was good a moment ago, or is being looked up, is kept out by no wrong ones
        if key in self._known or key in self._asking:
            return await self._asked(key, ask, given)
        turns = self._turns.setdefault(peer, _Turns())
        turns.wanted += 1
        try:
            await turns.free.acquire()
        except BaseException:
            self._gone(peer, turns)
            raise
        asking = None
        try:
            if (known := self._fresh(key)) is not None:  # meanwhile
                return known
            if not self._failures.has(peer):
                raise TooMany(TOO_MANY)
            asking = self._ask(key, ask, given)
        finally:
            if asking is None:
                self._ended(peer, turns)
            else:
                asking.add_done_callback(partial(self._was_looked_up, peer, turns))
        return await asyncio.shield(asking)

    def _was_looked_up(self, peer: str, turns: _Turns, asking: asyncio.Future[Caller]) -> None:
        self._ended(peer, turns)
        if not asking.cancelled() and isinstance(asking.exception(), Unauthenticated):
            with suppress(TooMany):
                self._failures.take(peer)

    def _ended(self, peer: str, turns: _Turns) -> None:
        turns.free.release()
        self._gone(peer, turns)

    def _gone(self, peer: str, turns: _Turns) -> None:
        turns.wanted -= 1
        if not turns.wanted:
            self._turns.pop(peer, None)

    async def again(self, caller: Caller) -> None:
        """For what lasts, such as a watch. Raises Unauthenticated once the token is no good."""
        if self._tokens is None or self._fresh(caller.token) is not None:
            return
        await self._asked(caller.token, self._tokens.caller_by_id, caller.token)

    async def _asked(self, key: str, ask: Callable[[str], Caller], given: str) -> Caller:
        """What the store says."""
        return await asyncio.shield(self._ask(key, ask, given))

    def _ask(self, key: str, ask: Callable[[str], Caller], given: str) -> asyncio.Future[Caller]:
        """Those who ask the same at the same time wait for one answer."""
        asking = self._asking.get(key)
        if asking is None:
            until, run = self._clock() + FRESH_S, asyncio.get_running_loop().run_in_executor
            asking = asyncio.ensure_future(run(self._threads, ask, given))
            self._asking[key] = asking
            asking.add_done_callback(partial(self._was_asked, key, until))
        return asking

    def _was_asked(self, key: str, until: float, asking: asyncio.Future[Caller]) -> None:
        error = asyncio.CancelledError() if asking.cancelled() else asking.exception()
        if self._asking.get(key) is not asking:  # it is out of date
            return
        del self._asking[key]
        if error is None:
            self._remember(key, asking.result(), until)
        elif isinstance(error, Unauthenticated):
            self._known.pop(key, None)

    async def _write(self, tokens: Tokens, call: Callable[..., T], *given: object) -> T:
        """In a thread of its own: what waits for the database keeps no look-up waiting. Once this
        gate is closed nothing is written any more."""

        def write() -> T:
            with tokens.unless(self._closing.is_set):
                return call(*given)

        return await asyncio.get_running_loop().run_in_executor(self._writing, write)

    def close(self) -> None:
        """Nobody is let in any more. Blocks until look-ups have ended."""
        self._closing.set()
        for threads in (self._threads, self._writing):
            threads.shutdown(cancel_futures=True)

    def admit(self, caller: Caller, scope: Scope) -> None:
        """Counts a call. Raises Forbidden, TooMany."""
        if caller is EVERYBODY:
            return
        self._limits.take(caller.token)
        check(caller, scope)

    def held(self, caller: Caller) -> AbstractContextManager[None]:
        """While the call lasts. Raises TooMany."""
        return self._limits.held(caller.token)

    def _fresh(self, key: str) -> Caller | None:
        caller, until = self._known.get(key, (None, 0.0))
        return caller if until > self._clock() else None

    def _remember(self, key: str, caller: Caller, until: float) -> None:
        self._known[key] = caller, until
        self._known.move_to_end(key)
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)


def check(caller: Caller, scope: Scope) -> None:
    """Raises Forbidden."""
    if caller.scope < scope:
        said = f"this needs a token with the scope {scope.word}"
        raise Forbidden(f"{said}; {caller.token} has {caller.scope.word}")


def _of(secret: str) -> str:
    """What a session is remembered by: none is a token's too."""
    return f"session {hash_of(secret)}"


def _bearer(authorization: str) -> str:
    """The token in the header. Raises Unauthenticated."""
    if authorization[: len(BEARER)].lower() != BEARER:
        raise Unauthenticated("wanted `authorization: Bearer TOKEN`")
    return authorization[len(BEARER) :].strip()
