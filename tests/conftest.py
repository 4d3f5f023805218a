"""What every test starts from: fixed seeds and no graphs left by another test."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _fresh():
    torch.manual_seed(0)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
