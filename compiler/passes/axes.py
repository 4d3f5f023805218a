"""Where the axes of a value come from: layouts of one computation over shared atoms.

An *atom* is a piece of an axis with a size. An axis is a tuple of atoms, row-major (the empty tuple
where its size is one), a *layout* is one axis after another. Views and permutations only move atoms
about; a view that splits an axis splits its atom everywhere it occurs. So two values are known to
share an axis, whatever views lie between them. It must not know attention. Next:
`attention_site.py` reads a site with it, `rearrange.py` writes values in a wanted layout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import fx

from ..graph import aten, fake, same_size


class Atom:
    """A piece of an axis. `size` may be symbolic; `parts` are what it has been split into."""

    __slots__ = ("parts", "size")

    def __init__(self, size: Any) -> None:
        self.size = size
        self.parts: tuple[Atom, ...] = ()


Axis = tuple[Atom, ...]
Layout = tuple[Axis, ...]


class Unreadable(Exception):
    """The axes of a value cannot be told."""


def is_one(size: Any) -> bool:
    """Whether a size is proven to be one."""
    return same_size([size], [1])


def new_axis(size: Any) -> Axis:
    """An axis of its own."""
    return () if is_one(size) else (Atom(size),)


def new_layout(shape: Sequence[Any]) -> Layout:
    """A layout in which every axis stands for itself."""
    return tuple(map(new_axis, shape))


def atoms(axis: Axis) -> Axis:
    """The atoms of an axis as far as they have been split by now."""
    return tuple(p for a in axis for p in (atoms(a.parts) if a.parts else (a,)))


def flat(layout: Layout) -> Axis:
    """All atoms of a layout, row-major."""
    return tuple(a for axis in layout for a in atoms(axis))


def extent(axis: Axis) -> Any:
    """The size of an axis."""
    size: Any = 1
    for atom in axis:
        size = atom.size if isinstance(size, int) and size == 1 else size * atom.size
    return size


def regroup(layout: Layout, shape: Sequence[Any]) -> Layout:
    """The layout of a value of `shape` that holds the same elements in the same row-major order.

    Raises Unreadable where an axis would begin inside of an atom that cannot be cut there.
    """
    rest = list(flat(layout))
    axes: list[Axis] = []
    for size in shape:
        axis: list[Atom] = []
        have: Any = 1
        while not same_size([have], [size]):
            if not rest:
                raise Unreadable(f"{list(shape)} does not divide")
            if _divides(have * rest[0].size, size):
                axis.append(rest.pop(0))
                have = have * axis[-1].size
            else:
                rest[:1] = _split(rest[0], size // have if have != 1 else size)
        axes.append(tuple(axis))
    if rest:
        raise Unreadable(f"{list(shape)} leaves a rest")
    return tuple(axes)


def _divides(part: Any, whole: Any) -> bool:
    return same_size([part], [whole]) or same_size([whole // part * part], [whole])


def _split(atom: Atom, first: Any) -> Axis:
    """`atom` as two: one of size `first` and the rest."""
    rest = atom.size // first
    if is_one(first) or is_one(rest) or not same_size([first * rest], [atom.size]):
        raise Unreadable(f"an axis of {atom.size} does not split off {first}")
    atom.parts = (Atom(first), Atom(rest))
    return atom.parts


# --- calls that only rearrange ------------------------------------------------------------------

SAME_ORDER = (
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.contiguous.default,
    aten.clone.default,
    aten.alias.default,
    aten.view_as.default,
    aten.reshape_as.default,
)


def _swapped(rank: int, a: int, b: int) -> list[int]:
    order = list(range(rank))
    order[a], order[b] = order[b], order[a]
    return order


def _moved(rank: int, source: int, to: int) -> list[int]:
    order = [i for i in range(rank) if i != source % rank]
    order.insert(to % rank, source % rank)
    return order


# call -> (rank, its further arguments) -> which axis of the argument each axis of the value is
ORDERS: dict[object, Callable[..., list[int]]] = {
    aten.permute.default: lambda rank, dims: [d % rank for d in dims],
    aten.transpose.int: _swapped,
    aten.swapaxes.default: _swapped,
    aten.swapdims.default: _swapped,
    aten.movedim.int: _moved,
    aten.t.default: lambda rank: list(range(rank))[::-1],
    aten.numpy_T.default: lambda rank: list(range(rank))[::-1],
    aten.mT.default: lambda rank: _swapped(rank, -1, -2),
}

EXPANDS = (aten.expand.default, aten.expand_as.default)
REPEATS = (aten.repeat.default, aten.repeat_interleave.self_int)
REARRANGES = (*SAME_ORDER, *ORDERS, *EXPANDS, *REPEATS)


def before(node: fx.Node, layout: Layout) -> Layout:
    """The layout of the argument of a call in REARRANGES whose value has `layout`.

    What is repeated or broadcast is not in the argument, so its atoms are not in its layout.
    """
    shape = shape_of(node.args[0])
    if node.target in SAME_ORDER:
        return regroup(layout, shape)
    if node.target in ORDERS:
        source: list[Axis] = [()] * len(shape)
        for axis, i in zip(layout, _order(node), strict=True):
            source[i] = axis
        return tuple(source)
    if node.target in EXPANDS:
        return aligned(layout, shape_of(node), shape)
    if node.target is aten.repeat.default:
        times: Any = node.args[1]
        if len(times) != len(shape):
            raise Unreadable("repeat adds axes")
        return tuple(map(_repeated, layout, times, shape))
    return _before_interleave(node, layout, shape)


def after(node: fx.Node, layout: Layout) -> Layout:
    """The layout of the value of a call whose argument has `layout`."""
    if node.target in SAME_ORDER:
        return regroup(layout, shape_of(node))
    if node.target in ORDERS:
        return tuple(layout[i] for i in _order(node))
    raise Unreadable("it repeats values")


def aligned(layout: Layout, shape: Sequence[Any], operand: Sequence[Any]) -> Layout:
    """The layout of an operand that broadcasts to a value of `shape` with `layout`."""
    found: list[Axis] = []
    offset = len(shape) - len(operand)
    for i, size in enumerate(operand):
        if is_one(size):
            found.append(())
        elif same_size([size], [shape[offset + i]]):
            found.append(layout[offset + i])
        else:
            raise Unreadable(f"{list(operand)} does not broadcast to {list(shape)}")
    return tuple(found)


def _order(node: fx.Node) -> list[int]:
    return ORDERS[node.target](len(shape_of(node.args[0])), *node.args[1:])


def _repeated(axis: Axis, times: Any, size: Any) -> Axis:
    if isinstance(times, fx.Node):
        times = times.meta["val"]
    if is_one(times):
        return axis
    return () if is_one(size) else regroup((axis,), (times, size))[1]


def _before_interleave(node: fx.Node, layout: Layout, shape: Sequence[Any]) -> Layout:
    times, axis = (*node.args[1:3], None)[:2]
    axis = node.kwargs.get("dim", axis)
    if isinstance(times, fx.Node):
        times = times.meta["val"]
    if not isinstance(axis, int):
        raise Unreadable("repeat_interleave of the flat value")
    axes = list(layout)
    axis %= len(shape)
    if is_one(shape[axis]):
        axes[axis] = ()
    elif not is_one(times):
        axes[axis] = regroup((axes[axis],), (shape[axis], times))[0]
    return tuple(axes)


def shape_of(node: Any) -> Sequence[Any]:
    """The shape of what a node gives. Raises Unreadable where it is not one tensor."""
    value = fake(node) if isinstance(node, fx.Node) else None
    if value is None:
        raise Unreadable("it is not one tensor")
    return value.shape
