"""The page for tests: in a thread with a loop of its own, over any store, and requests to it."""

import asyncio
import http.client
import json
import socket
import threading
from contextlib import contextmanager
from urllib.parse import urlsplit

from formwright.service.errors import SetupError
from formwright.service.gate import Gate
from formwright.service.settings import Settings
from formwright.service.watch import Hub
from formwright.service.web.site import WebSite

LIMIT_S = 120  # for whatever must come


@contextmanager
def showing(store, port=0, failures=None, **settings):
    """Yields the address of a page of this store, as `http://...`; `failures` as for a gate."""
    told, started = {}, threading.Event()

    async def show():
        loop, stop = asyncio.get_running_loop(), asyncio.Event()

        async def in_thread(call, *given):
            return await loop.run_in_executor(None, call, *given)

        try:
            hub = Hub(store, in_thread)
            site = WebSite(Settings(web=f"127.0.0.1:{port}", **settings))
            gate = Gate(store.access, failures=failures) if site.needs.tokens else Gate()
            site.show(store, gate, hub, lambda: (b"formwright_up 1\n", "text/plain; version=1.0.0"))
            told.update(address=site.address, loop=loop, stop=stop)
        except SetupError as error:
            told.update(error=error)
            return
        finally:
            started.set()
        running = asyncio.gather(hub.run(), site.run())
        await stop.wait()
        site.stop()
        hub.stop()
        await running
        gate.close()

    thread = threading.Thread(target=lambda: asyncio.run(show()))
    thread.start()
    assert started.wait(LIMIT_S)
    if "error" in told:
        thread.join()
        raise told["error"]
    try:
        yield told["address"]
    finally:
        told["loop"].call_soon_threadsafe(told["stop"].set)
        thread.join()


def place(url):
    split = urlsplit(url)
    return split.hostname, split.port


class Answer:
    def __init__(self, response):
        self.status, self.headers = response.status, response.headers
        self.text = response.read().decode(errors="replace")


def ask(url, path, method="GET", body=None, **headers):
    """An answer; redirects are not followed. `sec_fetch_site` is the header Sec-Fetch-Site."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection(*place(url), timeout=LIMIT_S)
    try:
        connection.request(method, path, body, sent)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def ask_raw(url, data):
    """What comes back for these bytes, until the server hangs up."""
    with socket.create_connection(place(url), timeout=LIMIT_S) as wire:
        wire.sendall(data)
        found = b""
        try:
            while piece := wire.recv(65536):
                found += piece
        except ConnectionResetError:  # it hung up without reading the rest
            pass
    return found.decode(errors="replace")


def send_form(url, path, text, **headers):
    sent = {"content_type": "application/x-www-form-urlencoded", "sec_fetch_site": "same-origin"}
    return ask(url, path, "POST", text, **sent | headers)


def log_in(url, token, **headers):
    """The answer, and the cookie as a browser sends it."""
    answer = send_form(url, "/login", f"token={token}&next=/searches", **headers)
    return answer, (answer.headers.get("set-cookie") or "").partition(";")[0]


@contextmanager
def listening(url, path, **headers):
    """Yields an iterator over the events of a stream: name, number, data."""
    connection = http.client.HTTPConnection(*place(url), timeout=LIMIT_S)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield _events(response)
    finally:
        connection.close()


def _events(response):
    fields = {}
    while line := response.readline().decode():
        name, _, value = line.strip().partition(": ")
        if name:
            fields[name] = value
        elif fields:
            yield fields["event"], int(fields["id"]), json.loads(fields["data"])
            fields = {}
