"""One trained network that holds many: run any of them, train them together, take one out, choose.

    net = Supernet(spec, build(spec))
    net.run(sub, inputs)        the sub-model `sub`, on the weights of the whole
    summed / sampled / sandwich one step of training, in three published ways
    net.extract(sub)            an ordinary module with weights of its own
    gentle / best               which width each layer gets for a budget

"MatFormer" (Devvrit et al., 2023), "Once-for-All" (Cai et al., 2020), "Universally Slimmable
Networks" (Yu and Huang, 2019). Next: `nested.py`.
"""

from __future__ import annotations

from .match import best, gentle
from .nested import Supernet, narrowed
from .steps import sampled, sandwich, summed

__all__ = ["Supernet", "best", "gentle", "narrowed", "sampled", "sandwich", "summed"]
