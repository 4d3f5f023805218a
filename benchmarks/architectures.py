"""Tiny Hugging Face architectures with eager attention and the inputs they are called with.

A row of `ARCHITECTURES` says how a model is built and how many attentions a call of it computes.
It knows nothing of what is done with the models; `attention_sites.py` uses it. To add one: a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

BATCH, LENGTH, SHORT, VOCABULARY = 3, 12, 7, 90
Inputs = dict[str, Any]


@dataclass(frozen=True)
class Architecture:
    """`kind` is the model type of transformers, `changes` what its config is given beside the
    common sizes, `attentions` how many a call computes."""

    kind: str
    inputs: Callable[[], Inputs]
    attentions: int
    changes: dict[str, Any]

    def build(self) -> tuple[nn.Module, Inputs]:
        """The model in eval mode with random weights, and what to call it with."""
        from transformers import AutoConfig, AutoModel

        config = AutoConfig.for_model(self.kind, **{**COMMON, **self.changes})
        for name in ("text_config", "vision_config", "encoder", "decoder"):
            if hasattr(getattr(config, name, None), "_attn_implementation"):
                getattr(config, name)._attn_implementation = "eager"
        model = AutoModel.from_config(config, attn_implementation="eager")
        return model.eval(), self.inputs()


# --- inputs: what the models take, ragged where they take a mask ----------------------------------


def mask(length: int = LENGTH, left: bool = False) -> torch.Tensor:
    """One for tokens, zero for padding: three texts of different lengths."""
    ones = torch.ones(BATCH, length, dtype=torch.long)
    ones[0, length // 2 :] = 0
    ones[1, length - 2 :] = 0
    return ones.flip(1) if left else ones


def _ids(length: int = LENGTH) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (BATCH, length))


def text() -> Inputs:
    return {"input_ids": _ids(), "attention_mask": mask()}


def causal() -> Inputs:
    """Padded on the left, as for generation: the first queries of a text see no key at all."""
    return {"input_ids": _ids(), "attention_mask": mask(left=True)}


def pair() -> Inputs:
    """Source and target of an encoder-decoder."""
    target = {"decoder_input_ids": _ids(SHORT), "decoder_attention_mask": mask(SHORT)}
    return {**text(), **target}


def image(size: int = 16) -> Inputs:
    return {"pixel_values": torch.randn(BATCH, 3, size, size)}


def sound() -> Inputs:
    """Waves of three lengths."""
    lengths = torch.arange(800)[None] < torch.tensor([[800], [600], [500]])
    return {"input_values": torch.randn(BATCH, 800), "attention_mask": lengths.long()}


def spectrogram() -> Inputs:
    return {"input_values": torch.randn(BATCH, 24, 16)}


def mel() -> Inputs:
    return {"input_features": torch.randn(BATCH, 8, 24), "decoder_input_ids": _ids(SHORT)}


def image_and_text() -> Inputs:
    return {**text(), **image()}


# --- sizes: what most configs call them; a row changes what its own config calls otherwise --------

COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
NO_CACHE = {"use_cache": False}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8, **NO_CACHE}
ENCODER_DECODER = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": None,
    **NO_CACHE,
}
T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 1,
    **NO_CACHE,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40, **NO_CACHE}
PATCHES = {"image_size": 16, "patch_size": 4}
WINDOWS = {
    **PATCHES,
    "patch_size": 1,
    "embed_dim": 16,
    "depths": [2, 2],
    "num_attention_heads": [2, 4],
    "window_size": 4,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
WAVES = {
    "conv_dim": [16, 16],
    "conv_stride": [5, 4],
    "conv_kernel": [10, 8],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "mask_time_prob": 0.0,
    "apply_spec_augment": False,
}
TWO_TOWERS = {
    "text_config": {k: v for k, v in COMMON.items() if k != "pad_token_id"},
    "vision_config": {
        **{k: v for k, v in COMMON.items() if not k.endswith("_id") and k != "vocab_size"},
        **PATCHES,
    },
    "projection_dim": 32,
}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "n_routed_experts": 4,
    "n_group": 2,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 16,
    "num_key_value_heads": 4,
    **NO_CACHE,
}


def _row(kind: str, inputs: Callable[[], Inputs], attentions: int, *changes: Any) -> Architecture:
    merged: dict[str, Any] = {}
    for more in changes:
        merged |= more
    return Architecture(kind, inputs, attentions, merged)


ARCHITECTURES: tuple[Architecture, ...] = (
    # text encoders
    _row("bert", text, 2),
    _row("roberta", text, 2),
    _row("xlm-roberta", text, 2),
    _row("camembert", text, 2),
    _row("electra", text, 2, {"embedding_size": 16}),
    _row("albert", text, 2, {"embedding_size": 16}),
    _row("distilbert", text, 2, {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}),
    _row("mpnet", text, 2),
    _row("xlm", text, 2, {"emb_dim": 32, "n_layers": 2, "n_heads": 4, "n_words": VOCABULARY}),
    _row("deberta", text, 2, {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    _row("deberta-v2", text, 2, {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    _row("convbert", text, 2, {"embedding_size": 16, "head_ratio": 2, "conv_kernel_size": 3}),
    _row("modernbert", text, 2, {"local_attention": 4, "global_attn_every_n_layers": 2}),
    _row("roformer", text, 2, {"embedding_size": 32}),
    _row("esm", text, 2, {"position_embedding_type": "rotary", "mask_token_id": 3}),
    _row("layoutlm", text, 2),
    _row("squeezebert", text, 2, {"embedding_size": 32}),
    # text decoders
    _row("gpt2", causal, 2, GPT2),
    _row("openai-gpt", causal, 2, GPT2),
    _row(
        "gpt_neo",
        causal,
        2,
        GPT2,
        {
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 4,
        },
    ),
    _row("gptj", causal, 2, GPT2, {"rotary_dim": 4}),
    _row("codegen", causal, 2, GPT2, {"rotary_dim": 4}),
    _row("gpt_neox", causal, 2, NO_CACHE),
    _row("opt", causal, 2, {"ffn_dim": 48, "word_embed_proj_dim": 32, **NO_CACHE}),
    _row("bloom", causal, 2, {"n_layer": 2, "n_head": 4, **NO_CACHE}),
    _row(
        "mpt",
        causal,
        2,
        {
            "d_model": 32,
            "n_layers": 2,
            "n_heads": 4,
            "expansion_ratio": 2,
            "max_seq_len": 40,
            **NO_CACHE,
        },
    ),
    _row("falcon", causal, 2, NO_CACHE),
    _row("biogpt", causal, 2, NO_CACHE),
    _row(
        "xglm",
        causal,
        2,
        {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4, **NO_CACHE},
    ),
    _row("llama", causal, 2, GROUPED),
    _row("mistral", causal, 2, GROUPED, {"sliding_window": 4}),
    _row("mixtral", causal, 2, GROUPED, EXPERTS),
    _row("qwen2", causal, 2, GROUPED),
    _row("qwen3", causal, 2, GROUPED),
    _row("gemma", causal, 2, GROUPED),
    _row("gemma2", causal, 2, GROUPED, {"sliding_window": 4, "query_pre_attn_scalar": 8}),
    _row("gemma3_text", causal, 2, GROUPED, {"sliding_window": 4, "query_pre_attn_scalar": 8}),
    _row("phi", causal, 2, NO_CACHE),
    _row("phi3", causal, 2, NO_CACHE, {"num_key_value_heads": 2}),
    _row("stablelm", causal, 2, NO_CACHE, {"num_key_value_heads": 2}),
    _row("starcoder2", causal, 2, GROUPED),
    _row("cohere", causal, 2, GROUPED),
    _row("olmo", causal, 2, GROUPED),
    _row("olmo2", causal, 2, GROUPED),
    _row("granite", causal, 2, GROUPED, {"attention_multiplier": 0.3}),
    _row("nemotron", causal, 2, GROUPED),
    _row("glm", causal, 2, GROUPED),
    _row("persimmon", causal, 2, NO_CACHE),
    _row("gpt_oss", causal, 2, GROUPED, EXPERTS, {"sliding_window": 4}),
    _row("deepseek_v3", causal, 2, LATENT),
    # encoder-decoders
    _row("t5", pair, 6, T5),
    _row("mt5", pair, 6, T5),
    _row("umt5", pair, 6, T5),
    _row("bart", pair, 6, ENCODER_DECODER),
    _row("mbart", pair, 6, ENCODER_DECODER),
    _row("pegasus", pair, 6, ENCODER_DECODER),
    _row("marian", pair, 6, ENCODER_DECODER),
    _row("blenderbot", pair, 6, ENCODER_DECODER),
    _row("m2m_100", pair, 6, ENCODER_DECODER),
    # vision
    _row("vit", image, 2, PATCHES),
    _row("deit", image, 2, PATCHES),
    _row("beit", image, 2, PATCHES, {"use_relative_position_bias": True}),
    _row("dinov2", image, 2, PATCHES),
    _row("ijepa", image, 2, PATCHES),
    _row("yolos", image, 2, PATCHES, {"image_size": [16, 16], "num_detection_tokens": 4}),
    _row("swin", image, 4, WINDOWS),
    _row("swinv2", image, 4, WINDOWS),
    _row(
        "pvt",
        image,
        4,
        {
            "image_size": 16,
            "num_encoder_blocks": 2,
            "depths": [2, 2],
            "sequence_reduction_ratios": [2, 1],
            "hidden_sizes": [16, 32],
            "patch_sizes": [4, 2],
            "strides": [4, 2],
            "num_attention_heads": [2, 4],
            "mlp_ratios": [2, 2],
        },
    ),
    _row("clip", image_and_text, 4, TWO_TOWERS),
    _row("siglip", image_and_text, 5, TWO_TOWERS),
    # sound
    _row(
        "whisper",
        mel,
        6,
        ENCODER_DECODER,
        {
            "num_mel_bins": 8,
            "max_source_positions": 12,
            "max_target_positions": 40,
        },
    ),
    _row("wav2vec2", sound, 2, WAVES),
    _row("hubert", sound, 2, WAVES),
    _row("wavlm", sound, 2, WAVES),
    _row(
        "audio-spectrogram-transformer",
        spectrogram,
        2,
        {
            "patch_size": 4,
            "max_length": 24,
            "num_mel_bins": 16,
            "frequency_stride": 4,
            "time_stride": 4,
        },
    ),
)
