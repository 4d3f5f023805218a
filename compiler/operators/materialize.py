"""`formwright::materialize`: a value per row that the code generator computes once for each row.

    materialize(x) == x, [..., 1], and so is its gradient

Inductor computes a number per row again for every vector of the row where it can: a root and a
division in the innermost loop of a norm. What is materialized is computed once and read, in the
same loop over the rows (`../torch_inductor.py`). It must not know what for. Next:
`../passes/lower_norms.py`.
"""

from __future__ import annotations

from typing import Any

import torch


@torch.library.custom_op("formwright::materialize", mutates_args=())
def materialize(x: torch.Tensor) -> torch.Tensor:
    """A copy of x [..., 1], any floating dtype."""
    return x.clone()


@materialize.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def _backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
    return gradient


materialize.register_autograd(_backward)
