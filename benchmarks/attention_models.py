"""The models of attention.py: small Transformers in whose style users write attention.

Each exists in three spellings with the same weights. `hand`: q @ k.T * scale + mask, softmax, @ v.
`dense`: `scaled_dot_product_attention` with the mask that `hand` builds. `oracle`: the best call of
it that somebody who knows what the mask means can write. It must not know what is measured.

Shapes: B batch, T tokens, H heads, D head width; x is [B, T, H * D].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

WIDTH, HEADS, KV_HEADS, LAYERS, RATIO = 512, 8, 2, 2, 4
HEAD = WIDTH // HEADS
BLOCK = 1024  # of nanoGPT: the length of its triangular buffer, unless the text is longer
LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True)
class Case:
    """One model at one length. `train` is the causal model, forward and backward."""

    model: str
    length: int
    window: int = 256

    @property
    def key(self) -> str:
        return f"{self.model}/{self.length}"

    @property
    def batch(self) -> int:
        return 1 if self.length >= 1024 else 2

    @property
    def trains(self) -> bool:
        return self.model == "train"

    @property
    def spellings(self) -> tuple[str, ...]:
        """`dense` of the encoder is its `oracle`, and training has no `dense`."""
        return ("hand", "oracle") if self.model in ("encoder", "train") else SPELLINGS


SPELLINGS = ("hand", "oracle", "dense")
MODELS = ("encoder", "causal", "gqa", "window", "train")
LENGTHS = {m: (512, 1024) if m == "train" else (128, 512, 1024, 2048, 4096) for m in MODELS}


def make(case: Case, spelling: str) -> nn.Module:
    """The model of a case. All spellings have the same weights."""
    torch.manual_seed(0)
    layer = {"encoder": Encoder, "gqa": Grouped, "window": Ungrouped}.get(case.model, Causal)
    model = Transformer(case, spelling, [layer(case, spelling) for _ in range(LAYERS)])
    return model if case.trains else model.eval()


def inputs(case: Case) -> tuple[Tensor, ...]:
    """What the model is called with: hidden states and, but for nanoGPT, 0 and 1 for padding. Of
    the encoder's first text 75 % is real; in the others nothing is padding."""
    torch.manual_seed(1)
    x = torch.randn(case.batch, case.length, WIDTH)
    if case.model in ("causal", "train"):
        return (x,)
    mask = torch.ones(case.batch, case.length, dtype=torch.long)
    if case.model == "encoder":
        mask[0, case.length * 3 // 4 :] = 0
    return x, mask


# --- masks --------------------------------------------------------------------------------------


def padding(x: Tensor, attention_mask: Tensor) -> Tensor:
    """BERT's: [B, 1, 1, T], zero where a key is real."""
    return (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * LOWEST


def band(x: Tensor, attention_mask: Tensor, window: int | None) -> Tensor:
    """Of decoders in transformers: [B, 1, T, T], zero where a key is real, not later than the
    query, and (Mistral) less than `window` before it."""
    positions = torch.arange(x.shape[1], device=x.device)
    queries, keys = positions[:, None], positions[None, :]
    allowed = keys <= queries
    if window is not None:
        allowed = allowed & (keys > queries - window)
    allowed = allowed[None, None] & attention_mask[:, None, None, :].bool()
    return torch.where(allowed, 0.0, LOWEST)


class Transformer(nn.Module):
    """The layers, behind a mask that they share."""

    def __init__(self, case: Case, spelling: str, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.model = case.model
        self.known = spelling == "oracle"
        self.window = case.window if case.model == "window" else None
        if self.known and self.window is not None and self.window < case.length:
            ones = torch.ones(1, case.length, dtype=torch.long)
            made = band(torch.empty(1, case.length), ones, self.window)
            self.register_buffer("band", made, persistent=False)
        else:
            self.band = None

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        mask = self.mask(x, attention_mask)
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def mask(self, x: Tensor, attention_mask: Tensor | None) -> Tensor | None:
        if attention_mask is None:
            return None
        if self.model == "encoder":
            return padding(x, attention_mask)
        return self.band if self.known else band(x, attention_mask, self.window)


# --- layers -------------------------------------------------------------------------------------


class Layer(nn.Module):
    """Pre-norm: attention, then an MLP. Kinds of attention are subclasses."""

    def __init__(self, case: Case, spelling: str) -> None:
        super().__init__()
        self.spelling = spelling
        self.norm1, self.norm2 = self.norm(), self.norm()
        self.up, self.down = nn.Linear(WIDTH, RATIO * WIDTH), nn.Linear(RATIO * WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def norm(self) -> nn.Module:
        return nn.LayerNorm(WIDTH)

    def attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attend(self.norm1(x), mask)
        return x + self.down(gelu(self.up(self.norm2(x))))  # type: ignore[no-any-return]


class Encoder(Layer):
    """BERT's: a mask of floats is added to the scores."""

    def __init__(self, case: Case, spelling: str) -> None:
        super().__init__(case, spelling)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        b, t, c = x.shape
        q = self.query(x).view(b, t, HEADS, HEAD).transpose(1, 2)
        k = self.key(x).view(b, t, HEADS, HEAD).transpose(1, 2)
        v = self.value(x).view(b, t, HEADS, HEAD).transpose(1, 2)
        if self.spelling == "hand":
            scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(HEAD)
            if mask is not None:
                scores = scores + mask
            y = torch.matmul(nn.functional.softmax(scores, dim=-1), v)
        else:
            y = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).reshape(b, t, c))  # type: ignore[no-any-return]


class Causal(Layer):
    """nanoGPT's: one projection, a triangular buffer, -inf above the diagonal."""

    bias: Tensor

    def __init__(self, case: Case, spelling: str) -> None:
        super().__init__(case, spelling)
        self.c_attn = nn.Linear(WIDTH, 3 * WIDTH)
        if spelling != "oracle":
            size = max(BLOCK, case.length)
            triangle = torch.tril(torch.ones(size, size)).view(1, 1, size, size)
            self.register_buffer("bias", triangle, persistent=False)

    def attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.c_attn(x).split(c, dim=2)
        k = k.view(b, t, HEADS, c // HEADS).transpose(1, 2)
        q = q.view(b, t, HEADS, c // HEADS).transpose(1, 2)
        v = v.view(b, t, HEADS, c // HEADS).transpose(1, 2)
        if self.spelling == "hand":
            att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
            att = att.masked_fill(self.bias[:, :, :t, :t] == 0, float("-inf"))
            y = nn.functional.softmax(att, dim=-1) @ v
        elif self.spelling == "dense":
            y = scaled_dot_product_attention(q, k, v, attn_mask=self.bias[:, :, :t, :t] != 0)
        else:
            y = scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(1, 2).contiguous().view(b, t, c)
        return self.out(y)  # type: ignore[no-any-return]


class RMSNorm(nn.Module):
    """Llama's."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        variance = x.pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + 1e-6))


def rotate_half(x: Tensor) -> Tensor:
    x1, x2 = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat((-x2, x1), dim=-1)


def repeat_kv(x: Tensor, times: int) -> Tensor:
    b, heads, t, d = x.shape
    if times == 1:
        return x
    x = x[:, :, None, :, :].expand(b, heads, times, t, d)
    return x.reshape(b, heads * times, t, d)


class Ungrouped(Layer):
    """Llama's and Mistral's: rotated queries and keys, a dense mask of floats, softmax in fp32."""

    kv_heads = HEADS
    inv_freq: Tensor

    def __init__(self, case: Case, spelling: str) -> None:
        super().__init__(case, spelling)
        self.q_proj = nn.Linear(WIDTH, WIDTH, bias=False)
        self.k_proj = nn.Linear(WIDTH, self.kv_heads * HEAD, bias=False)
        self.v_proj = nn.Linear(WIDTH, self.kv_heads * HEAD, bias=False)
        frequencies = 1.0 / (10000.0 ** (torch.arange(0, HEAD, 2).float() / HEAD))
        self.register_buffer("inv_freq", frequencies, persistent=False)

    def norm(self) -> nn.Module:
        return RMSNorm()

    def attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        b, t, _ = x.shape
        q = self.q_proj(x).view(b, t, -1, HEAD).transpose(1, 2)
        k = self.k_proj(x).view(b, t, -1, HEAD).transpose(1, 2)
        v = self.v_proj(x).view(b, t, -1, HEAD).transpose(1, 2)
        angles = torch.arange(t, device=x.device).float()[:, None] * self.inv_freq
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos(), angles.sin()
        q, k = q * cos + rotate_half(q) * sin, k * cos + rotate_half(k) * sin
        times = HEADS // self.kv_heads
        if self.spelling == "hand":
            k, v = repeat_kv(k, times), repeat_kv(v, times)
            weights = torch.matmul(q, k.transpose(2, 3)) * HEAD**-0.5
            if mask is not None:
                weights = weights + mask
            weights = nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(q.dtype)
            y = torch.matmul(weights, v)
        elif self.spelling == "dense":
            k, v = repeat_kv(k, times), repeat_kv(v, times)
            y = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            grouped, causal = times > 1, mask is None
            y = scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped
            )
        return self.out(y.transpose(1, 2).contiguous().reshape(b, t, -1))  # type: ignore[no-any-return]


class Grouped(Ungrouped):
    """With fewer heads of keys and values than of queries."""

    kv_heads = KV_HEADS
