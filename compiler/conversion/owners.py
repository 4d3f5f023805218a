"""Which parameter of which module an input of the graph is.

It must not know what is done with it. Next: `plan.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from ..errors import Declined
from ..graph import where
from ..report import Reason
from .edits import Name


class Owners:
    """The parameters behind the inputs of `graph`, whose real values are `real`."""

    def __init__(self, graph: fx.Graph, real: Sequence[Any], model: nn.Module) -> None:
        self._names: dict[int, list[Name]] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            for attribute, parameter in module.named_parameters(recurse=False):
                self._names.setdefault(id(parameter), []).append(Name(path, attribute))
        self._storages = Counter(
            t.untyped_storage().data_ptr()
            for t in (*dict.fromkeys(model.parameters()), *dict.fromkeys(model.buffers()))
        )
        placeholders = graph.find_nodes(op="placeholder")
        self._value = dict(zip(placeholders, real, strict=True))

    def names(self, node: fx.Node) -> list[Name]:
        """Where a parameter is, once for each module that holds it. Raises Declined if `node` is
        none."""
        found = self._names.get(id(self._value.get(node)))
        if not found:
            raise Declined(Reason.OTHER_READERS, f"`{node.name}` is not a parameter of the model")
        return found

    def held_by(self, node: fx.Node, user: fx.Node) -> Name:
        """Where the module that `user` belongs to holds a parameter. Raises Declined if it cannot
        be told."""
        names = self.names(node)
        if len(names) == 1:
            return names[0]
        path = where(user)
        inside = [n for n in names if _within(path, n.module)]
        if not inside:
            known = ", ".join(map(str, names))
            reason = f"it cannot be told which of {known} is read in {path or 'the model itself'}"
            raise Declined(Reason.OTHER_READERS, reason)
        return max(inside, key=lambda n: len(n.module))

    def check(self, node: fx.Node) -> None:
        """Raises Declined unless `node` is a parameter whose memory is its own."""
        self.names(node)
        value: torch.Tensor = self._value[node]
        if self._storages[value.untyped_storage().data_ptr()] > 1:
            reason = f"`{node.name}` shares its memory with another parameter or buffer"
            raise Declined(Reason.OTHER_READERS, reason)


def _within(path: str, module: str) -> bool:
    return module == "" or path == module or path.startswith(module + ".")
