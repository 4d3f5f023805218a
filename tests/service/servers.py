"""Servers for tests that need one without a scheduler: on a port of this machine, in a thread with
a loop of its own."""

import asyncio
import threading
from contextlib import contextmanager
from functools import partial

from formwright.service.gate import Gate
from formwright.service.host import Host
from formwright.service.store import open_store
from formwright.service.tls import server_credentials


@contextmanager
def serving(path, **more):
    """Yields the address; `more` as for `hosting`."""
    with hosting(path, **more) as (address, _):
        yield address


@contextmanager
def hosting(path, *, tokens=False, tls=(), limits=None, failures=None):
    """Yields the address and the host; `tls` are the files of a certificate and its key, and
    perhaps of the authority of clients."""
    told, started = {}, threading.Event()

    async def serve():
        store = open_store(str(path))
        gate = Gate(store.access, limits, failures) if tokens else Gate()
        host, stop = Host(store, gate), asyncio.Event()
        listen = host.server.add_insecure_port
        if tls:
            listen = partial(
                host.server.add_secure_port, server_credentials=server_credentials(*tls)
            )
        port = listen("127.0.0.1:0")
        loop = asyncio.get_running_loop()
        told.update(address=f"127.0.0.1:{port}", loop=loop, stop=stop, host=host)
        await host.start()
        running = asyncio.ensure_future(host.run())
        started.set()
        await stop.wait()
        await host.stop()
        await running
        gate.close()
        store.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(120)
    try:
        yield told["address"], told["host"]
    finally:
        told["loop"].call_soon_threadsafe(told["stop"].set)
        thread.join()
