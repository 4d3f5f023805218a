"""What callers, logins and the database do at the same time at the gate: each of these was once
wrong. Next: `test_races.py`, the same elsewhere."""

import asyncio
import threading
from contextlib import nullcontext

import pytest

from formwright.service.access import Caller, Scope, new_token
from formwright.service.errors import DatabaseError, TooMany, Unauthenticated
from formwright.service.gate import LOOKS, Gate
from formwright.service.limits import Limits

LIMIT_S = 120


class Tokens:
    """Of a database that answers late: `open` is when it may."""

    def __init__(self):
        self.open = threading.Event()
        self.valid, self.asked = True, 0

    def caller_of(self, text):
        self.asked += 1
        return Caller("anna", Scope.READ, "t1")

    def caller_of_session(self, secret):
        valid = self.valid
        assert self.open.wait(LIMIT_S)
        if not valid:
            raise Unauthenticated("over")
        return Caller("anna", Scope.READ, "t1")

    def open_session(self, caller, seconds):
        assert self.open.wait(LIMIT_S)
        return "secret"

    def close_session(self, secret):
        self.valid = False

    def unless(self, gone):
        return nullcontext()


def told(story):
    async def begin():
        tokens = Tokens()
        gate = Gate(tokens, failures=Limits(20.0, clock=lambda: 0.0))
        try:
            await asyncio.wait_for(story(gate, tokens), LIMIT_S)
        finally:
            tokens.open.set()
            gate.close()

    asyncio.run(begin())


def test_logins_that_wait_for_the_database_keep_no_caller_waiting():
    async def story(gate, tokens):
        caller = Caller("anna", Scope.READ, "t1")
        logins = [asyncio.ensure_future(gate.open_session(caller, 60.0)) for _ in range(5)]
        await asyncio.sleep(0)
        await gate.caller(f"Bearer {new_token()[0]}", "anywhere")
        assert not any(login.done() for login in logins)
        tokens.open.set()
        await asyncio.gather(*logins)

    told(story)


def test_who_logs_out_is_out_whatever_was_read_before():
    async def story(gate, tokens):
        before = asyncio.ensure_future(gate.of_session("secret", "anywhere"))
        await asyncio.sleep(0)  # it has begun to read
        tokens.open.set()
        await gate.close_session("secret", "anywhere")
        await before
        with pytest.raises(Unauthenticated):
            await gate.of_session("secret", "anywhere")

    told(story)


@pytest.mark.parametrize("way", ["away", "gone"])
def test_a_token_that_nobody_could_look_at_is_no_wrong_one(way):
    """The database is away, or the caller is gone before it has answered."""

    async def story(gate, tokens):
        def late(text):
            assert tokens.open.wait(LIMIT_S)
            raise DatabaseError("away")

        look, tokens.caller_of = tokens.caller_of, late
        asked = [
            asyncio.ensure_future(gate.caller(f"Bearer {new_token()[0]}", "a proxy"))
            for _ in range(40)  # as many wrong ones as an address may send at once
        ]
        await asyncio.sleep(0)
        if way == "gone":
            for each in asked:
                each.cancel()
        else:
            tokens.open.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        expected = asyncio.CancelledError if way == "gone" else DatabaseError
        assert {type(each) for each in found} == {expected}
        tokens.caller_of = look
        tokens.open.set()
        await gate.caller(f"Bearer {new_token()[0]}", "a proxy")

    told(story)


def test_wrong_tokens_count_whether_their_senders_wait_or_not():
    async def story(gate, tokens):
        def wrong(text):
            tokens.asked += 1
            raise Unauthenticated("wrong")

        tokens.caller_of = wrong
        for _ in range(60):
            sent = asyncio.ensure_future(gate.caller(f"Bearer {new_token()[0]}", "a stranger"))
            await asyncio.sleep(0)
            sent.cancel()
            await asyncio.gather(sent, return_exceptions=True)
            while gate._turns:  # until it was looked at all the same
                await asyncio.sleep(0.001)
        assert tokens.asked == 40
        with pytest.raises(TooMany):
            await gate.caller(f"Bearer {new_token()[0]}", "a stranger")
        with pytest.raises(Unauthenticated):
            await gate.caller(f"Bearer {new_token()[0]}", "somebody else")

    told(story)


def test_many_who_come_back_at_once_are_all_let_in():
    """After a restart nobody is known, and behind a proxy all have one address."""

    async def story(gate, tokens):
        tokens.open.set()
        sessions = [gate.of_session(f"secret {n}", "a proxy") for n in range(200)]
        assert len(await asyncio.gather(*sessions)) == 200
        assert not gate._turns

    told(story)


def test_strangers_wait_for_each_other_and_nobody_else_for_them():
    async def story(gate, tokens):
        look, asked = tokens.caller_of, []

        def late(text):
            asked.append(text)
            assert tokens.open.wait(LIMIT_S)
            raise Unauthenticated("wrong")

        tokens.caller_of = late
        sent = [
            asyncio.ensure_future(gate.caller(f"Bearer {new_token()[0]}", "a stranger"))
            for _ in range(100)
        ]
        await asyncio.sleep(0)
        assert len(gate._asking) == LOOKS
        for each in sent:
            each.cancel()
        await asyncio.gather(*sent, return_exceptions=True)
        tokens.caller_of = look
        tokens.open.set()
        await gate.caller(f"Bearer {new_token()[0]}", "somebody else")
        assert len(asked) <= LOOKS

    told(story)
