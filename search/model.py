"""An architecture made real: `build(spec)` is a module, inputs in, what the head says out.

The whole model is on this page; only the blocks are elsewhere (`blocks/`, `norms/`, `ends/`). It
must not know how the model is trained or measured. Next: `layout.py`, `blocks/block.py`.

Shapes: B batch, T tokens, D width, M tokens that are merged into one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .blocks import Site
from .blocks.block import State
from .errors import SpecError
from .layout import LayerLayout, Layout, StageLayout, lay_out, tokens_merged
from .spec import ArchSpec


def build(spec: ArchSpec) -> Model:
    """The module that `spec` describes.

    Parameters are drawn from torch's global generator: seed it before. Raises UnknownNameError for
    a block, norm, stem or head that is not known, SpecError for settings that do not fit, with the
    path.
    """
    return Model(lay_out(spec))


def checked(spec: ArchSpec) -> Layout:
    """Everything of `spec` looked up, once a model of it was made without memory. Raises as `build`
    does."""
    layout = lay_out(spec)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        Model(layout)
    return layout


class Model(nn.Module):
    """`model(inputs, real=None)`: what inputs are, the stem says, and outputs, the head. `real`
    [B, T] is False where a token is padding."""

    stem: Any  # these hold to contracts that types of modules cannot say
    stages: Any
    norm: Any
    head: Any

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.stem = layout.stem.module(layout.stem_config, layout.stages[0].site.width)
        self.stages = nn.ModuleList(Stage(stage) for stage in layout.stages)
        self.norm = layout.norm.make()
        try:
            self.head = layout.head.module(layout.head_config, layout.norm.site.width, self.stem)
        except ValueError as error:
            raise SpecError(str(error), "head") from error
        self.steps = layout.causal and layout.head.steps

    def forward(self, inputs: Tensor, real: Tensor | None = None) -> Tensor:
        x = self.stem(inputs)
        for stage in self.stages:
            x, real = stage(x, real)
        outputs: Tensor = self.head(self.norm(x, real), real)
        return outputs

    def begin(self, batch: int) -> State:
        """The state before the first token. Raises SpecError for what is not causal, or whose head
        reads all tokens at once."""
        if not self.steps:
            raise SpecError("only a causal stem with a head for each token goes step by step")
        return self.stem.begin(batch), [stage.begin(batch) for stage in self.stages]

    def step(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """The output for the next token, and the state behind it."""
        at, states = state
        x, at = self.stem.step(inputs, at)
        after = []
        for stage, of in zip(self.stages, states, strict=True):
            x, of = stage.step(x, of)
            after.append(of)
        x, _ = self.norm.step(x, ())
        return self.head.step(x), (at, after)


class Stage(nn.Module):
    """[B, T, D] of the stage before -> [B, T / M, D] of this one, and what of it is real."""

    merge: Any
    layers: Any

    def __init__(self, layout: StageLayout) -> None:
        super().__init__()
        self.merge = None if layout.before is None else Merge(layout, layout.before)
        self.layers = nn.ModuleList(map(Layer, layout.layers))

    def forward(self, x: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if self.merge is not None:
            x, real = self.merge(x, real)
        for layer in self.layers:
            x = layer(x, real)
        return x, real

    def begin(self, batch: int) -> State:
        return [layer.begin(batch) for layer in self.layers]

    def step(self, x: Tensor, states: State) -> tuple[Tensor, State]:
        if self.merge is not None:
            x = self.merge.linear(x)  # of one token: only its width changes
        after = []
        for layer, state in zip(self.layers, states, strict=True):
            x, state = layer.step(x, state)
            after.append(state)
        return x, after


class Merge(nn.Module):
    """Neighbours, `merge` in each direction, become one token: a linear map of all of them."""

    def __init__(self, layout: StageLayout, before: Site) -> None:
        super().__init__()
        self.merge, self.grid = layout.merge, before.grid
        self.linear = nn.Linear(before.width * tokens_merged(layout), layout.site.width)

    def forward(self, x: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if self.merge == 1:
            return self.linear(x), real
        if real is not None:
            x = x.masked_fill(~real[..., None], 0)
            real = self._gathered(real[..., None]).any(-1)
        return self.linear(self._gathered(x)), real

    def _gathered(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T / M, M D]"""
        for axis in range(len(self.grid)):  # [B, G / m, m, W / m, m, D]
            sizes = (self.grid[axis] // self.merge, self.merge)
            x = (x.unflatten(1, self.grid) if axis == 0 else x).unflatten(1 + 2 * axis, sizes)
        axes = range(1, 1 + 2 * len(self.grid))
        x = x.permute(0, *axes[0::2], *axes[1::2], x.dim() - 1)
        return x.flatten(1 + len(self.grid)).flatten(1, len(self.grid))


class Layer(nn.Module):
    """One layer, [B, T, D] -> [B, T, D]: `LayerSpec` has its forms."""

    blocks: Any
    norms: Any

    def __init__(self, layout: LayerLayout) -> None:
        super().__init__()
        self.residual = layout.residual
        self.blocks = nn.ModuleList(part.make() for part in layout.blocks)
        self.norms = nn.ModuleList(part.make() for part in layout.norms)
        sizes = [part.site.width for part in layout.blocks] if layout.scale else []
        self.scales = nn.ParameterList(torch.full((size,), layout.scale) for size in sizes)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        return self._through(
            x, lambda at, y: self.blocks[at](y, real), lambda at, y: self.norms[at](y, real)
        )

    def begin(self, batch: int) -> State:
        return [block.begin(batch) for block in self.blocks]

    def step(self, x: Tensor, states: State) -> tuple[Tensor, State]:
        after = list(states)

        def block(at: int, y: Tensor) -> Tensor:
            made: Tensor
            made, after[at] = self.blocks[at].step(y, after[at])
            return made

        x = self._through(x, block, lambda at, y: self.norms[at].step(y, ())[0])
        return x, after

    def _through(self, x: Tensor, block: Of, norm: Of) -> Tensor:
        """The residual form, of blocks and norms by their place."""
        if self.residual == "parallel":
            n = norm(0, x) if len(self.blocks) else x
            for at in range(len(self.blocks)):
                x = x + self._scaled(at, block(at, n))
            return x
        for at in range(len(self.blocks)):
            if self.residual == "pre":
                x = x + self._scaled(at, block(at, norm(at, x)))
            else:
                x = norm(at, x + self._scaled(at, block(at, x)))
        return x

    def _scaled(self, at: int, y: Tensor) -> Tensor:
        scaled: Tensor = y * self.scales[at] if len(self.scales) else y
        return scaled


Of = Callable[[int, Tensor], Any]
