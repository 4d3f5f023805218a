"""The options of the backend, checked on entry.

It must not know the passes or the targets: their names are checked by `pipeline.py` and
`lower.py`, which own the tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .errors import OptionError, UnknownNameError

CHOICES: dict[str, tuple[str, ...]] = {
    "padding": ("auto", "remove", "off"),
    "norm": ("auto", "rms", "crms", "off"),
}


@dataclass(frozen=True)
class Options:
    """`torch.compile(model, backend="formwright", options={...})`.

    >>> Options.of({"target": "eager"}).target
    'eager'
    >>> Options.of({"atention": False})
    Traceback (most recent call last):
    ...
    formwright.compiler.errors.UnknownNameError: unknown option 'atention'; known: attention, \
demand, disable, norm, padding, target, target_options, verify, weights_budget. \
Did you mean 'attention'?
    """

    target: str = "inductor"
    """The backend that generates code: any name that `torch._dynamo.list_backends` knows."""
    target_options: Mapping[str, Any] = field(default_factory=dict)
    """Passed on to the target; for Inductor, its configuration (`torch._inductor.list_options`)."""
    attention: bool = True
    """Rewrite attention written by hand to one fused call."""
    padding: str = "auto"
    """Compute the real tokens of a ragged batch only: "auto" where no output can tell, "remove"
    where the caller does not read padded rows of outputs either (they come as zeros), "off"."""
    demand: bool = True
    """What one token of each sequence is read of is computed for that token alone."""
    norm: str = "auto"
    """LayerNorms of branches that need no mean become RMSNorms ("rms") or CRMSNorms on a branch
    without its last channel ("crms"). "auto" reports where, and writes norms quicker for Inductor;
    "off" leaves norms alone."""
    disable: tuple[str, ...] = ()
    """Names of passes to leave out."""
    verify: bool = False
    """Check the first call of each variant, gradients included, against the unrewritten graph."""
    weights_budget: int | None = None
    """Bytes that prepared weights may take; None allows as many as the weights they come from."""

    def __post_init__(self) -> None:
        for name in ("attention", "demand", "verify"):
            _expect(name, getattr(self, name), bool, "True or False")
        _expect("target", self.target, str, "the name of a backend")
        _expect("target_options", self.target_options, Mapping, "a mapping of options")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise UnknownNameError(f"value of option {name!r}:", getattr(self, name), known)
        names: Any = self.disable
        if not isinstance(names, tuple) or not all(isinstance(n, str) for n in names):
            raise OptionError(f"option 'disable' takes a list of pass names, not {self.disable!r}")
        if self.weights_budget is not None:
            _expect("weights_budget", self.weights_budget, int, "a number of bytes or None")
            if isinstance(self.weights_budget, bool) or self.weights_budget < 0:
                raise OptionError(
                    f"option 'weights_budget' takes a number of bytes, not {self.weights_budget!r}"
                )

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> Options:
        """Options from what the user wrote. Raises UnknownNameError or OptionError."""
        given = {} if given is None else given
        _expect("options", given, Mapping, "a mapping of options")
        known = [f.name for f in fields(cls)]
        for name in given:
            if name not in known:
                raise UnknownNameError("option", name, known)
        values = dict(given)
        if isinstance(values.get("disable"), list | set | frozenset):
            values["disable"] = tuple(values["disable"])
        return cls(**values)


def _expect(name: str, value: object, kind: type, words: str) -> None:
    if not isinstance(value, kind):
        raise OptionError(f"option {name!r} takes {words}, not {value!r}")
