"""Every private module and function of Inductor that the compiler uses, in one file.

The counterpart of `torch_compat.py` for the code generator, which is loaded at first use. It must
not hold any logic that is not about its internals.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx
from torch._inductor.custom_graph_pass import CustomGraphPass

from .operators import MATERIALIZE


class _Ours(CustomGraphPass):
    """Does nothing but mark Inductor's cache keys: what it generates with its attention patterns
    off and with our lowerings is not what it generates by itself, or did before they changed."""

    def __call__(self, graph: fx.Graph) -> None:
        pass

    def uuid(self) -> str:
        return "formwright-2"


_patterns_off: contextvars.ContextVar[bool] = contextvars.ContextVar("patterns_off", default=False)


@functools.cache
def _gate_attention_patterns() -> None:
    """Make Inductor's attention patterns ask `_patterns_off` first.

    On torch 2.13 they skip the exact re-check of a serialized match, so look-alikes (softmax over
    another axis, a key permuted otherwise) are miscompiled (pytorch issues 195320, 196468). The
    gate is a context variable: compilations that are not ours are not touched. The patterns are
    gated when Inductor loads them, which a compilation served from the cache never does.
    """
    from torch._inductor.fx_passes import joint_graph

    load = joint_graph.lazy_init

    @functools.wraps(load)
    def load_and_gate(*args: Any, **keywords: Any) -> None:
        load(*args, **keywords)
        for matcher in (*joint_graph.pass_patterns, joint_graph.early_patterns):
            for entries in matcher.patterns.values():
                for entry in entries:
                    name = getattr(entry, "pattern_name", None) or ""
                    check: Any = getattr(entry, "extra_check", None)
                    if name.startswith("_sfdp_") and not hasattr(check, "gated"):
                        entry.extra_check = _gated(check)

    joint_graph.lazy_init = load_and_gate


def _gated(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def ask(match: Any) -> bool:
        return not _patterns_off.get() and check(match)

    ask.gated = True  # type: ignore[attr-defined]
    return ask


@contextmanager
def _attention_patterns_off() -> Iterator[None]:
    _gate_attention_patterns()
    token = _patterns_off.set(True)
    try:
        yield
    finally:
        _patterns_off.reset(token)


LANES = 16  # of the widest vector, in float32


@functools.cache
def _lower_our_operators() -> None:
    """Tell Inductor what `formwright::materialize` is.

    A value per row, [..., 1], is kept in the loop over rows only by a reduction along another axis:
    anything else is vectorized along the rows, in a loop of its own, and splits the norm into loops
    that each read all of x. So the value is spread over one vector, sixteenths of it, and summed up
    again, which is exact (a power of two), and takes some cycles for each row.
    """
    from torch._inductor.lowering import clone, expand, lowerings, mul, register_lowering

    sums = lowerings[torch.ops.aten.sum.dim_IntList]

    @register_lowering(MATERIALIZE, type_promotion_kind=None)
    def _(x: Any) -> Any:
        if x.get_device().type != "cpu":
            row = clone(x)
        else:
            spread = clone(expand(mul(x, 1 / LANES), [*x.get_size()[:-1], LANES]))
            spread.realize()
            row = sums(spread, [-1], True)
        row.realize()
        return row


def inductor_lower(
    graph: fx.GraphModule, inputs: Sequence[Any], config: dict[str, Any]
) -> Callable[..., Any]:
    """`graph` compiled by Inductor with its disk caches, its attention patterns switched off."""
    from torch._inductor.compile_fx import compile_fx

    _lower_our_operators()
    mine = _Ours()
    theirs = config.get("joint_custom_pre_pass") or ()
    passes = [*theirs, mine] if isinstance(theirs, list | tuple) else [theirs, mine]
    with _attention_patterns_off():
        compiled = compile_fx(
            graph, list(inputs), config_patches={**config, "joint_custom_pre_pass": passes}
        )
    return compiled  # type: ignore[return-value]


def inductor_option_names() -> list[str]:
    """The options that Inductor knows."""
    import torch._inductor

    return list(torch._inductor.list_options())


def inductor_mode(mode: str | None) -> dict[str, Any]:
    """The options that a `mode` of torch.compile stands for. Raises KeyError naming the modes."""
    import torch._inductor

    modes = torch._inductor.list_mode_options()
    if (mode or "default") not in modes:
        raise KeyError(sorted(modes))
    return dict(modes[mode or "default"])
