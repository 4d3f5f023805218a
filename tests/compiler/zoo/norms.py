"""Third-party models for the norm equivalence, tiny: what norms they have, and what may become of
them. Their weights are random, those of the norms too, so that a fold shows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn

from .entry import HEADS, LAYERS, VOCABULARY, WIDTH

TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": 24,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "use_cache": False,
}
WIDE = {"intermediate_size": 48}
IMAGE = {k: TEXT[k] for k in ("hidden_size", "num_hidden_layers", "num_attention_heads")} | {
    "image_size": 16,
    "patch_size": 4,
    **WIDE,
}
LAST = 2 * LAYERS + 1  # two norms a layer and one at the end


def tokens(length: int = 10) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (2, length))


def image() -> torch.Tensor:
    return torch.randn(2, 3, 16, 16)


@dataclass(frozen=True)
class Case:
    """One model. Of its LayerNorms `norms`, `rewritten` become RMSNorms or CRMSNorms; `converts`
    says whether `convert` takes the model; `raised` are RMSNorms that it spells out."""

    name: str
    build: Callable[[], tuple[nn.Module, torch.Tensor]]
    norms: int = LAST
    rewritten: int = LAST
    raised: int = 0
    converts: bool = True


def _text(kind: str, **changes: Any) -> Callable[[], tuple[nn.Module, torch.Tensor]]:
    def build() -> tuple[nn.Module, torch.Tensor]:
        config = transformers.AutoConfig.for_model(kind, **{**TEXT, **changes})
        return transformers.AutoModelForCausalLM.from_config(config), tokens()

    return build


def _image(kind: str, **changes: Any) -> Callable[[], tuple[nn.Module, torch.Tensor]]:
    def build() -> tuple[nn.Module, torch.Tensor]:
        config = transformers.AutoConfig.for_model(kind, **{**IMAGE, **changes})
        return transformers.AutoModel.from_config(config), image()

    return build


def _whisper() -> tuple[nn.Module, torch.Tensor]:
    sizes = {"d_model": WIDTH, "encoder_layers": LAYERS, "encoder_attention_heads": HEADS}
    config = transformers.WhisperConfig(
        encoder_ffn_dim=48, num_mel_bins=8, max_source_positions=8, **sizes
    )
    return transformers.models.whisper.modeling_whisper.WhisperEncoder(config), torch.randn(
        2, 8, 16
    )


def _encoder() -> tuple[nn.Module, torch.Tensor]:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 48, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH)), torch.randn(2, 6, WIDTH)


def _bert() -> tuple[nn.Module, torch.Tensor]:
    return transformers.BertModel(transformers.BertConfig(**TEXT, **WIDE)), tokens()


def _swin() -> tuple[nn.Module, torch.Tensor]:
    sizes = {"embed_dim": 16, "depths": [1, 2], "num_heads": [2, 2], "window_size": 4}
    config = transformers.SwinConfig(image_size=32, patch_size=4, drop_path_rate=0.0, **sizes)
    return transformers.SwinModel(config), torch.randn(2, 3, 32, 32)


GROUPED = {"num_key_value_heads": 2}
CASES = (
    Case("gpt2", _text("gpt2")),
    Case("opt", _text("opt", ffn_dim=48, word_embed_proj_dim=WIDTH)),
    Case("gpt_neox", _text("gpt_neox", **WIDE)),
    Case("gptj", _text("gptj", rotary_dim=4), LAYERS + 1, LAYERS + 1),
    Case("phi", _text("phi", **WIDE), LAYERS + 1, LAYERS + 1),
    Case("starcoder2", _text("starcoder2", **WIDE, **GROUPED)),
    Case("falcon", _text("falcon"), LAYERS + 1, LAYERS + 1),
    Case("vit", _image("vit")),
    Case("dinov2", _image("dinov2")),  # layer scale
    Case("siglip", _image("siglip_vision_model"), LAST + 1, LAST, converts=False),
    Case("whisper", _whisper, converts=False),
    Case("encoder", _encoder, converts=False),
    Case("swin", _swin, 9, 6, converts=False),  # patch merging ends a stream
    Case("post-norm opt", _text("opt", ffn_dim=48, do_layer_norm_before=False), 4, 0, 0, False),
    Case("bert", _bert, LAST, 0, converts=False),
    Case("llama", _text("llama", **WIDE), 0, 0, LAST, False),
    Case("gemma2", _text("gemma2", head_dim=8, **WIDE, **GROUPED), 0, 0, 4 * LAYERS + 1, False),
)


def made(case: Case, dtype: torch.dtype, dropout: bool = False) -> tuple[nn.Module, torch.Tensor]:
    """The model and its input, with random weights in every norm."""
    torch.manual_seed(0)
    model, x = case.build()
    for module in model.modules():
        for name, value in list(vars(module).items()):
            is_rate = "drop" in name or (name == "p" and isinstance(module, nn.Dropout))
            if is_rate and isinstance(value, float) and not dropout:
                setattr(module, name, 0.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.to(dtype), x.to(dtype) if x.is_floating_point() else x
