"""`convert(model, norm=...)`: the norm equivalence, done to the module and for good.

    model = formwright.compiler.convert(model, norm="rms", example_inputs=(ids,))

What `options={"norm": ...}` does to a graph in each compilation is done to the weights here, once,
so that the result is an ordinary module: it trains, saves and loads without Formwright's backend.
It computes the same function; trained further, it is another architecture (its norms no longer
take the mean off). The proof is that of the graph passes: `../passes/streams.py`. Next: `plan.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from ..capture import Captured, capture
from ..errors import ConversionError, Declined, UnknownNameError
from ..facts import Facts
from ..options import Options
from ..passes.dead_code import remove_dead_code
from ..passes.functionalise import functionalise
from ..passes.identities import remove_identities
from ..torch_compat import tree_leaves, uncompiled
from .edits import Edit
from .modules import CRMSNorm, RMSNorm
from .plan import Plan

__all__ = ["CRMSNorm", "RMSNorm", "convert"]

NORMS = ("rms", "crms")
# of a converted copy, relative to the largest number that the model gives; more in half precision
TOLERANCE = 1e-4


def convert(
    model: nn.Module,
    *,
    norm: str = "rms",
    example_inputs: Sequence[Any] | Mapping[str, Any],
) -> nn.Module:
    """`model` with its LayerNorms replaced by RMSNorms ("rms"), or by CRMSNorms on a main branch
    without its last channel ("crms"), in place; returns `model`.

    `example_inputs` are the arguments of one call, positional or by name, whose sizes do not
    matter. The function is the same up to rounding, in eval mode and, where dropout is off, in
    training. "rms" rewrites the weights where they are; "crms" makes smaller ones, and first tries
    everything on a copy. A tied head gets weights of its own.
    Raises ConversionError, with the reason for every norm, if any LayerNorm has to stay; the model
    is untouched then. Source: "Pre-RMSNorm and Pre-CRMSNorm Transformers" (arXiv 2305.14858).
    """
    if norm not in NORMS:
        raise UnknownNameError("norm to convert to", norm, NORMS)
    args, kwargs = _arguments(example_inputs)
    captured, real = _capture(model, args, kwargs)
    edits = Plan(captured.module.graph, real, model, norm).edits()
    if norm == "crms":
        _try(model, edits, args, kwargs)
    with torch.no_grad():
        for edit in edits:
            edit.apply(model)
    return model


def _arguments(given: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(given, Mapping):
        return (), dict(given)
    if isinstance(given, torch.Tensor) or not isinstance(given, Sequence):
        raise ConversionError(
            f"example_inputs takes a tuple of arguments or a mapping, not {type(given).__name__}"
        )
    return tuple(given), {}


def _capture(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Captured, list[Any]]:
    """The one graph of a call in eval mode, and its real inputs. Gradients are on, so that modules
    with an inference form of their own spell it out."""
    found: list[tuple[Captured | Declined, list[Any]]] = []

    def keep(gm: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        try:
            found.append((capture(gm, inputs), list(inputs)))
        except Declined as declined:
            found.append((declined, []))
        return gm

    training = [m for m in model.modules() if m.training]
    model.eval()
    try:
        with uncompiled(model) as original, torch.enable_grad():
            compiled = torch.compile(original, backend=keep, isolate_recompiles=True, dynamic=False)  # type: ignore[call-overload]
            compiled(*args, **kwargs)
    finally:
        for module in training:
            module.training = True
    if len(found) != 1:
        raise ConversionError(
            f"the model runs as {len(found)} graphs, not as one; "
            "torch._dynamo.explain(model)(...) shows where it breaks"
        )
    captured, real = found[0]
    if isinstance(captured, Declined):
        raise ConversionError(f"the model is not followed: {captured}")
    graph = captured.module.graph
    for run in (remove_dead_code, functionalise, remove_identities, remove_dead_code):
        run(graph, Facts(graph), Options())
    return captured, real


def _try(
    model: nn.Module, edits: Sequence[Edit], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Convert a copy and compare. Raises ConversionError if the code of a module insists on the
    width that it had."""
    trial = copy.deepcopy(model).eval()
    with torch.no_grad():
        want = _tensors(trial(*args, **kwargs))
        try:
            for edit in edits:
                edit.apply(trial)
            got = _tensors(trial(*args, **kwargs))
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise ConversionError(
                f"a module does not take a main branch that is one channel narrower: {reason}"
            ) from error
    for g, w in zip(got, want, strict=True):
        tolerance = max(TOLERANCE, 32 * torch.finfo(w.dtype).eps)
        alike = g.shape == w.shape and (
            not w.numel() or bool((g - w).abs().max() <= tolerance * w.abs().max())
        )
        if not alike:
            raise ConversionError("a module computes something else on a narrower main branch")


def _tensors(output: Any) -> list[torch.Tensor]:
    """The floating-point tensors in what a model returns."""
    leaves = tree_leaves(output)
    return [x for x in leaves if isinstance(x, torch.Tensor) and x.is_floating_point()]
