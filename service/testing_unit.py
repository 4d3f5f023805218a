"""`Unit`: a server that is started again whenever it ends, as an init system does it, and that can
be killed, with its scheduler and its workers, at any moment.

It must not know what clients do meanwhile. Next: `testing_chaos.py`.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ..testing_processes import Undertaker, descendants, left, ray_workers, running, with_variable
from .embedded import start_server, stop_server

AGAIN_S = 0.1  # between the end of one and the start of the next; systemd's RestartSec
LOOK_S = 0.02
GONE_S = 40.0  # after which nothing is left of one that was killed
LEFT_S = 5.0  # after which nothing is left of one that has ended in order
PORTS = range(20_000, 32_000)  # which no system gives to those that ask for any
MARK = "TESTED_FORMWRIGHT_UNIT"  # in the environment of all that are started
KINDS = ("server", "scheduler", "worker", "raylet")


def free_port() -> int:
    """One that nobody listens on now, and that nobody is given by chance before it is used."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def health(address: str, timeout_s: float = 1.0) -> str:
    """What the standard health check says, NOT_SERVING for instance; empty without an answer."""
    with grpc.insecure_channel(address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]
        with suppress(grpc.RpcError):
            status = check(health_pb2.HealthCheckRequest(), timeout=timeout_s).status
            return str(health_pb2.HealthCheckResponse.ServingStatus.Name(status))
    return ""


class Unit:
    """Use it in a `with` block. `back_s` are the seconds from each end of a server until the next
    one was SERVING; `ended` the exit codes of those that nobody killed; what the servers log is in
    the file `log`."""

    def __init__(self, database: str | Path, log: Path, *, workers: int) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.back_s: list[float] = []
        self.ended: list[int] = []
        self.undertaker = Undertaker(GONE_S)
        self._database, self._workers, self._log = database, workers, log
        self._mark = uuid.uuid4().hex
        self._process: subprocess.Popen[str] | None = None
        self._killed: set[int] = set()
        self._stopping, self._serving = threading.Event(), threading.Event()
        self._lock = threading.Lock()  # a server is started, or it is stopping
        self._thread = threading.Thread(target=self._keep)

    def _keep(self) -> None:
        since = time.monotonic()
        while (process := self._start()) is not None:
            while process.poll() is None:
                if not self._serving.is_set() and health(self.address) == "SERVING":
                    self.back_s.append(time.monotonic() - since)
                    self._serving.set()
                time.sleep(LOOK_S)
            since = time.monotonic()
            self._serving.clear()
            _close(process)
            if process.pid not in self._killed and not self._stopping.is_set():
                self.ended.append(process.returncode)
            self._stopping.wait(AGAIN_S)

    def _start(self) -> subprocess.Popen[str] | None:
        """None once it is stopping; whoever stops it knows the last process then."""
        with self._lock, self._log.open("a") as log:
            if self._stopping.is_set():
                return None
            self._process = start_server(
                self._database,
                workers=self._workers,
                port=self.port,
                env={**os.environ, MARK: self._mark},
                stderr=log,
            )
        return self._process

    def wait_serving(self, limit_s: float) -> bool:
        """Whether it serves within this time."""
        return self._serving.wait(limit_s)

    def kill(self, kind: str) -> bool:
        """SIGKILL for one of `KINDS`; whether there was one."""
        server = self._process
        if server is None or server.poll() is not None:
            return False
        below = descendants(server.pid)
        if kind == "server":
            self._killed.add(server.pid)
            server.kill()
            self.undertaker.take(below)
            return True
        found = {
            "scheduler": lambda: running(below, "formwright.service.scheduler"),
            "worker": lambda: ray_workers(server.pid),
            "raylet": lambda: running(below, "/raylet/raylet "),
        }[kind]()
        for process in found[:1]:
            # a worker may end its job; what a scheduler or a Ray leaves behind must go
            doomed = [process, *descendants(process.pid)] if kind != "raylet" else [process]
            with suppress(psutil.NoSuchProcess):
                process.kill()
                self.undertaker.take(doomed)
                return True
        return False

    def stop(self) -> list[str]:
        """In order; what has gone wrong with the processes."""
        self._begin_to_stop()
        process = self._process
        if process is not None and process.poll() is None:
            self.undertaker.take(descendants(process.pid))
            stop_server(process)
            if process.returncode != 0:
                self.ended.append(process.returncode)
        self._thread.join()
        self.undertaker.close()
        wrong = [f"left behind: {line}" for line in self.undertaker.late]
        wrong += [f"left behind, unseen: {p}" for p in self._left()]
        wrong += [f"a server ended by itself, with {code}" for code in self.ended]
        return wrong + [f"in the log: {line}" for line in self.bad_lines()]

    def _left(self) -> list[psutil.Process]:
        return left(with_variable(MARK, self._mark), LEFT_S)

    def _begin_to_stop(self) -> None:
        with self._lock:
            self._stopping.set()

    def bad_lines(self) -> list[str]:
        """Of the log: those that nobody should see, whatever was killed."""
        signs = ("Traceback", "internal error", "request failed", "Exception", "was never awaited")
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        lines = text.splitlines()
        bad = [at for at, line in enumerate(lines) if any(sign in line for sign in signs)]
        return [f"{lines[at]} {_end_of(lines[at:])}".rstrip() for at in bad]

    def __enter__(self) -> Unit:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._begin_to_stop()
        if self._process is not None and self._process.poll() is None:
            stop_server(self._process)
        if self._thread.is_alive():
            self._thread.join()


def _close(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError, ValueError):
                pipe.close()


def _end_of(lines: list[str]) -> str:
    """What a traceback that begins there ends with, and the place; empty for anything else."""
    if "Traceback" not in lines[0]:
        return ""
    place = ""
    for line in lines[1:]:
        if "  File " in line:
            place = line.strip()
        elif not line.startswith(" "):
            return f"{line} ({place})"
    return place
