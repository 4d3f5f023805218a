"""The gate: who makes a call, and whether it may be made, before anything else is looked at.

Where no tokens are asked for, everybody may do everything. It must not know what a call does, nor
grpc: it is given what was sent. Next: `access.py`, the nouns; `store/tokens.py`; `servicer.py` and
`web/` ask it.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager

from .access import EVERYBODY, Caller, Scope, hash_of
from .errors import Forbidden, TooMany, Unauthenticated
from .limits import Limits
from .store.tokens import Tokens

FRESH_S = 1.0  # how long what was found of a token stands: so late is the end of one seen
MOST_KNOWN = 10_000
FAILURES = 10.0  # wrong tokens a second from one address; it may begin with twice as many
BEARER = "bearer "
NO_TOKEN = "this server wants a token: `authorization: Bearer TOKEN`; `formwright token create`"


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
        known = self._fresh(hash_of(text))
        if known is not None:
            return known
        if self._failures.is_out(peer):
            raise TooMany("too many wrong tokens from this address; call again in a second")
        try:
            caller = await asyncio.to_thread(self._tokens.caller_of, text)
        except Unauthenticated:
            self._failures.take(peer)
            raise
        self._remember(hash_of(text), caller)
        return caller

    async def again(self, caller: Caller) -> None:
        """For what lasts, such as a watch. Raises Unauthenticated once the token is no good."""
        if self._tokens is None or self._fresh(caller.token) is not None:
            return
        self._remember(
            caller.token, await asyncio.to_thread(self._tokens.caller_by_id, caller.token)
        )

    def admit(self, caller: Caller, scope: Scope) -> None:
        """Counts a call. Raises Forbidden, TooMany."""
        if caller is EVERYBODY:
            return
        check(caller, scope)
        self._limits.take(caller.token)

    def held(self, caller: Caller) -> AbstractContextManager[None]:
        """While the call lasts. Raises TooMany."""
        return self._limits.held(caller.token)

    def _fresh(self, key: str) -> Caller | None:
        caller, until = self._known.get(key, (None, 0.0))
        return caller if until > self._clock() else None

    def _remember(self, key: str, caller: Caller) -> None:
        self._known[key] = caller, self._clock() + FRESH_S
        self._known.move_to_end(key)
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)


def check(caller: Caller, scope: Scope) -> None:
    """Raises Forbidden."""
    if caller.scope < scope:
        said = f"this needs a token with the scope {scope.word}"
        raise Forbidden(f"{said}; {caller.token} has {caller.scope.word}")


def _bearer(authorization: str) -> str:
    """The token in the header. Raises Unauthenticated."""
    if authorization[: len(BEARER)].lower() != BEARER:
        raise Unauthenticated("wanted `authorization: Bearer TOKEN`")
    return authorization[len(BEARER) :].strip()
