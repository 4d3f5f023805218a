"""Questions that every pass asks of an FX graph, and the one way to add a node to it.

Node metadata: `meta["val"]` is the fake value (shape, strides, dtype, storage) of each node. It
must not know any pass. Next: `facts.py` for what holds about a whole graph.
"""

from __future__ import annotations

import contextlib
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import fx

from .report import Decline, Reason
from .torch_compat import (
    ENTER_AUTOCAST,
    EXIT_AUTOCAST,
    FakeTensor,
    OpOverload,
    statically_known_true,
    sym_eq,
    tree_leaves,
)

aten = torch.ops.aten

# Metadata that a node passes on to the one that replaces it: where it stands in the user's code,
# and the tags by which checkpointed regions are recomputed.
INHERITED = ("nn_module_stack", "stack_trace", "source_fn_stack", "recompute", "ac_graph_id")


def fake(node: fx.Node) -> torch.Tensor | None:
    """The fake tensor that stands for `node`'s value; None where it is not one tensor."""
    value = node.meta.get("val")
    return value if isinstance(value, torch.Tensor) else None


def where(node: fx.Node) -> str:
    """The module path that `node` comes from, such as `encoder.layer.0.attention`."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ""
    path = str(list(stack.values())[-1][0])
    path = re.sub(r"^L\['self'\]\.?|^L\['\w+'\]\.?", "", path)
    path = path.replace("._modules['", ".").replace("_modules['", "").replace("']", "")
    return path.replace("slf.", "").strip(".")


_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


def source(node: fx.Node) -> str:
    """`file:line` of the user's statement that made `node`."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    return ":".join(frames[-1]) if frames else ""


def decline(node: fx.Node, code: Reason, reason: str) -> Decline:
    """The report row of a site that is left as it is."""
    return Decline(where(node), op_name(node), source(node), code, reason)


def op_name(node: fx.Node) -> str:
    """`softmax.int`, `linear.default`, or the plain name of what is not an ATen overload."""
    if isinstance(node.target, OpOverload):
        return str(node.target).removeprefix("aten.")
    return str(getattr(node.target, "__name__", node.target))


def is_call(node: object, *targets: object) -> bool:
    """Whether `node` is a call of one of `targets`."""
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in targets


READ_SHAPES = (
    aten.expand_as.default,
    aten.type_as.default,
    aten.view_as.default,
    aten.reshape_as.default,
)


def readers(node: fx.Node) -> list[fx.Node]:
    """The users that read more of a value than its shape and dtype."""
    return [u for u in node.users if not (is_call(u, *READ_SHAPES) and u.args[0] is not node)]


def number(arg: object) -> float | None:
    """The Python number that an argument stands for: itself, or a 0-d constant of the graph."""
    if isinstance(arg, bool):
        return None
    if isinstance(arg, int | float):
        return float(arg)
    if is_call(arg, aten.full.default):
        assert isinstance(arg, fx.Node)
        size, value = arg.args[:2]
        return number(value) if not size else None
    return None


def same_size(a: Iterable[Any], b: Iterable[Any]) -> bool:
    """Whether two sizes are proven equal, without putting a guard on either."""
    left, right = list(a), list(b)
    return len(left) == len(right) and all(
        statically_known_true(sym_eq(x, y)) for x, y in zip(left, right, strict=True)
    )


def as_int(size: Any) -> Any:
    """A symbolic size that is always the same number, as that number."""
    plain = size.node.maybe_as_int() if isinstance(size, torch.SymInt) else size
    return size if plain is None else plain


def same_layout(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two values have the same dtype, size and strides."""
    return (
        a.dtype == b.dtype and same_size(a.size(), b.size()) and same_size(a.stride(), b.stride())
    )


def is_symbolic(value: torch.Tensor) -> bool:
    """Whether any size, stride or offset of `value` is known only at run time."""
    numbers = (*value.size(), *value.stride(), value.storage_offset())
    return any(isinstance(n, torch.SymInt) for n in numbers)


def nbytes(value: torch.Tensor) -> int:
    """Bytes of a value of static size."""
    return value.numel() * value.element_size()


Region = tuple[Any, ...]  # the arguments of the `torch.autocast` that opened it


def autocast_regions(graph: fx.Graph) -> dict[fx.Node, tuple[Region, ...]]:
    """The autocast regions of the graph that each node stands in, outermost first."""
    stack: tuple[Region, ...] = ()
    found: dict[fx.Node, tuple[Region, ...]] = {}
    for node in graph.nodes:
        if node.target is ENTER_AUTOCAST:
            stack = (*stack, tuple(node.args))
        found[node] = stack
        if node.target is EXIT_AUTOCAST:
            stack = stack[:-1]
    return found


def infer(
    target: Callable[..., Any],
    args: Any,
    kwargs: Any,
    regions: Iterable[Region],
    values: Mapping[fx.Node, Any] | None = None,
    mode: Any = None,
) -> Any:
    """The fake value of `target(*args, **kwargs)` inside autocast `regions`, where nodes stand for
    their fake values, or for those in `values`; `mode` is theirs where no argument is a tensor.
    Raises what the operator raises."""
    known = values or {}
    args, kwargs = fx.node.map_arg(
        (args, kwargs), lambda n: known[n] if n in known else n.meta.get("val")
    )
    modes = (v.fake_mode for v in tree_leaves((args, kwargs)) if isinstance(v, FakeTensor))
    mode = next(modes, mode)
    with contextlib.ExitStack() as stack:
        for region in regions:
            stack.enter_context(torch.autocast(*region))
        stack.enter_context(mode)
        return target(*args, **kwargs)


def emit(
    graph: fx.Graph,
    target: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    like: fx.Node,
    regions: Iterable[Region] | None = None,
) -> fx.Node:
    """A new call in front of `like`, at the same place in the user's code, its value inferred.
    `regions`: the autocast regions around `like`, if the caller knows them."""
    kwargs = kwargs or {}
    around = autocast_regions(graph)[like] if regions is None else regions
    fakes = (v for v in tree_leaves(like.meta.get("val")) if isinstance(v, FakeTensor))
    mode = next((v.fake_mode for v in fakes), None)
    value = infer(target, args, kwargs, around, mode=mode)
    with graph.inserting_before(like):
        node = graph.call_function(target, args, kwargs)
    node.meta = {k: like.meta[k] for k in INHERITED if k in like.meta}
    node.meta["val"] = value
    return node


def copy_graph(graph: fx.Graph) -> fx.Graph:
    """A copy to edit: nodes and their metadata are new, the values in the metadata are shared."""
    copy = fx.Graph()
    copy.output(copy.graph_copy(graph, {}))
    return copy


def replace(node: fx.Node, by: fx.Node) -> None:
    """Let every reader of `node` read `by`, which has the same value, and drop `node`."""
    old, new = fake(node), fake(by)
    node.replace_all_uses_with(by)
    node.graph.erase_node(node)
    if old is None or new is None or old.untyped_storage()._cdata != new.untyped_storage()._cdata:
        repropagate(by)


# Their values do not depend on the layout of what they read, and inferring them anew would make
# new symbols for sizes that already have one.
DATA_DEPENDENT = (torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output)


def repropagate(changed: fx.Node) -> None:
    """Infer anew the values of everything behind `changed`, as far as layout or storage differ.

    Raises what an operator raises where the new layout does not suit it (`view`, say); then
    nothing has been renewed.
    """
    for node, value in renewed_values(changed).items():
        node.meta["val"] = value


def renewed_values(changed: fx.Node) -> dict[fx.Node, Any]:
    """What `repropagate` would give to which nodes, `changed` itself with the value it has."""
    regions = autocast_regions(changed.graph)
    renewed: dict[fx.Node, Any] = {changed: changed.meta["val"]}
    stale = {changed}
    node = changed.next
    while node.op != "root":
        sources = [n for n in node.all_input_nodes if n in stale]
        if sources and _has_inferable_value(node):
            assert callable(node.target)
            after = infer(node.target, node.args, node.kwargs, regions[node], renewed)
            renewed[node] = after
            moved = not same_layouts(node.meta["val"], after)
            if moved or _shares_storage(after, [renewed[n] for n in sources]):
                stale.add(node)
        node = node.next
    return renewed


def _has_inferable_value(node: fx.Node) -> bool:
    """Whether the value is made of tensors, and their layout may follow from that of the inputs."""
    if not isinstance(node.meta.get("val"), torch.Tensor | list | tuple):
        return False
    if not isinstance(node.target, OpOverload):
        return node.target is operator.getitem
    return not any(tag in node.target.tags for tag in DATA_DEPENDENT)


def same_layouts(before: Any, after: Any) -> bool:
    """`same_layout` of all tensors in two values that may be lists."""
    old, new = ([v for v in tree_leaves(x) if isinstance(v, torch.Tensor)] for x in (before, after))
    return len(old) == len(new) and all(map(same_layout, old, new))


def _shares_storage(value: Any, sources: list[Any]) -> bool:
    mine, theirs = (
        {v.untyped_storage()._cdata for v in tree_leaves(x) if isinstance(v, torch.Tensor)}
        for x in (value, sources)
    )
    return not mine.isdisjoint(theirs)


def to_text(graph: fx.Graph, order: Iterable[fx.Node] | None = None) -> str:
    """The graph as stable text: own numbering, operators, shapes and dtypes, no addresses."""
    names: dict[fx.Node, str] = {}
    lines = []
    for node in graph.nodes if order is None else order:
        names[node] = node.name if node.op == "placeholder" else f"%{len(names)}"
        args = fx.node.map_arg((node.args, node.kwargs), lambda n: _Name(names[n]))
        value = fake(node)
        kind = f" : {value.dtype}{list(value.shape)}" if value is not None else ""
        what = op_name(node) if node.op == "call_function" else node.op
        lines.append(f"{names[node]} = {what}{args[0]}{args[1] or ''}{kind}")
    return "\n".join(lines)


class _Name(str):
    """A node's name that prints without quotes."""

    def __repr__(self) -> str:
        return str(self)
