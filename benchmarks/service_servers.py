"""The processes beside the client of `service.py`: an echo server, our server, a writer.

    python benchmarks/service_servers.py KIND [JSON]

Each prints a line when it is ready and ends when its standard input does. Ours is what
`formwright serve` answers with, without a scheduler beside it: nothing is searched here.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

HERE = Path(__file__).resolve()


@contextmanager
def beside(
    kind: str, python: str = sys.executable, script: Path = HERE, **task: Any
) -> Iterator[str]:
    """A process of this kind for as long as the block lasts; yields the line that it printed."""
    command = [python, str(script), kind, json.dumps(task)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline().strip() if process.stdout else ""
        if not line:
            raise RuntimeError(f"the process {kind} did not start, exit code {process.wait()}")
        yield line
    finally:
        if process.stdin:
            process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until_told(ended: threading.Event) -> None:
    """Waits in a thread until whoever started this process lets it end."""

    def wait() -> None:
        sys.stdin.buffer.read()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()


async def _echo() -> None:
    async def empty(request: bytes, context: object) -> bytes:
        return request

    server = grpc.aio.server()
    handler = {"Empty": grpc.unary_unary_rpc_method_handler(empty)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo.Echo", handler),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    await server.stop(None)


async def _ours(database: str, tokens: bool = False, tls: tuple[str, str] | None = None) -> None:
    from formwright.service.gate import Gate
    from formwright.service.host import Host
    from formwright.service.limits import Limits
    from formwright.service.store import open_store
    from formwright.service.tls import server_credentials

    store = open_store(database)
    # a limit that is counted, and never reached
    host = Host(store, Gate(store.access, Limits(1e6, 10_000)) if tokens else Gate())
    if tls is None:
        port = host.server.add_insecure_port("127.0.0.1:0")
    else:
        port = host.server.add_secure_port("127.0.0.1:0", server_credentials(*tls))
    await host.start()
    running = asyncio.ensure_future(host.run())
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    await host.stop()
    await running
    store.close()


def _writer(database: str, search: str, rate: float) -> None:
    """Changes the name of a search so many times a second."""
    from formwright.service.store import open_store

    ended, store, count = threading.Event(), open_store(database), 0
    until_told(ended)
    print("writes", flush=True)
    while not ended.wait(1 / rate):
        count += 1
        store.update_search(search, {"display_name": f"change {count}"})
    store.close()


def main() -> int:
    kind, task = sys.argv[1], json.loads(sys.argv[2])
    if kind == "writer":
        _writer(**task)
    else:
        asyncio.run({"echo": _echo, "ours": _ours}[kind](**task))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
