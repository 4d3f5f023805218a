"""Rules of operators that name the axes they work along: reductions, slices, `cat`, `stack`.

They are token-wise where none of these axes is the batch or the token axis. Next: `token_rules.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx

from .axes import Layout, Unreadable, new_axis, shape_of
from .token_axes import TokenAxes
from .token_rule import Packs, Rule, only_argument, without_tokens


def along(at: int, name: str, *, default: Any = None, keep: int | None = None) -> Rule:
    """A call along the axes that argument `at` (`name`) names. `keep`: where it says whether the
    axes stay, with size one; where None, they stay with the size they have in the result."""

    def dims(node: fx.Node) -> list[int]:
        given = node.args[at] if len(node.args) > at else node.kwargs.get(name, default)
        if not isinstance(given, int | list | tuple) or given in ([], ()):
            raise Unreadable("it works along all axes")
        rank = len(shape_of(_source_of(node)))
        several = [given] if isinstance(given, int) else given
        if not all(isinstance(d, int) for d in several):
            raise Unreadable("its axes are not known")
        return [d % rank for d in several if isinstance(d, int)]

    def layout(node: fx.Node, axes: TokenAxes) -> Layout | list[Layout]:
        source = _joined(node, axes)
        chosen = dims(node)
        without_tokens(axes, *(source[d] for d in chosen))
        values = node.meta["val"]
        if isinstance(values, list | tuple):
            return [_resized(source, chosen, v.shape, axes) for v in values]
        return _resized(source, chosen, shape_of(node), axes)

    def pack(node: fx.Node, packer: Packs) -> fx.Node:
        args, kwargs = list(node.args), dict(node.kwargs)
        source = _source_of(node)
        mapped = [packer.axis(source, d) for d in dims(node)]
        given: Any = args[at] if len(args) > at else kwargs.get(name, default)
        new = mapped[0] if isinstance(given, int) else mapped
        if len(args) > at:
            args[at] = new
        else:
            kwargs[name] = new
        if isinstance(args[0], list | tuple):
            common = _joined(node, packer.axes)
            args[0] = [packer.aligned(n, _like(n, common, dims(node))) for n in args[0]]
        else:
            args[0] = packer.rows(args[0])
        return packer.call(node.target, *args, **kwargs)

    return Rule(layout, pack)


def _source_of(node: fx.Node) -> Any:
    first = node.args[0]
    return first[0] if isinstance(first, list | tuple) else first


def _joined(node: fx.Node, axes: TokenAxes) -> Layout:
    """The layout of what the call reads; of `cat`, whose tensors need not all have tokens, that of
    one that has."""
    first = node.args[0]
    if not isinstance(first, list | tuple):
        return only_argument(node, axes)
    found = [layout for layout in map(axes.layout, first) if layout is not None]
    alike = {tuple(axes.tokens.has(axis) for axis in layout) for layout in found}
    if len(alike) != 1:
        raise Unreadable("its operands have their tokens along different axes")
    return found[0]


def _like(node: fx.Node, layout: Layout, dims: list[int]) -> Layout:
    """`layout` for an operand that has another size along `dims`."""
    sizes = shape_of(node)
    return tuple(new_axis(sizes[i]) if i in dims else axis for i, axis in enumerate(layout))


def _resized(source: Layout, dims: list[int], shape: Sequence[Any], axes: TokenAxes) -> Layout:
    """`source` after a call along `dims` that gives a value of `shape`."""
    if len(shape) == len(source):
        axis = [new_axis(shape[i]) if i in dims else a for i, a in enumerate(source)]
        return axes.tokens.whole(tuple(axis))
    if len(shape) == len(source) - len(dims):
        return axes.tokens.whole(tuple(a for i, a in enumerate(source) if i not in dims))
    raise Unreadable("it gives axes that are not known")


def stacked(node: fx.Node, axes: TokenAxes) -> Layout:
    source = list(_joined(node, axes))
    shape = shape_of(node)
    dim = _stack_dim(node) % len(shape)
    source.insert(dim, new_axis(shape[dim]))
    return axes.tokens.whole(tuple(source))


def _stack_dim(node: fx.Node) -> int:
    given = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    assert isinstance(given, int)
    return given


def pack_stack(node: fx.Node, pack: Packs) -> fx.Node:
    common = _joined(node, pack.axes)
    first: Any = node.args[0]
    operands = [pack.aligned(n, common) for n in first]
    dim = _stack_dim(node) % len(shape_of(node))
    return pack.call(node.target, operands, pack.axis(node, dim))


def indexed(node: fx.Node, axes: TokenAxes) -> Layout:
    """x[:, :, i]: one index [N] along one axis."""
    source, indices = only_argument(node, axes), node.args[1]
    assert isinstance(indices, list | tuple)
    at = [d for d, index in enumerate(indices) if index is not None]
    if len(at) != 1 or len(shape_of(indices[at[0]])) != 1:
        raise Unreadable("it takes single elements")
    without_tokens(axes, source[at[0]])
    size = new_axis(shape_of(node)[at[0]])
    return axes.tokens.whole(tuple(size if d == at[0] else a for d, a in enumerate(source)))


def pack_indexed(node: fx.Node, pack: Packs) -> fx.Node:
    source: Any = node.args[0]
    indices: Any = node.args[1]
    dim, index = next((d, i) for d, i in enumerate(indices) if i is not None)
    at = pack.axis(source, dim)
    return pack.call(node.target, pack.rows(source), [None] * at + [index])
