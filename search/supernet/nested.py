"""`Supernet`: sub-models are slices of its weights, the first rows and columns of each.

A sub-model is an `ArchSpec` like any other: the same layers with fewer hidden units in their
channel mixers and fewer heads, and in each stage the first layers only. It runs as the module it
is, on views of the weights of the whole, so that gradients add up there, and what is extracted is
the same module with copies. Statistics over hidden units (PolyNorm) are those of the slice, by
construction. It must not know how anybody trains. Next: `steps.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..errors import SpecError
from ..model import Model, build
from ..spec import ArchSpec, BlockSpec, LayerSpec, StageSpec
from ..spelling import OF_DEPTH, parts_of

NESTED = {
    # what may be smaller: the first rows and columns of the weights are then a block of their own
    "attention": ("heads", "kv_heads"),
    "gated_mlp": ("hidden",),
    "low_rank_mlp": ("hidden", "rank"),
    "mlp": ("hidden",),
}


class Supernet:
    """`model` is the module of `spec`; it stays the owner of all weights."""

    def __init__(self, spec: ArchSpec, model: Model) -> None:
        self.spec, self.model = spec, model
        self._template = lru_cache(maxsize=256)(self._made)

    def run(self, sub: ArchSpec, inputs: Tensor, real: Tensor | None = None) -> Tensor:
        """What the sub-model says of `inputs`. Raises SpecError if it is none of this network."""
        device = str(next(self.model.parameters()).device)
        template = self._template(sub, device).train(self.model.training)
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

    def _made(self, sub: ArchSpec, device: str) -> Model:
        """The module of a sub-model on this device, whose weights take no memory."""
        with torch.inference_mode(False):  # it is kept, and may be trained later
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
    spec: ArchSpec,
    hidden: Sequence[int],
    depths: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> ArchSpec:
    """The sub-model of `spec` whose channel mixers have `hidden` units, in order, one number for
    each in the layers that stay: the first `depths` of each stage (all if None); likewise its
    attention `heads`, with as many keys for each as there are. Raises SpecError for numbers that
    do not fit."""
    depths = [len(stage.layers) for stage in spec.stages] if depths is None else list(depths)
    if len(depths) != len(spec.stages):
        raise SpecError(f"wanted {len(spec.stages)} depths, got {depths}", "depths")
    for at, (stage, depth) in enumerate(zip(spec.stages, depths, strict=True)):
        if not 0 <= depth <= len(stage.layers):
            raise SpecError(f"{depth} is not in 0..{len(stage.layers)}", f"depths[{at}]")
    left = {"hidden": list(hidden), "heads": None if heads is None else list(heads)}
    stages = []
    for stage, depth in zip(spec.stages, depths, strict=True):
        layers = [_narrowed(layer, left) for layer in stage.layers[:depth]]
        stages.append(StageSpec(stage.width, tuple(layers), stage.merge))
    for name, numbers in left.items():
        if numbers:
            raise SpecError(f"{len(numbers)} more numbers than blocks that have {name}", name)
    made = replace(spec, stages=tuple(stages))
    check(spec, made)
    return made


def _narrowed(layer: LayerSpec, left: Mapping[str, list[int] | None]) -> LayerSpec:
    changed = {}
    for place, block in (("mixer", layer.mixer), ("channel", layer.channel)):
        if block is None or block.name not in NESTED:
            continue
        settings, name = dict(block.settings), NESTED[block.name][0]
        numbers = left[name]
        if numbers is None:
            continue
        if not numbers:
            raise SpecError(f"fewer numbers than blocks that have {name}", name)
        number, was = numbers.pop(0), cast(int, settings[name])
        settings[name] = number
        if name == "heads":
            kept = cast(int, settings["kv_heads"]) * number // was
            settings["kv_heads"] = max(kept, 1)  # what is left of the heads of one head of keys
        changed[place] = BlockSpec.of(block.name, **settings)
    return replace(layer, **changed)  # type: ignore[arg-type]


def check(spec: ArchSpec, sub: ArchSpec) -> None:
    """Raises SpecError, naming the path, unless `sub` is a sub-model of `spec`."""
    if (spec.stem, spec.norm, spec.head) != (sub.stem, sub.norm, sub.head):
        raise SpecError("a sub-model has the stem, the last norm and the head of the whole")
    shapes = [[(s.width, s.merge) for s in one.stages] for one in (spec, sub)]
    if shapes[0] != shapes[1]:
        raise SpecError("a sub-model has the widths and merges of the whole", "stages")
    depths = [[len(stage.layers) for stage in one.stages] for one in (spec, sub)]
    if depths[0] != depths[1] and (names := {*parts_of(spec)} & set(OF_DEPTH)):
        said = f"with fewer layers {', '.join(sorted(names))} would compute something else"
        raise SpecError(said, "stages")
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
    if sizes.keys() != theirs.keys():
        raise SpecError(f"wanted {', '.join(sizes)}, got {', '.join(theirs)}", field)
    for name in NESTED.get(whole.name, ()):
        if type(theirs[name]) is not int:
            raise SpecError(f"wanted a whole number, got {theirs[name]!r}", f"{field}.{name}")
    if whole.name == "attention" and sizes != theirs:
        _check_heads(sizes, theirs, field)
    smaller = NESTED.get(whole.name, ())
    for name in sorted(sizes):
        if name in smaller:
            if not 1 <= cast(int, theirs[name]) <= cast(int, sizes[name]):
                raise SpecError(f"{theirs[name]} is not in 1..{sizes[name]}", f"{field}.{name}")
        elif repr(sizes[name]) != repr(theirs[name]):
            raise SpecError(f"wanted {sizes[name]}, got {theirs[name]}", f"{field}.{name}")


def _check_heads(sizes: Mapping[str, Any], theirs: Mapping[str, Any], field: str) -> None:
    """Each head that stays has to read the keys that it reads in the whole."""
    each = sizes["heads"] // sizes["kv_heads"]
    one = theirs["kv_heads"] == 1 and theirs["heads"] <= each
    if not one and theirs["heads"] != each * theirs["kv_heads"]:
        said = f"{each} heads read one head of keys; {theirs['heads']} heads do not"
        raise SpecError(said, f"{field}.heads")
    if sizes["positions"] == "alibi":
        raise SpecError("the slopes of alibi depend on how many heads there are", f"{field}.heads")
