"""Faults for the doctor: a list that grows by a decorator, and the world they are planted in."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from formwright.service.checks.finding import ok
from formwright.service.checks.look import Look, now
from formwright.service.checkup import CHECKS, examined
from formwright.service.settings import SETTINGS
from formwright.service.store import open_store

from .authority import Authority


@dataclass
class World:
    """What a fault is planted in: an empty folder, which is the current one, and options. What is
    entered ends with the test; `database()` is a new one of PostgreSQL."""

    folder: Path
    patch: pytest.MonkeyPatch
    request: pytest.FixtureRequest
    stack: ExitStack
    options: dict = field(default_factory=dict)
    clock: object = now
    patience_s: float = 60.0

    def enter(self, context):
        return self.stack.enter_context(context)

    def database(self):
        return self.request.getfixturevalue("postgresql")()

    def store(self, given, do):
        """What a store gives, which is closed before anybody looks."""
        store = open_store(str(given))
        try:
            return do(store)
        finally:
            store.close()

    def look(self):
        return Look(self.options, self.clock, self.patience_s)

    def findings(self, check):
        """Of one row of the table."""
        row = next(row for row in CHECKS if row.name == check)
        return examined(replace(row, limit_s=10 * row.limit_s), self.look())


@pytest.fixture
def world(tmp_path, monkeypatch, request):
    for setting in SETTINGS.values():
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("FORMWRIGHT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:
        yield World(tmp_path, monkeypatch, request, stack)


class Faults(list):
    """`@faults.row(check, name, status, says, remedy)` on a function that plants one in a world:
    the check must then find it, and name the remedy."""

    def row(self, check, name, status, says, remedy):
        def listed(plant):
            self.append(pytest.param(plant, check, name, status, says, remedy, id=plant.__name__))
            return plant

        return listed


def assert_found(world, plant, check, name, status, says, remedy):
    plant(world)
    found = [each for each in world.findings(check) if each.name == name and each.status != "ok"]
    assert [each.status for each in found] == [status], world.findings(check)
    (it,) = found
    assert says in it.said, it.said
    assert remedy in it.remedy, it.remedy
    assert "\n" not in it.said + it.remedy, it


@contextmanager
def threads():
    with ThreadPoolExecutor(4) as pool:
        yield pool


def finding():
    return ok("anything", "is well")


def pair(world, *, of=None, **how):
    """The server's certificate and key, and the CA for clients."""
    by = of or Authority(world.folder)
    certificate, key = by.pair("server", **how)
    world.options |= {"certificate": certificate, "key": key, "ca": str(by.file)}
    return by
