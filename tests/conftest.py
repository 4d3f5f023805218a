"""What every test starts from: fixed seeds, no graphs left by another test, and a browser for
those that ask for one."""

import pytest
import torch

from .browser import browser


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
