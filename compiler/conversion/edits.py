"""What is done to a module: one small edit each, in the order of the list that a plan gives.

A parameter is named by where it is (`transformer.wte`, `weight`); an edit holds no tensor, so the
same list converts a copy. It must not know graphs: `plan.py` says which edits are right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from ..passes.norms import HALF
from .modules import CRMSNorm, RMSNorm


@dataclass(frozen=True)
class Name:
    """Where a parameter is: the path of a module and the name in it."""

    module: str
    attribute: str

    def get(self, model: nn.Module) -> Any:
        return getattr(model.get_submodule(self.module), self.attribute)

    def set(self, model: nn.Module, value: torch.Tensor, like: torch.Tensor) -> None:
        module = model.get_submodule(self.module)
        module.register_parameter(
            self.attribute, nn.Parameter(value, requires_grad=like.requires_grad)
        )
        _renew_sizes(module)

    def __str__(self) -> str:
        return f"{self.module}.{self.attribute}".strip(".")


class Edit(Protocol):
    """Something done to a model in place, under `torch.no_grad()`."""

    def apply(self, model: nn.Module) -> None: ...


@dataclass(frozen=True)
class Untie:
    """Weights of its own for a module that shares them."""

    name: Name

    def apply(self, model: nn.Module) -> None:
        shared = self.name.get(model)
        self.name.set(model, shared.detach().clone(), shared)
        config = getattr(model, "config", None)
        if getattr(config, "tie_word_embeddings", False):
            config.tie_word_embeddings = False  # type: ignore[union-attr]


@dataclass(frozen=True)
class Absorb:
    """A layer scale goes into the weights in front of it: [D] onto axis `dim` of each."""

    scale: Name
    into: tuple[tuple[Name, int], ...]

    def apply(self, model: nn.Module) -> None:
        scale = self.scale.get(model)
        for name, dim in self.into:
            weight = name.get(model)
            shape = [1] * weight.dim()
            shape[dim] = -1
            weight.mul_(scale.reshape(shape))
        scale.fill_(1)


@dataclass(frozen=True)
class Centre:
    """A weight loses its mean along `dim`, where it is."""

    name: Name
    dim: int

    def apply(self, model: nn.Module) -> None:
        weight = self.name.get(model)
        wide = weight.float() if weight.dtype in HALF else weight
        weight.copy_(wide - wide.mean(self.dim, keepdim=True))


@dataclass(frozen=True)
class Shorten:
    """A weight loses its last index along `dim`, in all modules that share it."""

    names: tuple[Name, ...]
    dim: int

    def apply(self, model: nn.Module) -> None:
        old = self.names[0].get(model)
        self.names[0].set(model, old.narrow(self.dim, 0, old.shape[self.dim] - 1).clone(), old)
        for name in self.names[1:]:
            name.set(model, old, old)
            setattr(model.get_submodule(name.module), name.attribute, self.names[0].get(model))


@dataclass(frozen=True)
class Read:
    """A linear that read norm weight * n + norm bias reads n without its last channel: axis `dim`
    of its weight."""

    weight: Name
    dim: int
    bias: Name | None
    norm_weight: Name | None
    norm_bias: Name | None

    def apply(self, model: nn.Module) -> None:
        old = self.weight.get(model)
        last = old.dim() - 1
        wide = old.detach() if self.dim == last else old.detach().transpose(self.dim, last)
        if self.norm_bias is not None:
            assert self.bias is not None
            bias, shift = self.bias.get(model), wide @ self.norm_bias.get(model)
            self.bias.set(model, shift if bias is None else bias + shift, old)
        if self.norm_weight is not None:
            wide = wide * self.norm_weight.get(model)
        new = wide[..., :-1] - wide[..., -1:]
        new = new if self.dim == last else new.transpose(self.dim, last)
        self.weight.set(model, new.contiguous(), old)


@dataclass(frozen=True)
class Replace:
    """Another norm in place of a LayerNorm, with its parameters."""

    path: str
    norm: str
    whole: bool = True

    def apply(self, model: nn.Module) -> None:
        old: Any = model.get_submodule(self.path)
        width, eps, affine = old.normalized_shape[0], old.eps, (old.weight, old.bias)
        new: nn.Module
        if self.norm == "rms":
            new = RMSNorm(width, eps, *affine)
        else:
            new = CRMSNorm(width, eps, *(affine if self.whole else ()), whole=self.whole)
        model.set_submodule(self.path, new.train(old.training))


# module attribute -> the axis of the weight whose length it tells, counted for a matrix [out, in]
SIZES: dict[str, tuple[type[nn.Module], int]] = {
    "out_features": (nn.Linear, 0),
    "in_features": (nn.Linear, 1),
    "embedding_dim": (nn.Embedding, 1),
    "out_channels": (nn.modules.conv._ConvNd, 0),
}


def _renew_sizes(module: nn.Module) -> None:
    """Let a module's own account of its sizes follow its weight."""
    weight = getattr(module, "weight", None)
    for attribute, (kind, axis) in SIZES.items():
        if isinstance(module, kind) and weight is not None:
            setattr(module, attribute, weight.shape[axis])
    if {"nf", "nx"} <= vars(module).keys() and weight is not None:  # a linear with [in, out]
        module.nx, module.nf = weight.shape
