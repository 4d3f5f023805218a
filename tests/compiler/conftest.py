"""What the compiler's tests share: the zoo of models (`zoo/`), and how a model is compiled."""

import pytest
import torch

from .zoo.by_hand import BY_HAND
from .zoo.huggingface import HUGGING_FACE

ENTRIES = {e.name: e for e in (*HUGGING_FACE, *BY_HAND)}
# The few that are run in every way there is; `test_attention_models.py` runs all.
ZOO = {name: ENTRIES[name].build for name in ("bert", "gpt2", "llama", "vit", "encoder")}


@pytest.fixture(params=ENTRIES.values(), ids=ENTRIES)
def entry(request):
    """Each entry of the zoo in turn."""
    return request.param


@pytest.fixture
def entries():
    """All entries by name."""
    return ENTRIES


@pytest.fixture(params=list(ZOO))
def zoo_model(request):
    """`(model in eval mode, args, kwargs)` of each model of the zoo in turn."""
    model, args, kwargs = ZOO[request.param]()
    return model.eval(), args, kwargs


@pytest.fixture
def zoo():
    """The builders by name."""
    return ZOO


def tensor_of(output):
    """The main tensor of what a model returns."""
    return output if isinstance(output, torch.Tensor) else output[0]


@pytest.fixture(name="tensor_of")
def _tensor_of():
    return tensor_of


@pytest.fixture
def compile_eager():
    """Compile with our backend and the eager target, so that no C++ is compiled."""

    def compile(model, *, dynamic=None, fullgraph=False, **options):
        return torch.compile(
            model,
            backend="formwright",
            options={"target": "eager", **options},
            dynamic=dynamic,
            fullgraph=fullgraph,
        )

    return compile


@pytest.fixture
def packs_always(monkeypatch):
    """Models as small as those of the tests are packed too."""
    for name in ("COST_OF_A_CALL", "COST_OF_A_SEQUENCE", "LEAST_SHARE"):
        monkeypatch.setattr(f"formwright.compiler.passes.remove_padding.{name}", 0)


@pytest.fixture
def lowers_always(monkeypatch):
    """Norms as small as those of the tests are lowered too."""
    monkeypatch.setattr("formwright.compiler.passes.lower_norms.FITS", 0)
