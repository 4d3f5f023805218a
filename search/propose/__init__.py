"""The samplers: who proposes the next candidate. To add one: a file here, and a row below; from
outside, an entry point of the group `formwright.samplers`."""

from __future__ import annotations

from ..registry import Registry
from .proposer import Proposer, Sampler

SAMPLERS = Registry(
    "sampler",
    "formwright.samplers",
    Sampler,
    {
        "exact": ".propose.exact:SAMPLER",
        "nsga2": ".propose.nsga2:SAMPLER",
        "random": ".propose.random:SAMPLER",
        "tpe": ".propose.tpe:SAMPLER",
    },
)

__all__ = ["SAMPLERS", "Sampler", "Proposer"]
