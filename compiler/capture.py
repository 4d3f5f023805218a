"""Dynamo's graph brought to the one dialect that every pass speaks: pre-dispatch ATen.

There `linear`, `layer_norm`, `softmax`, `dropout` and attention are still whole, shapes are
symbolic, and autograd has not run. What cannot be brought there faithfully is declined with a
reason. It must not know the passes. Next: `facts.py`, what holds about a captured graph.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from .errors import Declined
from .report import Reason
from .torch_compat import (
    ENTER_AUTOCAST,
    EXIT_AUTOCAST,
    LOG_USAGE,
    SET_GRAD,
    CheckpointPolicy,
    FakeTensor,
    FakeTensorMode,
    HigherOrderOperator,
    is_static_input,
    keep_dynamo_identity,
    make_fx,
    real_constants_allowed,
    saved_tensor_hooks_hidden,
    tag_activation_checkpoint,
    tree_leaves,
)

# Calls that change the state of torch and are recorded in the captured graph.
RECORDED = (ENTER_AUTOCAST, EXIT_AUTOCAST, SET_GRAD)

# Targets that keep the memory promise of a checkpointed region when it is given to them as tags on
# its nodes: their partitioner decides by these tags what is recomputed.
HONOURS_RECOMPUTE_TAGS = ("inductor", "aot_eager_decomp_partition")

CHECKPOINT_KEYWORDS = ("use_reentrant", "preserve_rng_state", "determinism_check", "debug")


@dataclass(frozen=True)
class Captured:
    """A graph in the dialect. `fakes[i]` stands for input i; weights are marked in
    `meta["weight"]` of their placeholders."""

    module: fx.GraphModule
    fakes: tuple[Any, ...]
    mode: FakeTensorMode
    dynamic: bool


def capture(gm: fx.GraphModule, inputs: Sequence[Any], target: str = "inductor") -> Captured:
    """`gm`, as Dynamo hands it to a backend with its real example inputs, in the dialect.

    Raises Declined where the graph holds something that would not come through unchanged.
    """
    placeholders = gm.graph.find_nodes(op="placeholder")
    _check_operators(gm, target)
    mode, fakes = _fake_inputs(placeholders, inputs)
    interpreter = _Interpreter(gm)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(mode)
            stack.enter_context(real_constants_allowed(mode))
            stack.enter_context(fx.traceback.preserve_node_meta())
            stack.enter_context(saved_tensor_hooks_hidden())
            module = make_fx(
                interpreter.run,
                tracing_mode="real",
                pre_dispatch=True,
                _allow_non_fake_inputs=True,
            )(*fakes)
    finally:
        interpreter.leave_regions()
    _read_constants(module)
    _describe_inputs(placeholders, inputs, fakes, module)
    keep_dynamo_identity(gm, module)
    dynamic = any(isinstance(f, torch.SymInt) for f in fakes) or any(
        isinstance(n, torch.SymInt) for f in fakes if isinstance(f, FakeTensor) for n in f.size()
    )
    return Captured(module, tuple(fakes), mode, dynamic)


class _Interpreter(fx.Interpreter):
    """Runs Dynamo's graph under the tracer, minding what make_fx alone does not.

    - An autocast region in the graph is really entered, so that the values behind it get the
      dtypes that they will have.
    - A checkpointed region is run in place and its nodes are tagged for recomputation.
    """

    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm)
        self.regions: list[Any] = []
        self.checkpoints = itertools.count(1)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target is ENTER_AUTOCAST:
            self.regions.append(torch.autocast(*args))
            return self.regions[-1].__enter__()
        if target is EXIT_AUTOCAST:
            return self.regions.pop().__exit__(None, None, None)
        if target is tag_activation_checkpoint:
            body, *values = args
            keywords = {k: v for k, v in kwargs.items() if k not in CHECKPOINT_KEYWORDS}
            return _Checkpointed(body, self).run(*values, **keywords)
        return super().call_function(target, args, kwargs)

    def leave_regions(self) -> None:
        """Leave what a failed run left entered."""
        while self.regions:
            self.regions.pop().__exit__(None, None, None)


class _Checkpointed(_Interpreter):
    """Runs the body of a checkpoint, tagging each node as AOTAutograd's partitioner expects.

    Regions are numbered in their order: what passes from one into a later one is kept.
    """

    def __init__(self, body: fx.GraphModule, outer: _Interpreter) -> None:
        super().__init__(body)
        self.regions = outer.regions
        self.checkpoints = outer.checkpoints
        number = next(self.checkpoints)
        if not torch.is_grad_enabled():  # then nothing is kept that could be recomputed
            return
        for node in body.graph.nodes:
            node.meta["recompute"] = CheckpointPolicy.PREFER_RECOMPUTE
            node.meta["ac_graph_id"] = number


def _check_operators(gm: fx.GraphModule, target: str) -> None:
    for node in gm.graph.nodes:
        if "functorch" in str(getattr(node.target, "__module__", "")):
            name = getattr(node.target, "__name__", node.target)
            raise Declined(
                Reason.FUNCTION_TRANSFORM, f"the graph applies a function transform ({name})"
            )
    for node in gm.graph.nodes:
        op = node.target
        if op is tag_activation_checkpoint:
            _check_checkpoint(getattr(gm, node.args[0].target), target)
        elif isinstance(op, HigherOrderOperator):
            raise Declined(Reason.HIGHER_ORDER_OP, f"the graph calls the operator {op.name()}")
        elif node.op == "get_attr" and isinstance(getattr(gm, str(op), None), torch.Tensor):
            # The tracer would really run what reads and writes nothing but such tensors.
            raise Declined(
                Reason.UNSUPPORTED_INPUT,
                f"the graph holds a tensor of its own ({op}), as that of an optimiser does",
            )
        elif _changes_state(node):
            name = getattr(op, "__name__", op)
            raise Declined(Reason.CHANGES_STATE, f"{name} switches a state of torch")


def _check_checkpoint(body: fx.GraphModule, target: str) -> None:
    if "_checkpoint_context_fn" in body.meta:
        raise Declined(
            Reason.HIGHER_ORDER_OP,
            "a checkpointed region with a context_fn chooses itself what to recompute",
        )
    if target not in HONOURS_RECOMPUTE_TAGS:
        raise Declined(
            Reason.HIGHER_ORDER_OP,
            f"target {target!r} would keep what a checkpointed region is to recompute",
        )
    _check_operators(body, target)


def _changes_state(node: fx.Node) -> bool:
    """Whether a call is there for its effect on torch itself: it reads and gives no value. The
    tracer would run such a call and forget it; the three that it records are not among these."""
    if node.op != "call_function" or node.target in (*RECORDED, LOG_USAGE):
        return False
    if node.meta.get("example_value") is not None:
        return False
    return not any("example_value" in n.meta for n in node.all_input_nodes)


def _fake_inputs(
    placeholders: Sequence[fx.Node], inputs: Sequence[Any]
) -> tuple[FakeTensorMode, list[Any]]:
    """The fake values that stand for the inputs while we trace, and their mode."""
    known = [p.meta.get("example_value", x) for p, x in zip(placeholders, inputs, strict=True)]
    leaves = tree_leaves((known, list(inputs)))
    mode = next((x.fake_mode for x in leaves if isinstance(x, FakeTensor)), None)
    mode = mode or FakeTensorMode(allow_non_fake_inputs=True)
    fakes = []
    for placeholder, value, real in zip(placeholders, known, inputs, strict=True):
        if isinstance(value, torch.Tensor):
            if type(value) not in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer, FakeTensor):
                raise Declined(
                    Reason.UNSUPPORTED_INPUT,
                    f"input {placeholder.name} is a {type(value).__name__}, not a plain tensor",
                )
            if value.layout is not torch.strided:
                raise Declined(
                    Reason.UNSUPPORTED_INPUT, f"input {placeholder.name} is {value.layout}"
                )
            _check_metadata(placeholder, value, real)
            if not isinstance(value, FakeTensor):
                value = mode.from_tensor(value, static_shapes=True)
        elif not isinstance(value, int | float | bool | torch.SymInt):
            raise Declined(
                Reason.UNSUPPORTED_INPUT,
                f"input {placeholder.name} is a {type(value).__name__}, not a tensor or a number",
            )
        fakes.append(value)
    return mode, fakes


def _check_metadata(placeholder: fx.Node, value: torch.Tensor, real: Any) -> None:
    """Dynamo's fake inputs have been through the graph once: if the graph changes the shape or
    the gradient state of an input in place, they no longer stand for what comes in."""
    if not isinstance(real, torch.Tensor) or isinstance(real, FakeTensor):
        return
    same = value.dim() == real.dim() and value.requires_grad == real.requires_grad
    same = same and value.dtype == real.dtype
    for a, b in zip((*value.size(), *value.stride()), (*real.size(), *real.stride()), strict=False):
        same = same and (isinstance(a, torch.SymInt) or a == b)
    if not same:
        raise Declined(
            Reason.INPUT_METADATA_CHANGED,
            f"the graph changes the shape, dtype or gradient state of input {placeholder.name}",
        )


def _read_constants(module: fx.GraphModule) -> None:
    """Note the number that a constant holds. A value that the tracer lost sight of comes back as a
    fake constant: never run that."""
    for node in module.graph.find_nodes(op="get_attr"):
        value: Any = getattr(module, str(node.target), None)
        real = isinstance(value, torch.Tensor) and not isinstance(value, FakeTensor)
        if real and value.numel() == 1:
            node.meta["constant"] = value.item()  # what passes may know of it
        if isinstance(value, FakeTensor):
            raise Declined(Reason.UNTRACEABLE, f"the tracer lost sight of a value ({node.target})")


def _describe_inputs(
    placeholders: Sequence[fx.Node],
    inputs: Sequence[Any],
    fakes: Sequence[Any],
    module: fx.GraphModule,
) -> None:
    """Carry over to the captured graph what is known of each input: its name, whether it is a
    weight, whether it wants a gradient, and whose memory it is."""
    news = module.graph.find_nodes(op="placeholder")
    for old, new, real, fake in zip(placeholders, news, inputs, fakes, strict=True):
        new.meta["weight"] = is_static_input(old)
        new.meta["requires_grad"] = isinstance(fake, torch.Tensor) and fake.requires_grad
        if isinstance(real, torch.Tensor):
            new.meta["real_storage"] = (real.untyped_storage()._cdata,)
        new.target = old.name
        new._rename(old.name)
    module.recompile()
