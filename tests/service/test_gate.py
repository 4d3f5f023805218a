"""What is asked before a call: limits, ends of tokens, deadlines."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from formwright.service import gate
from formwright.service.access import EVERYBODY, Caller, Scope
from formwright.service.errors import (
    Forbidden,
    InvalidRequest,
    NotFound,
    TooMany,
    Unauthenticated,
)
from formwright.service.gate import Gate, check
from formwright.service.limits import MOST, Limits


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


# limits


def test_a_bucket_lets_a_burst_through_and_then_its_rate(clock):
    limits = Limits(rate=5.0, clock=clock)

    def passed(client, calls):
        count = 0
        for _ in range(calls):
            try:
                limits.take(client)
            except TooMany:
                return count
            count += 1
        return count

    assert passed("a", 100) == 10  # of two seconds
    assert passed("b", 3) == 3  # somebody else
    clock.now += 1.0
    assert passed("a", 100) == 5
    clock.now += 1000.0
    assert passed("a", 100) == 10


def test_a_slow_rate_lets_one_through(clock):
    limits = Limits(rate=0.1, clock=clock)

    limits.take("a")
    with pytest.raises(TooMany, match=r"more than 0\.1 calls a second"):
        limits.take("a")
    limits.take("b")
    clock.now += 10.0
    assert limits.has("a")
    limits.take("a")
    assert not limits.has("a")


def test_calls_at_once_are_counted_until_they_end(clock):
    limits = Limits(rate=0.0, at_once=2, clock=clock)
    said = "more than 2 calls at once"
    with (
        limits.held("a"),
        limits.held("a"),
        limits.held("b"),
        pytest.raises(TooMany, match=said),
        limits.held("a"),
    ):
        pass
    with limits.held("a"), limits.held("a"):
        pass


def test_no_limits_are_none(clock):
    limits = Limits(rate=0.0, clock=clock)
    for _ in range(10_000):
        limits.take("a")
    with limits.held("a"):
        limits.take("a")


def test_only_so_many_clients_are_remembered(clock):
    limits = Limits(rate=1.0, clock=clock)
    for number in range(MOST + 10):
        limits.take(str(number))
    assert len(limits._clients) == MOST


# the store's side


def test_a_token_is_good_until_it_is_revoked(store):
    text, record = store.access.create("alice", Scope.SUBMIT)

    assert store.access.caller_of(text) == Caller("alice", Scope.SUBMIT, record.id)
    assert store.access.caller_by_id(record.id).sees == "alice"
    assert store.access.list() == [record]
    revoked = store.access.revoke(record.id)
    assert revoked.revoked is not None
    assert store.access.revoke(record.id) == revoked  # once is enough
    for call in (
        lambda: store.access.caller_of(text),
        lambda: store.access.caller_by_id(record.id),
    ):
        with pytest.raises(Unauthenticated, match=f"the token {record.id} was revoked"):
            call()
    with pytest.raises(NotFound, match="no token 'nobody'"):
        store.access.revoke("nobody")


def test_a_token_ends(store):
    now = datetime.now(UTC)
    text, _ = store.access.create("alice", Scope.READ, now - timedelta(seconds=1))
    later, record = store.access.create("alice", Scope.READ, now + timedelta(days=1))

    with pytest.raises(Unauthenticated, match="has expired, on "):
        store.access.caller_of(text)
    assert store.access.caller_of(later).token == record.id
    assert record.state(now) == "valid"
    assert record.state(now + timedelta(days=2)) == "expired"


@pytest.mark.parametrize(
    "text",
    ["", "x", "fw_", "fw_00112233aabb_short", "fw_00112233aabb_" + "x" * 43 + " ", "\0", "é"],
)
def test_what_is_no_token_is_not_valid(file_store, text):
    with pytest.raises(Unauthenticated, match="the token is not valid"):
        file_store.access.caller_of(text)


@pytest.mark.parametrize("owner", ["", "A", "a b", "a/b", "-a", "é", "a" * 64, "a\0"])
def test_an_owner_is_a_short_word(file_store, owner):
    with pytest.raises(InvalidRequest, match="owner: wanted"):
        file_store.access.create(owner, Scope.READ)


def test_a_session_is_good_until_it_is_closed_over_or_its_token_is_no_good(store):
    text, record = store.access.create("alice", Scope.READ)
    caller = store.access.caller_of(text)
    first, second, over = (store.access.open_session(caller, s) for s in (60, 60, -1))

    assert store.access.caller_of_session(first) == caller
    store.access.close_session(first)
    store.access.close_session("never there")
    for secret in (first, over, "never there", ""):
        with pytest.raises(Unauthenticated, match="the session is over"):
            store.access.caller_of_session(secret)
    assert store.access.caller_of_session(second) == caller
    store.access.revoke(record.id)
    with pytest.raises(Unauthenticated):
        store.access.caller_of_session(second)


# the gate


def test_where_no_tokens_are_asked_for_everybody_may():
    caller = asyncio.run(Gate().caller(None, "x"))

    assert caller is EVERYBODY
    for scope in Scope:
        Gate().admit(caller, scope)


@pytest.mark.parametrize("has", Scope)
@pytest.mark.parametrize("wanted", Scope)
def test_a_scope_includes_those_before_it(has, wanted):
    caller = Caller("alice", has, "t")
    if has >= wanted:
        check(caller, wanted)
    else:
        said = f"this needs a token with the scope {wanted.word}; t has {has.word}"
        with pytest.raises(Forbidden, match=said):
            check(caller, wanted)


def test_what_was_found_stands_for_a_moment(file_store, clock):
    text, record = file_store.access.create("alice", Scope.READ)
    door = Gate(file_store.access, clock=clock)

    async def asked():
        return await door.caller(f"bearer {text}", "x")

    async def story():
        caller = await asked()
        await door.again(caller)
        file_store.access.revoke(record.id)
        assert await asked() == caller  # for so long
        await door.again(caller)
        clock.now += gate.FRESH_S + 0.1
        with pytest.raises(Unauthenticated):
            await asked()
        with pytest.raises(Unauthenticated):
            await door.again(caller)

    asyncio.run(story())


WRONG = "fw_00112233aabb_" + "x" * 43


def test_wrong_tokens_from_an_address_are_looked_up_for_a_while_only(file_store, clock):
    door = Gate(file_store.access, clock=clock)
    text, _ = file_store.access.create("alice", Scope.READ)
    burst = int(2 * gate.FAILURES)

    async def wrong(peer, text=WRONG):
        try:
            await door.caller(f"Bearer {text}", peer)
        except (Unauthenticated, TooMany) as error:
            return type(error)

    async def story():
        assert await door.caller(f"Bearer {text}", "here")
        found = [await wrong("here") for _ in range(burst + 10)]
        assert found == [Unauthenticated] * burst + [TooMany] * 10
        assert await wrong("here", "x") is Unauthenticated  # what is no token costs nothing
        assert await door.caller(f"Bearer {text}", "here")  # who is known is let in,
        clock.now += gate.FRESH_S + 0.01
        for _ in range(burst):
            await wrong("here")
        assert await door.caller(f"Bearer {text}", "here")  # also when it is asked for anew
        assert await wrong("elsewhere") is Unauthenticated
        clock.now += 1.0
        assert await wrong("here") is Unauthenticated

    asyncio.run(story())


def test_the_same_asked_at_once_is_looked_up_once(file_store, monkeypatch, clock):
    text, _ = file_store.access.create("alice", Scope.READ)
    door, looked = Gate(file_store.access, clock=clock), []
    real = file_store.access.caller_of

    def caller_of(text):
        looked.append(text)
        return real(text)

    monkeypatch.setattr(file_store.access, "caller_of", caller_of)

    async def story():
        good = await asyncio.gather(*(door.caller(f"Bearer {text}", "x") for _ in range(500)))
        assert len(set(good)) == 1
        asked = (door.caller(f"Bearer {WRONG[:-4]}{n:04}", "y") for n in range(2000))
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(error) for error in found} == {Unauthenticated, TooMany}

    asyncio.run(story())
    assert looked.count(text) == 1
    assert 1 + 2 * gate.FAILURES <= len(looked) < 1 + 2 * gate.FAILURES + gate.LOOKS
    door.close()
