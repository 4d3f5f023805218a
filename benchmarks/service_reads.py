"""The cells `unary` and `queries` of `service.py`: what it takes to read from filled databases.

A question is asked in one of these ways, and the tables say in which:

- kept: the same question again and again; the server has the encoded answer, and looks whether the
  database has changed.
- written: the same, while another process commits 20 times a second.
- read: no question is asked twice, so that each is read from the database.
- commit, trial: the same question, but before each another process commits a change of another
  search, or a trial of the search that is asked about.

Next: `service_load.py`, which asks; `service_fill.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import Any

import measure
from service_fill import Filled, Filler
from service_load import ECHO, OURS, channel, closed_loop, labelled, one_by_one, percentile
from service_servers import beside

from formwright.service.wire import search_pb2 as pb

COMMITS = 20  # a second
TURN_S, TURN_CALLS = 1.5, 40  # at most, of one question in one way in one round
MANY = 100  # searches

Ask = Callable[[Filled, random.Random], Any]


def _best(**more: Any) -> Ask:
    def ask(filled: Filled, rng: random.Random) -> Any:
        return pb.QueryBestArchitecturesRequest(search=f"searches/{filled.large}", **more)

    return ask


def _trials(**more: Any) -> Ask:
    def ask(filled: Filled, rng: random.Random) -> Any:
        return pb.ListTrialsRequest(search=f"searches/{filled.large}", **more)

    return ask


def _trial(filled: Filled, rng: random.Random) -> Any:
    number = rng.randrange(filled.trials)
    return pb.GetTrialRequest(name=f"searches/{filled.large}/trials/{number}")


def _search(filled: Filled, rng: random.Random) -> Any:
    return pb.GetSearchRequest(name=f"searches/{filled.large}")


def _over_many(filled: Filled, rng: random.Random) -> Any:
    bound = pb.Bound(metric="params", at_most=0.5)
    return pb.QueryBestArchitecturesRequest(space="metaformer", task="digits", bounds=[bound])


UNARY: dict[str, tuple[str, Ask]] = {
    "GetSearch": ("GetSearch", _search),
    "GetTrial": ("GetTrial", _trial),
    "ListTrials, 50": ("ListTrials", _trials(page_size=50)),
    "the front": ("QueryBestArchitectures", _best(limit=10)),
}
_QUALITY = pb.Weight(metric="quality", weight=1)
_BOUND = pb.Bound(metric="latency_ms", at_most=0.5)
QUERIES: dict[str, tuple[str, Ask]] = {
    "10 best, a list by quality": (
        "ListTrials",
        _trials(page_size=10, order_by="metrics.quality desc"),
    ),
    "10 best, the same with a filter": (
        "ListTrials",
        _trials(
            page_size=10,
            order_by="metrics.quality desc",
            filter="state = SUCCEEDED AND metrics.params <= 0.5",
        ),
    ),
    "10 best by a weight": ("QueryBestArchitectures", _best(limit=10, weights=[_QUALITY])),
    "10 best by two weights": (
        "QueryBestArchitectures",
        _best(limit=10, weights=[_QUALITY, pb.Weight(metric="params", weight=2)]),
    ),
    "the front": ("QueryBestArchitectures", _best()),
    "the front within a bound": ("QueryBestArchitectures", _best(bounds=[_BOUND])),
    "the front over many searches": ("QueryBestArchitectures", _over_many),
}
# what is asked, in the ways that count for it -> the most that 99 of 100 may take, in ms
LIMITS = {name: 20.0 for name in QUERIES if name.startswith("10")} | {
    "the front": 50.0,
    "the front within a bound": 50.0,
    "the front over many searches": 500.0,
}


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    rounds: int
    sizes: tuple[int, ...] = (0, 10_000, 100_000)
    seconds: float = 0.8


def _requests(filled: Filled, ask: Ask, same: bool, seed: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    if same:
        return itertools.repeat(ask(filled, rng).SerializeToString())
    numbers = itertools.count(seed << 32)
    return (labelled(ask(filled, rng).SerializeToString(), number) for number in numbers)


def unary(databases: dict[int, Filled], scale: Scale, say: Callable[[str], None]) -> dict[str, Any]:
    """Rows by question and way: rate and milliseconds by size, and the rates of the echo server."""
    return asyncio.run(_unary(databases, scale, say))


async def _unary(
    databases: dict[int, Filled], scale: Scale, say: Callable[[str], None]
) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    async with AsyncExitStack() as stack:
        echo = await stack.enter_async_context(channel(stack.enter_context(beside("echo"))))
        servers = {
            size: await stack.enter_async_context(
                channel(stack.enter_context(beside("ours", database=filled.path)))
            )
            for size, filled in databases.items()
        }

        async def turn(name: str, way: str, size: int, at: int) -> dict[str, float]:
            method, ask = UNARY[name]
            requests = _requests(databases[size], ask, way != "read", at)
            return (
                await closed_loop(servers[size], f"{OURS}/{method}", requests, scale.seconds)
            ).row()

        async def all_turns(way: str, sizes: list[int]) -> None:
            for at in range(scale.rounds):
                for name in UNARY:
                    row = rows.setdefault(f"{name}, {way}", {"echo": [], "ours": {}})
                    found = await closed_loop(echo, ECHO, itertools.repeat(b""), scale.seconds)
                    row["echo"].append(found.row())
                    random.Random(f"{at} {name}").shuffle(sizes)
                    for size in sizes:
                        here = row["ours"].setdefault(str(size), [])
                        here.append(await turn(name, way, size, at))
                say(f"unary, {way}: round {at + 1} of {scale.rounds}")

        sizes = list(databases)
        await all_turns("kept", sizes)
        await all_turns("read", sizes)
        largest = databases[max(databases)]
        task = {"database": largest.path, "search": largest.small, "rate": COMMITS}
        with beside("writer", **task):
            await all_turns("written", [max(databases)])
    return {"rows": rows, "in_flight": 32, "failed": {}}


def queries(
    databases: dict[int, Filled], scale: Scale, say: Callable[[str], None]
) -> dict[str, Any]:
    """Milliseconds of each question by way, one call after the other, in the largest database."""
    return asyncio.run(_queries(databases[max(databases)], scale, say))


async def _queries(filled: Filled, scale: Scale, say: Callable[[str], None]) -> dict[str, Any]:
    from formwright.service.store import open_store

    rows: dict[str, Any] = {}
    with ExitStack() as stack:
        address = stack.enter_context(beside("ours", database=filled.path))
        store, filler = open_store(filled.path), Filler(filled.path, seed=1)
        stack.callback(store.close)
        stack.callback(filler.close)
        names = (f"change {at}" for at in itertools.count())
        before: dict[str, Callable[[], object] | None] = {
            "kept": None,
            "read": None,
            "commit": lambda: store.update_search(filled.small, {"display_name": next(names)}),
            "trial": lambda: filler.grow(filled.large),
        }
        async with channel(address) as ours:
            for at in range(scale.rounds):
                for name, (method, ask) in QUERIES.items():
                    for way, prepare in before.items():
                        requests = _requests(filled, ask, way != "read", at)
                        found = await one_by_one(
                            ours, f"{OURS}/{method}", requests, TURN_CALLS, TURN_S, prepare
                        )
                        rows.setdefault(f"{name}, {way}", []).extend(round(x, 3) for x in found)
                say(f"queries: round {at + 1} of {scale.rounds}")
    return {"ms": rows, "trials": filled.trials, "searches": MANY, "failed": {}}


def unary_table(row: dict[str, Any]) -> list[tuple[str, ...]]:
    """question and way, size, answers a second, of the echo's, p50, p99, p99 to that at size 0."""
    lines = []
    for name, found in row["rows"].items():
        echo = [turn["rate"] for turn in found["echo"]]
        sizes = sorted(found["ours"], key=int)
        for size in sizes:
            turns = found["ours"][size]
            rate = [turn["rate"] for turn in turns]
            share = measure.ratio({"ours": rate, "echo": echo}, "ours", "echo")
            p50, p99 = (statistics.median(t[at] for t in turns) for at in ("p50_ms", "p99_ms"))
            pair = {at: [t["p99_ms"] for t in found["ours"][at]] for at in (sizes[0], size)}
            grown = measure.ratio(pair, size, sizes[0]) if size != sizes[0] else None
            lines.append(
                (
                    name,
                    f"{int(size):,}",
                    f"{statistics.median(rate):,.0f}",
                    _met(share and share[0], 0.6, above=True),
                    f"{p50:.1f}",
                    _met(p99, 10.0),
                    _met(grown[0], 1.3) if grown else "",
                )
            )
    return lines


def query_table(row: dict[str, Any]) -> list[tuple[str, ...]]:
    """question and way, calls, p50, p99, the goal."""
    lines = []
    for name, ms in row["ms"].items():
        limit = LIMITS[name.rsplit(", ", 1)[0]]
        p99 = percentile(ms, 99)
        lines.append(
            (name, str(len(ms)), f"{statistics.median(ms):.2f}", _met(p99, limit), f"{limit:g}")
        )
    return lines


def _met(value: float | None, goal: float, above: bool = False) -> str:
    if value is None:
        return ""
    met = value >= goal if above else value <= goal
    return f"{'' if met else '[red]'}{value:.2f}{'' if met else '[/red]'}"
