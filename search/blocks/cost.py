"""What a block costs, counted from its settings without building it.

    params       trained numbers
    flops        of one sequence, forward: two for each multiply-add of matrix products and
                 convolutions, as `torch.utils.flop_counter` counts
    activations  numbers that those products write, as in "Designing Network Design Spaces"
                 (Radosavovic et al., 2020); memory traffic follows it better than flops
    state        numbers kept for one sequence while it is generated token by token, at most

Element-wise work is not counted. It must not import torch. Next: `block.py`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Costs add up: `linear(...) + product(...)`."""

    params: int = 0
    flops: int = 0
    activations: int = 0
    state: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.params + other.params,
            self.flops + other.flops,
            self.activations + other.activations,
            self.state + other.state,
        )


def product(rows: int, inner: int, columns: int, times: int = 1) -> Cost:
    """`times` products [rows, inner] @ [inner, columns].

    >>> product(2, 3, 4)
    Cost(params=0, flops=48, activations=8, state=0)
    """
    written = times * rows * columns
    return Cost(flops=2 * inner * written, activations=written)


def linear(inputs: int, outputs: int, tokens: int, *, bias: bool = True) -> Cost:
    """A linear map of each token."""
    return product(tokens, inputs, outputs) + Cost(params=(inputs + bias) * outputs)


def depthwise(channels: int, size: int, tokens: int, *, bias: bool = True) -> Cost:
    """A convolution of each channel by itself, `size` numbers each (borders count as inside)."""
    return product(tokens, size, channels) + Cost(params=(size + bias) * channels)
