"""What every test starts from: fixed seeds, no graphs left by another test, nothing that a slow
machine could make fail, and a browser for those that ask for one."""

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
