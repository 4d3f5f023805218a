"""Self-pretraining: a model first learns what its task's own training inputs look like.

"Never Train from Scratch" (Amos, Berant and Gupta, 2024): from random weights, comparisons
exaggerate how far mixers are apart. A causal model is asked for the next piece of the input; any
other for those that are masked: half of the patches of an image or a series, 15 % of tokens. Of a
masked piece the stem reads blank (zeros, token 0), and a trained marker is added to what it makes
of it. A linear head stands in for the model's own; it and the marker are thrown away afterwards,
the weights of stem, layers and norm are kept, and buffers are as they were. Targets are never
looked at. It must not know how the model is trained afterwards.

Shapes: B batch, T tokens of the stem, F numbers of one piece (1 of a token), D width, V
vocabulary, M tokens of the stem that the last stage has in one. Next: `course.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ends.end import POSITION
from ..errors import EvaluationError
from ..layout import Layout, lay_out
from ..model import Model
from ..spec import ArchSpec


@dataclass(frozen=True)
class Pieces:
    """How inputs fall into pieces, one for each token of the stem. `cut(config, inputs)` are they,
    [B, T, F] or whole numbers [B, T]; `blank(config, inputs, masked)` is the same without those
    that are `masked` [B, T]; `share` of them are; `kinds(config)` is V, or 0 for patches, and
    `numbers(config)` F."""

    share: float
    cut: Callable[[Any, Tensor], Tensor]
    blank: Callable[[Any, Tensor, Tensor], Tensor]
    numbers: Callable[[Any], int]
    kinds: Callable[[Any], int] = lambda config: 0


def _image_cut(config: Any, images: Tensor) -> Tensor:
    pixels: Tensor = F.unfold(images, config.patch, stride=config.patch)  # [B, F, T]
    return pixels.transpose(1, 2)


def _image_blank(config: Any, images: Tensor, masked: Tensor) -> Tensor:
    grid = masked.unflatten(1, (config.height // config.patch, -1))
    pixels = grid.repeat_interleave(config.patch, 1).repeat_interleave(config.patch, 2)
    return images.masked_fill(pixels[:, None], 0.0)


def _series_cut(config: Any, series: Tensor) -> Tensor:
    pieces: Tensor = series.unflatten(-1, (-1, config.patch))  # [B, C, T, P]
    return pieces.transpose(1, 2).flatten(2)


def _series_blank(config: Any, series: Tensor, masked: Tensor) -> Tensor:
    return series.masked_fill(masked.repeat_interleave(config.patch, 1)[:, None], 0.0)


PIECES = {
    "image": Pieces(0.5, _image_cut, _image_blank, lambda c: c.channels * c.patch**2),
    "series": Pieces(0.5, _series_cut, _series_blank, lambda c: c.channels * c.patch),
    "tokens": Pieces(
        0.15,
        lambda config, tokens: tokens,
        lambda config, tokens, masked: tokens.masked_fill(masked, 0),
        lambda config: 1,
        lambda config: int(config.vocabulary),
    ),
}


class Pretrainer(nn.Module):
    """`model` with another head. `loss(inputs, generator)` is what it is trained on; new weights
    are drawn from torch's global generator. Raises EvaluationError for a stem that it cannot cut
    into pieces."""

    def __init__(self, model: Model, spec: ArchSpec) -> None:
        super().__init__()
        layout = lay_out(spec)
        if spec.stem.name not in PIECES:
            known = ", ".join(PIECES)
            raise EvaluationError(f"the stem {spec.stem.name} is not pretrained, only {known}")
        self.pieces, self.config = PIECES[spec.stem.name], layout.stem_config
        self.causal, self.grid = layout.causal, layout.stages[0].site.grid
        self.merged = math.prod(stage.merge for stage in layout.stages)  # in each direction
        self.each = self.pieces.kinds(self.config) or self.pieces.numbers(self.config)
        self.stem, self.stages, self.norm = model.stem, model.stages, model.norm
        self.marker = nn.Parameter(torch.randn(_widths(layout)[0]) * POSITION)
        self.head = nn.Linear(_widths(layout)[1], self.merged ** len(self.grid) * self.each)

    def loss(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        wanted = self.pieces.cut(self.config, inputs)
        if self.causal:
            said = self._said(self.stem(inputs))[:, :-1]
            return self._apart(said.flatten(0, 1), wanted[:, 1:].flatten(0, 1))
        masked = _some(wanted.shape[:2], self.pieces.share, generator)
        x = self.stem(self.pieces.blank(self.config, inputs, masked))
        said = self._said(x + masked[..., None] * self.marker)
        return self._apart(said[masked], wanted[masked])

    def _said(self, x: Tensor) -> Tensor:
        """Of the stem's tokens [B, T, D], for each of them [B, T, F or V]."""
        for stage in self.stages:
            x, _ = stage(x, None)
        x = self.head(self.norm(x, None))  # [B, T / M, M F]
        axes = len(self.grid)
        coarse = tuple(size // self.merged for size in self.grid)
        x = x.unflatten(1, coarse).unflatten(-1, (self.merged,) * axes + (self.each,))
        order = [axis + 1 + part * axes for axis in range(axes) for part in (0, 1)]
        return x.permute(0, *order, x.dim() - 1).flatten(1, 2 * axes)

    def _apart(self, said: Tensor, wanted: Tensor) -> Tensor:
        """[N, V] and [N], or both [N, F]"""
        tokens = self.pieces.kinds(self.config)
        return F.cross_entropy(said, wanted) if tokens else F.mse_loss(said, wanted)


def _some(shape: torch.Size, share: float, generator: torch.Generator) -> Tensor:
    """Masks that are True at this share of each row, and once at least."""
    count = max(1, round(share * shape[1]))
    ranks = torch.rand(shape, generator=generator).argsort(1).argsort(1)
    return ranks < count


def _widths(layout: Layout) -> tuple[int, int]:
    return layout.stages[0].site.width, layout.norm.site.width
