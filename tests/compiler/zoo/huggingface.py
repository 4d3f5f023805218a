"""Real third-party models, tiny and randomly initialised, with eager attention and ragged masks."""

from typing import Any

import torch
import transformers
from torch import nn

from formwright.compiler.report import Reason

from .entry import HEADS, LAYERS, LENGTH, VOCABULARY, WIDTH, Built, Entry, ids, ragged, row

TINY = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "use_cache": False,
}
GROUPED = {"num_key_value_heads": 2, "head_dim": WIDTH // HEADS}
PATCHES = {"image_size": 16, "patch_size": 4}
SHORT = 7  # what decoders of encoder-decoders are given
BART = {
    "d_model": WIDTH,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": None,
}


def _make(kind: str, **changes: Any) -> nn.Module:
    """A model without dropout; `kind` is what transformers calls its type."""
    config = transformers.AutoConfig.for_model(kind, **{**TINY, **changes})
    model = transformers.AutoModel.from_config(config, attn_implementation="eager")
    for module in model.modules():
        for name, value in list(vars(module).items()):
            is_rate = "drop" in name or (name == "p" and isinstance(module, nn.Dropout))
            if is_rate and isinstance(value, float):
                setattr(module, name, 0.0)
    return model


def _text(kind: str, left: bool = False, **changes: Any) -> Built:
    return _make(kind, **changes), (ids(),), {"attention_mask": ragged(left=left)}


def _pair(kind: str, **changes: Any) -> Built:
    target = {"decoder_input_ids": ids(SHORT), "decoder_attention_mask": ragged(SHORT)}
    return _make(kind, **changes), (ids(),), {"attention_mask": ragged(), **target}


@row()
def bert() -> Built:
    return _text("bert")


@row()
def distilbert() -> Built:
    return _text("distilbert", dim=WIDTH, n_layers=LAYERS, n_heads=HEADS, hidden_dim=48)


@row(causal=True)
def gpt2(left: bool = False) -> Built:
    return _text("gpt2", left, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=40)


@row(causal=True, in_float32=True)
def opt(left: bool = False) -> Built:
    return _text("opt", left, ffn_dim=48, word_embed_proj_dim=WIDTH)


@row(causal=True, in_float32=True)
def llama(left: bool = False) -> Built:
    """Two heads of keys for four of queries."""
    return _text("llama", left, **GROUPED)


@row(causal=True, in_float32=True)
def mistral(left: bool = False) -> Built:
    """A window that is shorter than the text."""
    return _text("mistral", left, sliding_window=4, **GROUPED)


@row(code=Reason.UNKNOWN_OP, causal=True)
def gemma2(left: bool = False) -> Built:
    """Scores capped by a hyperbolic tangent, which no fused call computes."""
    return _text("gemma2", left, sliding_window=4, **GROUPED)


@row(causal=True, in_float32=True)
def bloom(left: bool = False) -> Built:
    """ALiBi, added by `baddbmm`. In training its own GELU is an autograd function, for which the
    graph as a whole is declined; torch's takes its place."""
    model, args, kwargs = _text("bloom", left, n_layer=LAYERS, n_head=HEADS)
    for layer in model.h:
        layer.mlp.gelu_impl = nn.GELU(approximate="tanh")
    return model, args, kwargs


@row(causal=True, in_float32=True)
def gpt_neox(left: bool = False) -> Built:
    return _text("gpt_neox", left)


@row(causal=True)
def falcon(left: bool = False) -> Built:
    """One head of keys and values, broadcast by the product."""
    return _text("falcon", left)


@row(causal=True, in_float32=True)
def mpt(left: bool = False) -> Built:
    """ALiBi, added with three axes, and then `masked_fill`."""
    sizes = {"d_model": WIDTH, "n_layers": LAYERS, "n_heads": HEADS}
    return _text("mpt", left, expansion_ratio=2, max_seq_len=40, **sizes)


@row(causal=True, in_float32=True)
def clip_text(left: bool = False) -> Built:
    return _text("clip_text_model", left)


@row(sites=3 * LAYERS)
def t5() -> Built:
    """A learned relative bias, in the encoder and in the decoder."""
    sizes = {"d_model": WIDTH, "d_kv": WIDTH // HEADS, "d_ff": 48}
    return _pair("t5", num_layers=LAYERS, num_heads=HEADS, decoder_start_token_id=1, **sizes)


@row(sites=3 * LAYERS)
def bart() -> Built:
    """Attention across: keys and values of another length than the queries."""
    return _pair("bart", **BART)


@row(in_float32=True)
def vit() -> Built:
    return _make("vit", **PATCHES), (torch.randn(3, 3, 16, 16),), {}


@row(in_float32=True)
def swin() -> Built:
    """The second layer's windows are shifted."""
    sizes = {"embed_dim": WIDTH, "depths": [2], "num_attention_heads": [HEADS], "window_size": 4}
    model = _make("swin", image_size=16, patch_size=2, **sizes)
    return model, (torch.randn(3, 3, 16, 16),), {}


@row()
def whisper_encoder() -> Built:
    sizes = {"num_mel_bins": 8, "max_source_positions": LENGTH, "max_target_positions": 40}
    model = _make("whisper", **BART, **sizes).encoder
    return model, (torch.randn(3, 8, 2 * LENGTH),), {}


HUGGING_FACE: tuple[Entry, ...] = (
    bert,
    distilbert,
    gpt2,
    opt,
    llama,
    mistral,
    gemma2,
    bloom,
    gpt_neox,
    falcon,
    mpt,
    clip_text,
    t5,
    bart,
    vit,
    swin,
    whisper_encoder,
)
