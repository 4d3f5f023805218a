"""What every test starts from: fixed seeds, no graphs left by another test, nothing that a slow
machine could make fail, and a browser for those that ask for one; and what keeps all of it cheap.
"""

import gc
import os

import pytest
import torch
from hypothesis import HealthCheck, settings

from .browser import browser

# no example has a time limit; what `@settings` of a test leaves open is as it is here
settings.register_profile("formwright", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("formwright")

# Ray kills workers where it takes the machine's memory for full, whoever has filled it
os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")


@pytest.fixture(autouse=True, scope="module")
def _young():
    """What is there before a module stays: torch, Ray, and all the tests are some million objects,
    and each whole collection (a measurement starts with one) would look at every one again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _no_stopwatch():
    """torch times the guards of each new graph, for a log that is off, and empties the processor's
    caches before: some 30 ms a graph."""
    with pytest.MonkeyPatch.context() as patch:
        guards = torch._dynamo.guards
        patch.setattr(guards, "profile_guard_manager", lambda *_: 0.0, raising=False)
        yield


@pytest.fixture(autouse=True)
def _fresh():
    torch.manual_seed(0)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="session")
def chromium():
    """A headless browser; `open` makes it forget the page before."""
    with browser() as opened:
        yield opened
