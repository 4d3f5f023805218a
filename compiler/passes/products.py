"""Products of two tensors, whatever they are called, with their axes labelled.

    einsum("bhld,bhsd->bhls", q, k)   matmul(q, k_t)   bmm(q, k_t)   baddbmm(bias, q, k_t)

all become a `Product`: two operands and, for each axis of each and of the value, a label. Equal
labels are one axis; a label that both operands have and the value has not is summed over. An axis
of size one that is broadcast carries no label. It must not know attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from ..graph import aten
from .axes import Unreadable, is_one, shape_of

PRODUCTS = (
    aten.matmul.default,
    aten.bmm.default,
    aten.mm.default,
    aten.baddbmm.default,
    aten.einsum.default,
)

Label = str | None


@dataclass(frozen=True)
class Operand:
    """One factor and the labels of its axes."""

    node: fx.Node
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class Product:
    """`scale * left @ right + beta * added`."""

    left: Operand
    right: Operand
    value: tuple[Label, ...]
    scale: float = 1.0
    added: fx.Node | None = None
    beta: float = 1.0

    @property
    def summed(self) -> set[Label]:
        """The labels that are summed over."""
        return set(self.left.labels) & set(self.right.labels) - set(self.value) - {None}


def read_product(node: fx.Node) -> Product:
    """The product that a call in PRODUCTS computes. Raises Unreadable where it is another sum."""
    product = _einsum(node) if node.target is aten.einsum.default else _matmul(node)
    for mine, other in ((product.left, product.right), (product.right, product.left)):
        named = [label for label in mine.labels if label is not None]
        if len(set(named)) < len(named):
            raise Unreadable("an operand has an index twice")
        if not set(named) <= set(other.labels) | set(product.value):
            raise Unreadable("an operand is summed on its own")
    if not product.summed:
        raise Unreadable("nothing is summed over")
    return product


def _matmul(node: fx.Node) -> Product:
    """matmul, bmm, mm and baddbmm: [..., m, c] @ [..., c, n]."""
    added, *factors = node.args if node.target is aten.baddbmm.default else (None, *node.args)
    left, right = factors[:2]
    shapes = [shape_of(left), shape_of(right)]
    if min(map(len, shapes)) < 2:
        raise Unreadable("a product with a vector")
    rank = max(map(len, shapes)) - 2
    batch: list[list[Label]] = [
        [None if is_one(n) else f"b{rank - len(shape) + 2 + i}" for i, n in enumerate(shape[:-2])]
        for shape in shapes
    ]
    named = {label for labels in batch for label in labels}
    value = [f"b{i}" if f"b{i}" in named else None for i in range(rank)]
    alpha, beta = node.kwargs.get("alpha", 1), node.kwargs.get("beta", 1)
    return Product(
        Operand(_node(left), (*batch[0], "m", "c")),
        Operand(_node(right), (*batch[1], "c", "n")),
        (*value, "m", "n"),
        float(_plain(alpha)),
        added if isinstance(added, fx.Node) else None,
        float(_plain(beta)),
    )


def _einsum(node: fx.Node) -> Product:
    equation, operands = node.args[:2]
    text = str(equation).replace(" ", "")
    if not isinstance(operands, list | tuple) or len(operands) != 2 or "->" not in text:
        raise Unreadable(f"einsum {equation!r} of {len(list(operands))} operands")  # type: ignore[arg-type]
    inputs, _, value = text.partition("->")
    names = inputs.split(",")
    shapes = [shape_of(o) for o in operands]
    if "." in text:
        names, value = _spell_out(names, value, [len(s) for s in shapes])
    labels: list[list[Label]] = [
        [None if is_one(n) else c for c, n in zip(name, shape, strict=True)]
        for name, shape in zip(names, shapes, strict=True)
    ]
    known = {label for row in labels for label in row}
    left, right = (Operand(_node(o), tuple(r)) for o, r in zip(operands, labels, strict=True))
    return Product(left, right, tuple(c if c in known else None for c in value))


def _spell_out(names: list[str], value: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Letters for the axes that `...` stands for."""
    widths = [rank - len(n.replace("...", "")) for n, rank in zip(names, ranks, strict=True)]
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in "".join(names)]
    longest = max(w for n, w in zip(names, widths, strict=True) if "..." in n)
    letters = "".join(spare[:longest])
    spelled = [
        n.replace("...", letters[longest - w :]) if "..." in n else n
        for n, w in zip(names, widths, strict=True)
    ]
    return spelled, value.replace("...", letters)


def _plain(value: Any) -> float:
    if not isinstance(value, int | float):
        raise Unreadable("alpha or beta is known only at run time")
    return value


def _node(arg: Any) -> fx.Node:
    if not isinstance(arg, fx.Node):
        raise Unreadable("an operand is not a tensor")
    return arg
