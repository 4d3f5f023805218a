"""Every private module and function of torch that the compiler uses, in one file.

`tests/test_layers.py` holds the rest of the package to this. A new torch release is supported by
reading this file against it. It must not hold any logic that is not about torch's internals.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn

import torch
from torch import fx
from torch._dynamo.backends.registry import list_backends, lookup_backend
from torch._dynamo.eval_frame import OptimizedModule
from torch._dynamo.exc import (
    RestartAnalysis,
    ShortenTraceback,
    SkipFrame,
    TensorifyScalarRestartAnalysis,
)
from torch._dynamo.source import AttrSource, ConstantSource, UnspecializedNNModuleSource
from torch._dynamo.symbolic_convert import TensorifyState
from torch._guards import CompileContext, TracingContext, tracing
from torch._higher_order_ops.wrap import tag_activation_checkpoint
from torch._logging._internal import trace_structured
from torch._ops import HigherOrderOperator, OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv, statically_known_true, sym_eq
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import CheckpointPolicy

# what is handed on; what is defined here needs no row
__all__ = [
    "CONTROL_FLOW",
    "ENTER_AUTOCAST",
    "EXIT_AUTOCAST",
    "SET_GRAD",
    "CheckpointPolicy",
    "FakeTensor",
    "FakeTensorMode",
    "HigherOrderOperator",
    "LOG_USAGE",
    "OpOverload",
    "OptimizedModule",
    "list_backends",
    "lookup_backend",
    "make_fx",
    "statically_known_true",
    "sym_eq",
    "tag_activation_checkpoint",
    "trace_structured",
    "tree_leaves",
]

# Dynamo steers by these: whoever swallows one leaves it in a wrong state.
CONTROL_FLOW: tuple[type[Exception], ...] = (RestartAnalysis, ShortenTraceback, SkipFrame)

ENTER_AUTOCAST = torch.amp.autocast_mode._enter_autocast
EXIT_AUTOCAST = torch.amp.autocast_mode._exit_autocast
SET_GRAD = torch._C._set_grad_enabled
LOG_USAGE = torch._C._log_api_usage_once


# --- Dynamo's graph ---------------------------------------------------------------------------


def compiled_options(model: OptimizedModule, backend: str) -> dict[str, Any] | None:
    """The options that `model` was compiled with, if it was with the backend of that name."""
    link: Any = model.dynamo_ctx.callback
    while link is not None and not hasattr(link, "compiler_fn"):
        link = getattr(link, "_torchdynamo_orig_backend", None)
    if getattr(link, "compiler_name", None) not in (backend, "backend"):
        return None
    options: dict[str, Any] | None = link.kwargs.get("options")
    return options


def is_static_input(placeholder: fx.Node) -> bool:
    """Whether Dynamo says that an input is a parameter or buffer of a module."""
    return bool(placeholder.meta.get("tensor_dict", {}).get("_dynamo_static_input_type"))


def keep_dynamo_identity(source: fx.GraphModule, copy: fx.GraphModule) -> None:
    """Let AOTAutograd see `copy` as the graph that Dynamo made: which inputs are static (CUDA
    graphs do not copy those) and where each comes from (guards on duplicates). Inputs that `copy`
    has beyond those of `source` are ours and come from nowhere."""
    if "dynamo_compile_id" not in source.meta or not hasattr(source, "_param_name_to_source"):
        return
    old = source.graph.find_nodes(op="placeholder")
    new = copy.graph.find_nodes(op="placeholder")
    if not all(hasattr(n, "_dynamo_source") for n in old):
        return
    copy.meta["dynamo_compile_id"] = source.meta["dynamo_compile_id"]
    constants = [*copy.named_parameters(), *copy.named_buffers()]
    copy._param_name_to_source = {n: ConstantSource(f"constant {n}") for n, _ in constants}  # type: ignore[assignment]
    for i, node in enumerate(new):
        node._dynamo_source = old[i]._dynamo_source if i < len(old) else None
        if i < len(old) and "tensor_dict" in old[i].meta:
            node.meta["tensor_dict"] = old[i].meta["tensor_dict"]


@contextmanager
def uncompiled(model: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """What was compiled: the function behind `torch.compile(function)`; a module that was compiled
    in place by `module.compile()`, as it was before, inside the block."""
    if isinstance(model, torch.nn.Module) and model._compiled_call_impl is not None:
        compiled, model._compiled_call_impl = model._compiled_call_impl, None
        try:
            yield model
        finally:
            model._compiled_call_impl = compiled
    else:
        yield getattr(model, "_torchdynamo_orig_callable", model)


def tracing_mode() -> FakeTensorMode | None:
    """The fake mode that AOTAutograd will use for the graph being compiled now, if any."""
    context = TracingContext.try_get()
    return context.fake_mode if context is not None else None


@contextmanager
def unbacked_sizes(value: torch.Tensor) -> Iterator[None]:
    """Inside, operators that are inferred with `value`, a fake tensor, may give sizes that only the
    run knows. From then on tracing with it may give such too: the target traces the graph again."""
    env = value.fake_mode.shape_env  # type: ignore[attr-defined]
    if env is None:
        raise RuntimeError("the graph was captured without a shape environment")
    object.__setattr__(env.settings, "allow_dynamic_output_shape_ops", True)
    with env.ignore_fresh_unbacked_symbols():
        yield


def tracing_in(mode: FakeTensorMode) -> AbstractContextManager[Any]:
    """A tracing context for compiling after Dynamo has finished."""
    return tracing(TracingContext(mode))


@contextmanager
def saved_tensor_hooks_hidden() -> Iterator[None]:
    """Keep the caller's hooks on saved tensors (checkpointing, offloading) from seeing what we
    trace or check: only the innermost pair of hooks is called."""
    if not torch._C._autograd._saved_tensors_hooks_is_enabled():  # type: ignore[attr-defined]
        yield
        return
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        yield


@contextmanager
def real_constants_allowed(mode: FakeTensorMode) -> Iterator[None]:
    """Let real tensors that a graph carries as constants meet fake ones."""
    before = mode.allow_non_fake_inputs
    mode.allow_non_fake_inputs = True
    try:
        yield
    finally:
        mode.allow_non_fake_inputs = before


@contextmanager
def new_guards(env: ShapeEnv | None, fakes: Sequence[Any]) -> Iterator[list[Callable[..., bool]]]:
    """Collect the shape guards that compiling inside the block adds, as one predicate on inputs.

    Dynamo froze the environment when it finished and checks none of these: whoever compiles later
    has to check them itself.
    """
    checks: list[Callable[..., bool]] = []
    if env is None:
        yield checks
        return
    frozen, known = env.frozen, len(env.guards)
    env.frozen = False
    try:
        yield checks
    finally:
        env.frozen = frozen
    added = env.guards[known:]
    code = env.produce_guards_expression(list(fakes), guards=added) if added else None
    if code:
        checks.append(functools.partial(_guard_holds, env, code))


def _guard_holds(env: ShapeEnv, code: str, *inputs: Any) -> bool:
    return bool(env.evaluate_guards_expression(code, inputs))


def module_floats(gm: fx.GraphModule) -> dict[str, tuple[str, float]]:
    """The float attributes of modules that Dynamo made symbolic: the attribute's source, the name
    of its symbol and its value now."""
    found: dict[str, tuple[str, float]] = {}
    for node in gm.graph.nodes:
        value = node.meta.get("example_value")
        if node.target != "item" or not isinstance(value, torch.SymFloat):
            continue
        origin = node.args[0]
        source = getattr(origin, "_dynamo_source", None)
        example = getattr(origin.meta.get("grapharg"), "example", None)
        if not _is_module_attribute(source) or not isinstance(example, torch.Tensor):
            continue
        if isinstance(example, FakeTensor):
            continue
        found[str(source)] = (str(value.node._expr), float(example))
    return found


def _is_module_attribute(source: Any) -> bool:
    return isinstance(source, AttrSource) and isinstance(source.base, UnspecializedNNModuleSource)


def current_frame() -> int | None:
    """A number for the piece of user code that Dynamo is compiling; None outside of Dynamo."""
    compile_id = CompileContext.current_compile_id()
    return compile_id.frame_id if compile_id is not None else None


def restart_with_constants(symbols: Sequence[str]) -> NoReturn:
    """Make Dynamo trace the frame again with these float symbols as plain numbers."""
    for symbol in symbols:
        TensorifyState.specialize(symbol)
    raise TensorifyScalarRestartAnalysis


def forget_constants(symbols: Iterable[str]) -> None:
    """Take back what `restart_with_constants` asked for: Dynamo would keep to it for ever."""
    TensorifyState.force_specializations.difference_update(symbols)


# --- torch.export -----------------------------------------------------------------------------


def replace_graph(program: torch.export.ExportedProgram, graph: fx.Graph) -> Any:
    """A program with the weights of `program` and another graph; its signature follows the names
    that the outputs have there."""
    module = fx.GraphModule(program.graph_module, graph)
    module.meta.update(program.graph_module.meta)
    names = [getattr(arg, "name", None) for arg in graph.output_node().args[0]]  # type: ignore[union-attr]
    specs = [
        dataclasses.replace(spec, arg=dataclasses.replace(spec.arg, name=name)) if name else spec
        for spec, name in zip(program.graph_signature.output_specs, names, strict=True)
    ]
    signature = dataclasses.replace(program.graph_signature, output_specs=specs)
    return program._update(module, signature)
