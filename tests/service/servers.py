"""Servers for tests that need one without a scheduler: on a port of this machine, in a thread with
a loop of its own."""

import asyncio
import threading
from contextlib import contextmanager

from formwright.service.gate import Gate
from formwright.service.host import Host
from formwright.service.store import open_store


@contextmanager
def serving(path, credentials=None, tokens=False):
    """Yields the address. With `credentials` by TLS; with `tokens` for who shows one."""
    told, started = {}, threading.Event()

    async def serve():
        store = open_store(str(path))
        host, stop = Host(store, Gate(store.access if tokens else None)), asyncio.Event()
        address = "127.0.0.1:0"
        if credentials is None:
            port = host.server.add_insecure_port(address)
        else:
            port = host.server.add_secure_port(address, credentials)
        told.update(address=f"127.0.0.1:{port}", loop=asyncio.get_running_loop(), stop=stop)
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
        yield told["address"]
    finally:
        told["loop"].call_soon_threadsafe(told["stop"].set)
        thread.join()
