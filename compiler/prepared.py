"""Prepared weights: values computed from weights alone, kept between calls while they are fresh.

What a freshness check can and cannot see:

    change                                            seen by
    optimiser step, copy_, load_state_dict, in-place  version counter
    parameter object replaced, load(assign=True)      identity
    `.data = tensor`, module.to(dtype)                address
    fused optimisers                                  a hook on every optimiser step
    `.data.copy_()`, writes through numpy, kernels    nothing: call `refresh(model)`
    called directly (`torch._fused_sgd_`)

Weights that are inference tensors have no version counter; with those the values are not used at
all. It must not know where the values come from (`passes/hoist_weights.py`).
"""

from __future__ import annotations

import functools
import operator
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from .passes.subgraph import picker

_version = operator.attrgetter("_version")
_address = torch.Tensor.data_ptr


@dataclass(frozen=True)
class _Snapshot:
    """Prepared values and the state of the weights that they were computed from. It holds on to
    the weights, so that no other tensor can take over their identity."""

    values: tuple[torch.Tensor, ...]
    weights: tuple[torch.Tensor, ...]
    versions: tuple[int, ...]
    addresses: tuple[int, ...]
    steps: int

    def is_fresh(self, weights: tuple[torch.Tensor, ...]) -> bool:
        """Whether nothing has changed in these weights, which are the same objects."""
        return (
            self.steps == _fused_steps.count
            and tuple(map(_version, weights)) == self.versions
            and tuple(map(_address, weights)) == self.addresses
        )

    def is_orphaned(self) -> bool:
        """Whether nobody but this snapshot knows one of the weights any more."""
        # one reference from the tuple, one from the loop, one from the call
        return any(sys.getrefcount(weight) <= 3 for weight in self.weights)


class PreparedWeights:
    """The derivation that a graph with hoisted weights needs: the values, or None where the
    freshness of these weights cannot be told.

    One graph may serve several modules of one class (each layer compiled by itself): there is a
    snapshot for each set of weights, and those of dead models go when the next one is made.
    Threads may share it: a snapshot is immutable and replaced as a whole.
    """

    name = "prepared"

    def __init__(self, compute: fx.GraphModule, positions: Sequence[int]) -> None:
        self._compute = compute
        self._pick = picker(positions)
        self._snapshots: dict[tuple[int, ...], _Snapshot] = {}
        self._lock = threading.Lock()
        _watch_fused_optimisers()

    def derive(self, inputs: Sequence[Any]) -> tuple[torch.Tensor, ...] | None:
        """The prepared values for the weights among `inputs`, computed anew if one has changed."""
        weights: tuple[torch.Tensor, ...] = self._pick(inputs)
        key = tuple(map(id, weights))
        snapshot = self._snapshots.get(key)
        try:
            if snapshot is not None and snapshot.is_fresh(weights):
                return snapshot.values
            with self._lock:
                snapshot = self._prepare(weights)
                kept = {
                    k: s for k, s in self._snapshots.items() if k != key and not s.is_orphaned()
                }
                self._snapshots = {**kept, key: snapshot}
        except RuntimeError:  # a weight without a version counter or an address
            return None
        return snapshot.values

    def _prepare(self, weights: tuple[torch.Tensor, ...]) -> _Snapshot:
        # The state is read first: a write in the meantime makes the snapshot stale.
        versions, addresses = tuple(map(_version, weights)), tuple(map(_address, weights))
        steps = _fused_steps.count
        # Made in inference mode they would be inference tensors, of no use to later callers.
        with torch.inference_mode(False), torch.no_grad():
            values = tuple(self._compute(*weights))
        return _Snapshot(values, weights, versions, addresses, steps)


def refresh(model: torch.nn.Module) -> None:
    """Make compiled code forget what it prepared from the weights of `model`.

    Needed only after writes that nothing can notice: through `.data`, through numpy or from C++.
    Moves the version counter of every parameter and buffer. Raises TypeError for anything else.
    """
    given: Any = model
    if not isinstance(given, torch.nn.Module):
        raise TypeError(f"refresh takes a torch.nn.Module, not {type(given).__name__}")
    tensors = [t for t in (*model.parameters(), *model.buffers()) if not t.is_inference()]
    torch.autograd.graph.increment_version(tensors)


class _FusedSteps:
    """How many steps fused optimisers made in this process: they move no version counter."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if any(group.get("fused") for group in optimizer.param_groups):
            self.count += 1


_fused_steps = _FusedSteps()


@functools.cache
def _watch_fused_optimisers() -> None:
    register_optimizer_step_post_hook(_fused_steps)
