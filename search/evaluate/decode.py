"""How long one step of generation takes: the next token of one sequence, at its end.

The state is what the model holds before the last token of the example, so caches are as long as
they become; shapes are fixed, and the same step is taken again and again. Compiled with our
backend; where that fails the step is measured as it is, and the record says why. It must not know
tasks. Next: `latency.py`.

Shapes: B batch, T tokens, C channels, L length of a series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import EvaluationError, SpecError
from . import latency
from .failure import Deadline, reason
from .latency import compiled, measuring
from .machine import Machine, machine
from .quiet import working
from .timing import REFERENCE, Times, in_turn


@dataclass(frozen=True)
class Decoding:
    """`times` of one step behind `tokens` others, batch 1. `uncompiled` is why the step was
    measured as it is; empty if it was compiled."""

    times: Times
    tokens: int
    uncompiled: str
    graph_hash: str
    machine: Machine

    def values(self) -> dict[str, float]:
        """By the ids of METRICS."""
        return {"decode_ms": self.times.median_ms}

    def record(self) -> dict[str, Any]:
        """What the value depends on beside the machine, JSON-ready."""
        return {
            "tokens": self.tokens,
            "uncompiled": self.uncompiled,
            "graph_hash": self.graph_hash,
            "reference": REFERENCE,
            **self.times.record(),
        }


def decode(
    model: nn.Module, example: Tensor, *, target: str, threads: int, deadline: Deadline
) -> Decoding:
    """The time of one `model.step`. `example` is a batch of what the model takes: tokens [B, T], or
    a series [B, C, L]; its first row is generated. Leaves the model in eval mode.

    Raises EvaluationError for a model that cannot go step by step, and as `measure` does.
    """
    model.eval()
    steps: Any = model
    with measuring(threads):
        with working():
            pieces = _pieces(steps, example[:1])
            state = _state(steps, pieces[:-1], deadline)
        given = (pieces[-1], state)
        try:
            made = compiled(steps.step, given, target)
            call, graph, why = made.call, made.report.graph_hash, ""
        except Exception as error:  # a state may be of any kind, and not every kind can be compiled
            torch.compiler.reset()
            call, graph, why = (lambda: steps.step(*given)), "", reason(error)
        deadline.check("compiling a step")
        times = in_turn(call, aim_s=latency.AIM_S, deadline=deadline)
    return Decoding(times, len(pieces) - 1, why, graph, machine(threads, target))


def _pieces(model: Any, example: Tensor) -> list[Tensor]:
    """What each step takes. A stem has as many tokens as it makes of the whole example."""
    if example.dim() < 2 or not hasattr(model, "stem"):
        raise EvaluationError(f"decode_ms wants sequences, got {list(example.shape)}")
    count = model.stem(example).shape[1]
    if example.shape[-1] % count:
        raise EvaluationError(f"{list(example.shape)} is not {count} tokens of one length")
    pieces = example.chunk(count, -1)
    return [piece.squeeze(-1) if example.dim() == 2 else piece for piece in pieces]


def _state(model: Any, pieces: list[Tensor], deadline: Deadline) -> Any:
    try:
        state = model.begin(1)
    except (AttributeError, SpecError) as error:
        why = str(error) if isinstance(error, SpecError) else "it has no begin() and step()"
        raise EvaluationError(f"decode_ms cannot be measured: {why}") from error
    for piece in pieces:
        deadline.check("decoding")
        _, state = model.step(piece, state)
    return state
