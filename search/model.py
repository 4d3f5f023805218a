"""An architecture made real: `build(spec)` is a module, images in, logits out.

The whole model is on this page; only the blocks are elsewhere (`blocks/`). It must not know how
the model is trained or measured. Next: `blocks/block.py`, what a block is.

Shapes: B batch, C channels, X x Y the image, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from .blocks import BLOCKS, Site
from .errors import UnknownNameError
from .spec import ArchSpec, BlockSpec, LayerSpec

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "layer": nn.LayerNorm,
    "rms": partial(nn.RMSNorm, eps=1e-5),
}


def build(spec: ArchSpec) -> nn.Module:
    """The module that `spec` describes, [B, C, X, Y] -> [B, classes].

    Parameters are drawn from torch's global generator: seed it before. Raises UnknownNameError
    for a block or norm that is not known, SpecError for settings that do not fit, with the field.
    """
    return Classifier(spec)


class Classifier(nn.Module):
    """Patches, positions, layers, the mean token, logits."""

    def __init__(self, spec: ArchSpec) -> None:
        super().__init__()
        site = Site(spec.width, spec.grid, layers=len(spec.layers))
        self.stem = nn.Conv2d(spec.image[0], spec.width, spec.patch, stride=spec.patch)
        self.positions = nn.Parameter(torch.randn(site.tokens, spec.width) * 0.02)
        self.layers = nn.Sequential(
            *(
                Layer(layer, replace(site, layer=at), f"layers[{at}]")
                for at, layer in enumerate(spec.layers)
            )
        )
        # what the layers add up was never normalised; the last layer says how it wants it
        last = spec.layers[-1].norm if spec.layers else "layer"
        self.norm = NORMS[last](spec.width)
        self.head = nn.Linear(spec.width, spec.classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).flatten(2).transpose(1, 2)  # [B, T, D], row by row
        x = self.layers(x + self.positions)
        logits: Tensor = self.head(self.norm(x).mean(1))
        return logits


class Layer(nn.Module):
    """One MetaFormer layer, [B, T, D] -> [B, T, D]. Any block may stand in either place."""

    def __init__(self, spec: LayerSpec, site: Site, field: str) -> None:
        super().__init__()
        if spec.norm not in NORMS:
            raise UnknownNameError("norm", spec.norm, NORMS, f"{field}.norm")
        self.mixer_norm = NORMS[spec.norm](site.width)
        self.mixer = _block(spec.mixer, site, f"{field}.mixer")
        self.channel_norm = NORMS[spec.norm](site.width)
        self.channel = _block(spec.channel, site, f"{field}.channel")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.mixer_norm(x))
        x = x + self.channel(self.channel_norm(x))
        return x


def _block(spec: BlockSpec, site: Site, field: str) -> nn.Module:
    return BLOCKS.load(spec.name, f"{field}.name").make(dict(spec.settings), site, field)
