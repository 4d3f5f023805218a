"""One step of training a supernet: which sub-models see the batch, and what each is told.

All add gradients to the weights of the whole; the optimiser's step is the caller's. They must not
know how sub-models are made. Next: `match.py`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional as F

from ..spec import ArchSpec
from .nested import Supernet

Loss = Callable[[Tensor, Tensor], Tensor]


def summed(
    net: Supernet, subs: Sequence[ArchSpec], inputs: Tensor, labels: Tensor, loss: Loss
) -> list[float]:
    """Every sub-model sees the batch, and their gradients add up: the released training of
    MatFormer. Returns the loss of each."""
    losses = []
    for sub in subs:
        value = loss(net.run(sub, inputs), labels)
        value.backward()
        losses.append(value.item())
    return losses


def sampled(
    net: Supernet,
    subs: Sequence[ArchSpec],
    inputs: Tensor,
    labels: Tensor,
    loss: Loss,
    rng: random.Random,
) -> list[float]:
    """One sub-model, drawn uniformly, sees the batch: the training in the paper of MatFormer."""
    return summed(net, [rng.choice(subs)], inputs, labels, loss)


def sandwich(
    net: Supernet,
    subs: Sequence[ArchSpec],
    inputs: Tensor,
    labels: Tensor,
    loss: Loss,
    rng: random.Random,
    between: int = 2,
) -> list[float]:
    """The largest, the smallest and `between` others, drawn uniformly, see the batch: the sandwich
    rule with in-place distillation of universally slimmable networks. `subs` go from the smallest
    to the largest; the largest is told the labels, the others what the largest said."""
    said = net.run(subs[-1], inputs)
    value = loss(said, labels)
    value.backward()
    losses, wanted = [value.item()], said.detach().softmax(-1)
    others = [rng.choice(subs[1:-1]) for _ in range(between)] if len(subs) > 2 else []
    for sub in [*others, *subs[:1]] if len(subs) > 1 else []:
        logits = net.run(sub, inputs)
        # per class, as cross entropy: [.., C] -> [N, C]
        told = F.cross_entropy(logits.flatten(0, -2), wanted.flatten(0, -2))
        told.backward()
        losses.append(told.item())
    return losses
