"""`Supernet`: sub-models are slices of its weights, the first rows and columns of each.

A sub-model is an `ArchSpec` like any other: the same layers with fewer hidden units in their
channel mixers, and in each stage the first layers only. It runs as the module it is, on views of
the weights of the whole, so that gradients add up there, and what is extracted is the same module
with copies. Statistics over hidden units (PolyNorm) are those of the slice, by construction. It
must not know how anybody trains. Next: `steps.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..errors import SpecError
from ..model import Model, build
from ..spec import ArchSpec, BlockSpec, LayerSpec, StageSpec

NESTED = {"gated_mlp": ("hidden",), "low_rank_mlp": ("hidden", "rank"), "mlp": ("hidden",)}
# what may be smaller: the first rows and columns of the weights are then a block of their own


class Supernet:
    """`model` is the module of `spec`; it stays the owner of all weights."""

    def __init__(self, spec: ArchSpec, model: Model) -> None:
        self.spec, self.model = spec, model
        self._template = lru_cache(maxsize=256)(self._made)

    def run(self, sub: ArchSpec, inputs: Tensor, real: Tensor | None = None) -> Tensor:
        """What the sub-model says of `inputs`. Raises SpecError if it is none of this network."""
        template = self._template(sub).train(self.model.training)
        given = (inputs,) if real is None else (inputs, real)
        outputs: Tensor = functional_call(template, self._slices(template), given)
        return outputs

    def extract(self, sub: ArchSpec) -> Model:
        """The sub-model as a module of its own, its weights contiguous copies. Raises SpecError if
        `sub` is none of this network."""
        check(self.spec, sub)
        with torch.random.fork_rng(devices=[]):
            made = build(sub)
        like = next(self.model.parameters())
        made.to(device=like.device, dtype=like.dtype).train(self.model.training)
        made.load_state_dict({n: t.detach().contiguous() for n, t in self._slices(made).items()})
        return made

    def _made(self, sub: ArchSpec) -> Model:
        """The module of a sub-model, whose weights take no memory."""
        made = self.extract(sub)
        for module in made.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(weight.to("meta"), requires_grad=False))
        return made

    def _slices(self, made: Model) -> dict[str, Tensor]:
        """The weights and saved buffers of `made`, as views of those of the whole."""
        whole: dict[str, Tensor] = dict(self.model.named_parameters(remove_duplicate=False))
        whole |= dict(self.model.named_buffers(remove_duplicate=False))
        found = {}
        for name, wanted in made.state_dict().items():
            part = whole[name]
            for axis, size in enumerate(wanted.shape):
                part = part.narrow(axis, 0, size)
            found[name] = part
        return found


def narrowed(
    spec: ArchSpec, hidden: Sequence[int], depths: Sequence[int] | None = None
) -> ArchSpec:
    """The sub-model of `spec` whose channel mixers have `hidden` units, in order, one number for
    each in the layers that stay: the first `depths` of each stage (all if None). Raises SpecError
    for numbers that do not fit."""
    depths = [len(stage.layers) for stage in spec.stages] if depths is None else list(depths)
    if len(depths) != len(spec.stages):
        raise SpecError(f"wanted {len(spec.stages)} depths, got {depths}", "depths")
    left, stages = list(hidden), []
    for stage, depth in zip(spec.stages, depths, strict=True):
        layers = [_narrowed(layer, left) for layer in stage.layers[:depth]]
        stages.append(StageSpec(stage.width, tuple(layers), stage.merge))
    if left:
        raise SpecError(f"{len(left)} more numbers than channel mixers: {list(hidden)}", "hidden")
    made = replace(spec, stages=tuple(stages))
    check(spec, made)
    return made


def _narrowed(layer: LayerSpec, hidden: list[int]) -> LayerSpec:
    changed = {}
    for place, block in (("mixer", layer.mixer), ("channel", layer.channel)):
        if block is not None and block.name in NESTED:
            if not hidden:
                raise SpecError("fewer numbers than channel mixers", "hidden")
            settings = {**dict(block.settings), "hidden": hidden.pop(0)}
            changed[place] = BlockSpec.of(block.name, **settings)
    return replace(layer, **changed)  # type: ignore[arg-type]


def check(spec: ArchSpec, sub: ArchSpec) -> None:
    """Raises SpecError, naming the path, unless `sub` is a sub-model of `spec`."""
    if (spec.stem, spec.norm, spec.head) != (sub.stem, sub.norm, sub.head):
        raise SpecError("a sub-model has the stem, the last norm and the head of the whole")
    shapes = [[(s.width, s.merge) for s in one.stages] for one in (spec, sub)]
    if shapes[0] != shapes[1]:
        raise SpecError("a sub-model has the widths and merges of the whole", "stages")
    for at, (stage, part) in enumerate(zip(spec.stages, sub.stages, strict=True)):
        if len(part.layers) > len(stage.layers):
            raise SpecError(f"it has {len(part.layers)} of {len(stage.layers)}", f"stages[{at}]")
        for n, (whole, layer) in enumerate(zip(stage.layers, part.layers, strict=False)):
            field = f"stages[{at}].layers[{n}]"
            for place in ("mixer", "channel"):
                _check(getattr(whole, place), getattr(layer, place), f"{field}.{place}")
            if replace(whole, mixer=None, channel=None) != replace(layer, mixer=None, channel=None):
                raise SpecError("a layer of a sub-model has the norm and form of the whole", field)


def _check(whole: BlockSpec | None, block: BlockSpec | None, field: str) -> None:
    if whole is None or block is None or whole.name != block.name:
        if whole != block:
            raise SpecError(f"wanted {whole}, got {block}", field)
        return
    sizes, theirs = dict(whole.settings), dict(block.settings)
    smaller = NESTED.get(whole.name, ())
    for name in sizes.keys() | theirs.keys():
        if name in smaller and name in sizes and name in theirs:
            if not 1 <= cast(int, theirs[name]) <= cast(int, sizes[name]):
                raise SpecError(f"{theirs[name]} is not in 1..{sizes[name]}", f"{field}.{name}")
        elif name not in sizes or sizes[name] != theirs.get(name):
            given = theirs.get(name)
            raise SpecError(f"wanted {sizes.get(name)}, got {given}", f"{field}.{name}")
