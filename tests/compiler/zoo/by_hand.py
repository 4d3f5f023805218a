"""Attention as people write it themselves, and as `torch.nn` does.

Shapes: B batch, H heads, L queries, S keys, K head width, D = H K. `keep` [B,S] is true for tokens
and false for padding.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from formwright.compiler.report import Reason

from .entry import HEADS, LAYERS, LENGTH, WIDTH, Built, Entry, ragged, row, vectors

HEAD = WIDTH // HEADS
SCALE = 1 / math.sqrt(HEAD)


class Attention(nn.Module):
    """What all have in common: projections to q, k, v [B,H,L,K], and a last one."""

    def __init__(self, dropout: float = 0.0, groups: int = HEADS) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, groups * HEAD)
        self.value = nn.Linear(WIDTH, groups * HEAD)
        self.last = nn.Linear(WIDTH, WIDTH)
        self.drop = nn.Dropout(dropout)

    def heads(self, x: torch.Tensor) -> list[torch.Tensor]:
        """q, k and v with the heads in front."""
        made = (self.query(x), self.key(x), self.value(x))
        return [y.view(*x.shape[:2], -1, HEAD).transpose(1, 2) for y in made]

    def join(self, y: torch.Tensor) -> torch.Tensor:
        """[B,H,L,K] back to [B,L,D]."""
        return self.last(y.transpose(1, 2).reshape(y.shape[0], -1, WIDTH))


class NanoGPT(Attention):
    """Packed projections, a triangle in a buffer, minus infinity."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__(dropout)
        self.packed = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        triangle = torch.tril(torch.ones(40, 40)).view(1, 1, 40, 40)
        self.register_buffer("triangle", triangle)

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        b, t, d = x.size()
        q, k, v = self.packed(x).split(d, dim=2)
        k = k.view(b, t, HEADS, d // HEADS).transpose(1, 2)
        q = q.view(b, t, HEADS, d // HEADS).transpose(1, 2)
        v = v.view(b, t, HEADS, d // HEADS).transpose(1, 2)
        scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        scores = scores.masked_fill(self.triangle[:, :, :t, :t] == 0, float("-inf"))
        scores = scores.masked_fill(~keep[:, None, None, :], float("-inf"))
        y = self.drop(F.softmax(scores, dim=-1)) @ v
        return self.last(y.transpose(1, 2).contiguous().view(b, t, d))


class Einsum(Attention):
    """The heads stay where they are: q [B,L,H,K]."""

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        q, k, v = (f(x).unflatten(-1, (HEADS, HEAD)) for f in (self.query, self.key, self.value))
        scores = torch.einsum("blhk,bshk->bhls", q, k) / math.sqrt(HEAD)
        scores = scores.masked_fill(~keep[:, None, None], torch.finfo(scores.dtype).min)
        y = torch.einsum("bhls,bshk->blhk", self.drop(scores.softmax(-1)), v)
        return self.last(y.flatten(2))


class Alibi(Attention):
    """A slope for each head times the distance, and a causal mask."""

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        q, k, v = self.heads(x)
        place = torch.arange(x.shape[1], device=x.device)
        distance = place[None, :] - place[:, None]
        slopes = 2.0 ** -torch.arange(1, HEADS + 1, dtype=x.dtype, device=x.device)
        scores = q @ k.mT * SCALE + slopes[:, None, None] * distance
        visible = (distance <= 0) & keep[:, None, None]
        scores = torch.where(visible, scores, torch.finfo(x.dtype).min)
        return self.join(self.drop(scores.softmax(-1)) @ v)


class Rotary(Attention):
    """Queries and keys turned by their position; an additive causal mask."""

    @staticmethod
    def turned(x: torch.Tensor) -> torch.Tensor:
        """Halves of x [B,H,L,K] as the two sides of complex numbers, turned by their place."""
        speeds = 100.0 ** -torch.linspace(0, 1, HEAD // 2, dtype=x.dtype, device=x.device)
        angle = torch.arange(x.shape[2], device=x.device)[:, None] * speeds
        a, b = x.chunk(2, dim=-1)
        cos, sin = angle.cos(), angle.sin()
        return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        q, k, v = self.heads(x)
        square = x.new_full((x.shape[1], x.shape[1]), torch.finfo(x.dtype).min).triu(1)
        mask = torch.where(keep[:, None, None], square, torch.finfo(x.dtype).min)
        scores = torch.matmul(self.turned(q) * SCALE, self.turned(k).transpose(2, 3)) + mask
        return self.join(torch.matmul(self.drop(torch.softmax(scores, dim=-1)), v))


class InFloat32(Attention):
    """Scores, mask and softmax in float32 whatever the model is in."""

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        q, k, v = self.heads(x)
        scores = (q @ k.transpose(-1, -2)).float() * SCALE
        scores = scores + (1.0 - keep[:, None, None].float()) * -10000.0
        return self.join(self.drop(scores.softmax(-1)).to(v.dtype) @ v)


class Grouped(Attention):
    """Each head of keys and values is repeated for two of queries."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__(dropout, groups=HEADS // 2)

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        q, k, v = self.heads(x)
        k, v = (y.repeat_interleave(2, dim=1) for y in (k, v))
        scores = (q @ k.transpose(-1, -2)).div(math.sqrt(HEAD))
        scores = scores.masked_fill(keep[:, None, None].logical_not(), -1e9)
        return self.join(self.drop(scores.softmax(-1)) @ v)


class ThreeAxes(Attention):
    """Batch and heads in one axis, as OPT and BART were for years; `bmm`."""

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        b, t, _ = x.shape
        q, k, v = (y.contiguous().view(b * HEADS, -1, HEAD) for y in self.heads(x))
        mask = torch.zeros_like(keep, dtype=x.dtype)
        mask = mask.masked_fill(~keep, torch.finfo(x.dtype).min)[:, None, None]
        scores = torch.bmm(q * SCALE, k.transpose(1, 2)).view(b, HEADS, t, t) + mask
        p = F.softmax(scores.view(b * HEADS, t, t), dim=-1)
        y = torch.bmm(F.dropout(p, self.drop.p, self.training), v).view(b, HEADS, t, HEAD)
        return self.join(y)


class Relative(Attention):
    """No scale, and a learned bias [1,H,L,S] with the mask in it, added in place, as T5 was."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__(dropout)
        self.bias = nn.Embedding(9, HEADS)

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        q, k, v = self.heads(x)
        place = torch.arange(x.shape[1], device=x.device)
        bucket = (place[None, :] - place[:, None]).clamp(-4, 4) + 4
        bias = self.bias(bucket).permute(2, 0, 1)[None]
        bias = bias + (~keep[:, None, None]).to(x.dtype) * torch.finfo(x.dtype).min
        scores = torch.matmul(q, k.transpose(3, 2))
        scores += bias
        p = F.softmax(scores.float(), dim=-1).type_as(scores)
        return self.join(torch.matmul(self.drop(p), v))


class OfTorch(nn.Module):
    """`nn.MultiheadAttention`; `returned`: with the weights that it computes."""

    def __init__(self, dropout: float = 0.0, weights: bool = True, returned: bool = False) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(WIDTH, HEADS, dropout, batch_first=True)
        self.weights, self.returned = weights, returned

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> Any:
        y, p = self.inner(x, x, x, key_padding_mask=~keep, need_weights=self.weights)
        return (y, p) if self.returned else y


class Stack(nn.Module):
    """Layers of attention with residuals; weights that a layer returns are returned too."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in layers)

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> Any:
        weights = []
        for layer, norm in zip(self.layers, self.norms, strict=True):
            y = layer(norm(x), keep)
            if isinstance(y, tuple):
                weights.append(y[1])
                y = y[0]
            x = x + y
        return (x, *weights) if weights else x


def stacked(attention: type[nn.Module], left: bool = False, **how: Any) -> Built:
    """Two layers of it, with ragged texts."""
    layers = [attention(**how) for _ in range(LAYERS)]
    return Stack(*layers), (vectors(), ragged(left=left) == 1), {}


@row(causal=True)
def nano_gpt(left: bool = False) -> Built:
    return stacked(NanoGPT, left)


@row()
def einsum() -> Built:
    return stacked(Einsum)


@row(causal=True)
def alibi(left: bool = False) -> Built:
    return stacked(Alibi, left)


@row(causal=True)
def rotary(left: bool = False) -> Built:
    return stacked(Rotary, left)


@row(in_float32=True)
def softmax_in_float32() -> Built:
    return stacked(InFloat32)


@row()
def grouped() -> Built:
    return stacked(Grouped)


@row()
def three_axes() -> Built:
    return stacked(ThreeAxes)


@row(in_float32=True)
def relative_in_place() -> Built:
    return stacked(Relative)


@row(sites=0)
def torch_without_weights() -> Built:
    """Fused by torch itself: there is no softmax to see."""
    return stacked(OfTorch, weights=False)


@row()
def torch_weights_discarded() -> Built:
    return stacked(OfTorch)


@row(code=Reason.OTHER_READERS)
def torch_weights_returned() -> Built:
    return stacked(OfTorch, returned=True)


@row(sites=0, opened=LAYERS)
def encoder() -> Built:
    """In inference one operator of torch's a layer, in training with its fused attention."""
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 48, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
    return model, (torch.randn(3, LENGTH, WIDTH),), {"src_key_padding_mask": ragged() == 0}


BY_HAND: tuple[Entry, ...] = (
    nano_gpt,
    einsum,
    alibi,
    rotary,
    softmax_in_float32,
    grouped,
    three_axes,
    relative_in_place,
    torch_without_weights,
    torch_weights_discarded,
    torch_weights_returned,
    encoder,
)
