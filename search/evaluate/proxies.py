"""Zero-cost proxies: numbers that are had without training, said to rank what training would.

None beats `params` and `flops` on every space ("ZiCo", Li et al., 2023), so these are two of them
and stand first. The others are sums over a network as "Zero-Cost Proxies for Lightweight NAS"
(Abdelfattah et al., 2021) has them. Weights are the trained matrices, in double precision, as they
are drawn from the seed; a batch is drawn from the training split. They must not know what they are
compared with. Next: `../fidelity.py`.

Shapes: B batch, N numbers of one input.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..cost import cost_of
from ..model import Model
from ..spec import ArchSpec
from ..tasks.task import Task
from .failure import reason
from .quiet import working
from .train import cross_entropy, fresh

BATCH = 32
K = 1e-5  # of `jacob_cov`, as published


@dataclass(frozen=True)
class Reading:
    """A score, higher for better; or None, and in words `why` there is none."""

    value: float | None
    why: str = ""


@dataclass(frozen=True)
class Case:
    """What a proxy looks at: the model as it is before training, in evaluation, and a batch. Each
    proxy has one of its own."""

    spec: ArchSpec
    model: Model
    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Proxy:
    """`read(case)` is the score, a number; it raises ValueError, in words for users, where there is
    none. `source` is the paper."""

    read: Callable[[Case], Tensor | int]
    source: str


def proxies(
    spec: ArchSpec, task: Task, seed: int, names: Collection[str] = ()
) -> dict[str, Reading]:
    """Proxies of an architecture by name; all of them if none is named. Equal seeds give equal
    readings. Raises SpecError for a spec that cannot be built; a proxy that fails says so in its
    reading."""
    splits = task.load()
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(splits["train"].targets), generator=generator)[:BATCH]
    inputs, targets = splits["train"].inputs[rows], splits["train"].targets[rows]
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    found = {}
    for name in names or PROXIES:
        with working(), torch.random.fork_rng(devices=[]), torch.enable_grad():
            model = fresh(spec, seed).double().eval()
            found[name] = _reading(PROXIES[name], Case(spec, model, inputs, targets))
    return found


def _reading(proxy: Proxy, case: Case) -> Reading:
    try:
        value = float(proxy.read(case))
    except Exception as error:  # a block of another package need not know what is done to it here
        return Reading(None, str(error) if type(error) is ValueError else reason(error))
    finite = value - value == 0
    return Reading(value) if finite else Reading(None, f"it is {value}")


def _weights(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad and p.ndim > 1]


def _gradients(loss: Tensor, weights: list[nn.Parameter]) -> list[Tensor]:
    """Zero for weights that the loss does not depend on."""
    return list(torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True))


def _loss(case: Case) -> Tensor:
    outputs: Tensor = case.model(case.inputs)
    return cross_entropy(outputs, case.targets)


def grad_norm(case: Case) -> Tensor:
    """The norms of the weights' gradients, summed."""
    gradients = _gradients(_loss(case), _weights(case.model))
    return torch.stack([gradient.norm() for gradient in gradients]).sum()


def snip(case: Case) -> Tensor:
    """How much the loss would change without each weight: |w dL/dw|, summed."""
    weights = _weights(case.model)
    pairs = zip(weights, _gradients(_loss(case), weights), strict=True)
    return torch.stack([(w.detach() * gradient).abs().sum() for w, gradient in pairs]).sum()


def synflow(case: Case) -> Tensor:
    """w dR/dw, summed, where R is the sum of the outputs for an input of ones, and every weight,
    gain and bias is its absolute value. As published for networks without norms: those around the
    blocks are left out. Tokens have no ones; what their stem makes of them is taken for ones."""
    model = case.model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    inputs = case.inputs[:1]
    ones = torch.ones_like(inputs) if inputs.is_floating_point() else inputs
    with _without_norms(model), _stem_says_ones(model, wanted=ones is inputs):
        flow = model(ones).sum()
    weights = _weights(model)
    pairs = zip(weights, _gradients(flow, weights), strict=True)
    return torch.stack([(w.detach() * gradient).sum() for w, gradient in pairs]).sum()


def jacob_cov(case: Case) -> Tensor:
    """How unlike the inputs are to the network: with v the eigenvalues of the correlation of the
    gradients [B, N] of their summed outputs, -sum(log(v + k) + 1 / (v + k)). By what the stem makes
    of them where inputs are tokens."""
    model, seen = case.model, case.inputs
    if seen.is_floating_point():
        seen = seen.clone().requires_grad_()
        outputs = model(seen)
    else:
        seen = model.stem(seen).detach().requires_grad_()
        with _replaced(model.stem, lambda made: seen):
            outputs = model(case.inputs)
    (jacobian,) = torch.autograd.grad(outputs.sum(), seen)
    correlation = torch.corrcoef(jacobian.flatten(1))
    if not torch.isfinite(correlation).all():
        raise ValueError("the outputs of an input change alike with all of its numbers")
    values = torch.linalg.eigvalsh(correlation)
    spread: Tensor = -(torch.log(values + K) + 1 / (values + K)).sum()
    return spread


PROXIES = {
    "params": Proxy(lambda case: cost_of(case.spec).params, "counted"),
    "flops": Proxy(lambda case: cost_of(case.spec).flops, "counted"),
    "grad_norm": Proxy(grad_norm, "Abdelfattah et al., 2021"),
    "snip": Proxy(snip, "Lee et al., 2019"),
    "synflow": Proxy(synflow, "Tanaka et al., 2020"),
    "jacob_cov": Proxy(jacob_cov, "Mellor et al., 2020"),
}


@contextmanager
def _replaced(module: nn.Module, by: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """What the module returns is given to `by`, and that is taken for it."""

    def hook(module: nn.Module, given: Any, made: Tensor) -> Tensor:
        return by(made)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _stem_says_ones(model: Model, *, wanted: bool) -> Iterator[None]:
    with _replaced(model.stem, torch.ones_like if wanted else lambda made: made):
        yield


@contextmanager
def _without_norms(model: Model) -> Iterator[None]:
    """Norms around blocks return what they are given."""

    def hook(module: nn.Module, given: Any, made: Tensor) -> Any:
        return given[0]

    norms = [norm for stage in model.stages for layer in stage.layers for norm in layer.norms]
    handles = [norm.register_forward_hook(hook) for norm in [*norms, model.norm]]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
