"""Trained architectures come back from disk, and what is not theirs is refused by name."""

import pytest
import torch

from formwright.search import SpecError, build
from formwright.search.spec import ArchSpec, BlockSpec, LayerSpec, StageSpec
from formwright.search.weights import SPEC, WEIGHTS, load, save

LAYER = LayerSpec(
    BlockSpec("random"),
    BlockSpec.of("mlp", hidden=12, activation="poly_norm"),
    BlockSpec.of("prepbn", steps=3),
)
HYBRID = ArchSpec(
    BlockSpec.of("tokens", vocabulary=20, length=6, causal=True, positions=True),
    (StageSpec(8, (LAYER,)),),
    BlockSpec("rms"),
    BlockSpec.of("language", tied=True),
)


def trained():
    """A model whose buffers are no longer what they begin as."""
    torch.manual_seed(0)
    model = build(HYBRID).train()
    model(torch.randint(20, (3, 6)))
    return model.eval()


@torch.no_grad()
def test_there_and_back(tmp_path):
    model, tokens = trained(), torch.randint(20, (2, 6))
    save(tmp_path / "deep" / "folder", HYBRID, model)

    spec, other = load(tmp_path / "deep" / "folder")

    assert spec == HYBRID
    assert torch.equal(other(tokens), model(tokens))
    assert other.head.linear.weight is other.stem.table.weight
    assert not other.training


def test_weights_of_another_architecture_are_refused(tmp_path):
    save(tmp_path, HYBRID, trained())
    other = ArchSpec(HYBRID.stem, (StageSpec(16, (LAYER,)),), HYBRID.norm, HYBRID.head)
    (tmp_path / SPEC).write_text(other.to_json())

    with pytest.raises(SpecError, match="no weights of tokens w16") as caught:
        load(tmp_path)
    assert caught.value.field == str(tmp_path / WEIGHTS)


@pytest.mark.parametrize("name", [SPEC, WEIGHTS])
@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"{}"])
def test_files_that_are_none_are_named(name, content, tmp_path):
    save(tmp_path, HYBRID, trained())
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(SpecError) as caught:
        load(tmp_path)
    assert caught.value.field == str(tmp_path / name)


def test_weights_of_the_same_shapes_are_not_those_of_another(tmp_path):
    def with_heads(heads):
        settings = {"heads": heads, "kv_heads": heads, "head_width": 8 // heads}
        block = BlockSpec.of("attention", positions="none", span=3, **settings)
        stage = StageSpec(8, (LayerSpec(block, None, "rms"),))
        return ArchSpec(HYBRID.stem, (stage,), HYBRID.norm, HYBRID.head)

    save(tmp_path, with_heads(2), build(with_heads(2)))
    (tmp_path / SPEC).write_text(with_heads(4).to_json())

    with pytest.raises(SpecError, match=r"no weights of tokens w8 rms \| attention4, but of a1:"):
        load(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_dtype_is_kept(dtype, tmp_path):
    save(tmp_path, HYBRID, trained().to(dtype))
    before = torch.random.get_rng_state()

    _, model = load(tmp_path)

    assert {p.dtype for p in model.parameters()} == {dtype}
    assert torch.equal(torch.random.get_rng_state(), before)
