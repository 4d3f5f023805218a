"""Servers for tests that need one without a scheduler: on a port of this machine, in a thread with
a loop of its own."""

import asyncio
import threading
from contextlib import contextmanager

from formwright.service.gate import Gate
from formwright.service.host import Host
from formwright.service.store import open_store


@contextmanager
def serving(path):
    """Yields the address."""
    with hosting(path) as (address, _):
        yield address


@contextmanager
def hosting(path, tokens=False):
    """Yields the address and the host; `tokens` if whoever calls must show one."""
    told, started = {}, threading.Event()

    async def serve():
        store = open_store(str(path))
        host = Host(store, Gate(store.access) if tokens else None)
        stop = asyncio.Event()
        port = host.server.add_insecure_port("127.0.0.1:0")
        loop = asyncio.get_running_loop()
        told.update(address=f"127.0.0.1:{port}", loop=loop, stop=stop, host=host)
        await host.start()
        running = asyncio.ensure_future(host.run())
        started.set()
        await stop.wait()
        await host.stop()
        await running
        store.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(30)
    try:
        yield told["address"], told["host"]
    finally:
        told["loop"].call_soon_threadsafe(told["stop"].set)
        thread.join()
