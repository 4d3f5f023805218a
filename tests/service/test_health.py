"""Standard health: who watches keeps nobody waiting, and everybody hears the end."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from formwright.service import health
from formwright.service.health import NOT_SERVING, SERVICE_UNKNOWN, Health
from formwright.service.host import SERVING
from formwright.service.metrics import Metrics

from .servers import serving


class Watcher:
    """A context that keeps what is written, or never ends writing it."""

    def __init__(self, reads=True):
        self.heard, self._reads = [], reads

    async def write(self, message):
        if not self._reads:
            await asyncio.Event().wait()
        self.heard.append(message.status)

    async def abort(self, code, said):
        raise grpc.aio.AbortError(code.name)


def asked(name):
    return health_pb2.HealthCheckRequest(service=name)


@pytest.fixture
def story(file_store):
    """Runs a story about health."""

    def run(told):
        async def begin():
            made = Health(Metrics(file_store.totals))
            made.set("", SERVING)
            await told(made)

        asyncio.run(begin())

    return run


def test_one_who_does_not_read_keeps_nobody_waiting(story):
    async def told(made):
        stalled, well = Watcher(reads=False), Watcher()
        tasks = [asyncio.ensure_future(made.Watch(asked(""), each)) for each in (stalled, well)]
        await asyncio.sleep(0)
        made.set("", NOT_SERVING)
        made.set("", SERVING)
        made.stop()
        await tasks[1]  # it hears of the end, and is sent away
        assert well.heard == [SERVING, NOT_SERVING]
        assert not tasks[0].done()
        tasks[0].cancel()

    story(told)


def test_who_leaves_takes_nobody_along(story):
    async def told(made):
        first, second = Watcher(), Watcher()
        tasks = [asyncio.ensure_future(made.Watch(asked(""), each)) for each in (first, second)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)
        made.set("", NOT_SERVING)
        made.stop()
        made.set("", SERVING)  # too late
        await tasks[0]
        assert first.heard == [SERVING, NOT_SERVING]

    story(told)


def test_one_who_is_being_told_when_it_ends_hears_the_end_too(story):
    async def told(made):
        class Slow(Watcher):
            async def write(self, message):
                await super().write(message)
                if len(self.heard) == 1:
                    made.stop()

        watcher = Slow()
        await made.Watch(asked(""), watcher)
        assert watcher.heard == [SERVING, NOT_SERVING]

    story(told)


def test_names_and_watchers_are_bounded(story, monkeypatch):
    monkeypatch.setattr(health, "WATCHERS", 2)

    async def told(made):
        tasks = [asyncio.ensure_future(made.Watch(asked("x"), Watcher())) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(grpc.aio.AbortError, match="RESOURCE_EXHAUSTED"):
            await made.Watch(asked(""), Watcher())
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
        unknown = Watcher()
        tasks.append(asyncio.ensure_future(made.Watch(asked("y"), unknown)))
        await asyncio.sleep(0)
        assert unknown.heard == [SERVICE_UNKNOWN]
        with pytest.raises(grpc.aio.AbortError, match="INVALID_ARGUMENT"):
            await made.Watch(asked("x" * 101), Watcher())
        with pytest.raises(grpc.aio.AbortError, match="NOT_FOUND"):
            await made.Check(asked("x"), Watcher())
        for task in tasks:
            task.cancel()

    story(told)


def test_over_a_channel_a_watcher_hears_the_end(path):
    with serving(path) as address:
        channel = grpc.insecure_channel(address)
        watch = health_pb2_grpc.HealthStub(channel).Watch(asked(""))
        heard = [next(watch).status]
    heard += [message.status for message in watch]
    channel.close()

    assert heard == [SERVING, NOT_SERVING]
