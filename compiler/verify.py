"""`verify=True`: the first call of each variant is checked against the unrewritten graph.

Values, in-place changes of the inputs, and gradients are compared, all on copies, so that the
user's tensors and random state are untouched. A variant that disagrees is never used: the
unrewritten graph runs in its place. It must not know what was rewritten.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .report import Reason
from .torch_compat import saved_tensor_hooks_hidden

# Largest difference that rounding explains, relative to the largest magnitude of the reference.
BOUNDS = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.float16: 2e-2,
    torch.bfloat16: 5e-2,
}


class Verified:
    """Runs `run`, once its first call has agreed with `reference` on the first `count` inputs.

    `tell` is called once: with None where both agree, or with the reason why not and the details.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        reference: Callable[..., Any],
        count: int,
        tell: Callable[[Reason | None, str], None],
    ) -> None:
        self._run = run
        self._reference = reference
        self._count = count
        self._tell = tell
        self._lock = threading.RLock()
        self._agrees: bool | None = None

    def __call__(self, *inputs: Any) -> Any:
        with self._lock:
            if self._agrees is None:
                self._agrees = False  # whoever comes back here while we check gets the reference
                self._check(inputs)
        if self._agrees:
            return self._run(*inputs)
        return self._reference(*inputs[: self._count])

    def _check(self, inputs: Sequence[Any]) -> None:
        try:
            difference = compare(self._run, self._reference, inputs, self._count)
        except Exception as error:  # if the inputs are at fault, the call itself will say so
            self._agrees = True
            self._tell(Reason.NOT_COMPARABLE, f"{type(error).__name__}: {error}")
            return
        self._agrees = difference is None
        self._tell(None if self._agrees else Reason.VERIFY_FAILED, difference or "")


def compare(
    run: Callable[..., Any], reference: Callable[..., Any], inputs: Sequence[Any], count: int
) -> str | None:
    """What differs between `run(*inputs)` and `reference(*inputs[:count])`, or None."""
    with torch.random.fork_rng(devices=[]), saved_tensor_hooks_hidden():
        got = _evaluate(run, inputs)
        want = _evaluate(reference, inputs[:count])
    for what in ("output", "input", "gradient"):
        # The variant has further inputs at the end: they have nothing to be compared with.
        if what != "input" and len(got[what]) != len(want[what]):
            return f"has {len(got[what])} {what}s, not {len(want[what])}"
        for i, (g, w) in enumerate(zip(got[what], want[what], strict=False)):
            difference = _difference(g, w)
            if difference is not None:
                return f"{what} {i} {difference}"
    return None


def _evaluate(function: Callable[..., Any], inputs: Sequence[Any]) -> dict[str, list[Any]]:
    """Outputs, inputs after the call, and gradients for fixed random cotangents."""
    leaves = [_copy(x) for x in inputs]
    # An operator may write in place to what is a leaf here and was none in the user's program.
    arguments = [
        x.clone() if isinstance(x, torch.Tensor) and x.requires_grad else x for x in leaves
    ]
    outputs = list(function(*arguments))
    wanted = [x for x in leaves if isinstance(x, torch.Tensor) and x.requires_grad]
    sources = [o for o in outputs if isinstance(o, torch.Tensor) and o.requires_grad]
    gradients: list[Any] = []
    if sources and wanted and torch.is_grad_enabled():
        generator = torch.Generator().manual_seed(0)
        cotangents = [
            torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o) for o in sources
        ]
        found = torch.autograd.grad(sources, wanted, cotangents, allow_unused=True)
        # no gradient and a gradient of zeros are the same to an optimiser
        gradients = [
            torch.zeros_like(x) if g is None else g for g, x in zip(found, wanted, strict=True)
        ]
    return {"output": outputs, "input": arguments, "gradient": gradients}


def _copy(x: Any) -> Any:
    """A leaf with the values, size and strides of `x`, in memory of its own."""
    if not isinstance(x, torch.Tensor):
        return x
    copy = torch.empty_strided(x.size(), x.stride(), dtype=x.dtype, device=x.device)
    overlaps = any(n > 1 and s == 0 for n, s in zip(x.size(), x.stride(), strict=True))
    if overlaps:  # an expanded tensor: copy each element that is there once
        once = tuple(slice(0, 1) if s == 0 else slice(None) for s in x.stride())
        copy[once].copy_(x.detach()[once])
    else:
        copy.copy_(x.detach())
    return copy.requires_grad_(x.requires_grad)


def _difference(got: Any, want: Any) -> str | None:
    if not isinstance(want, torch.Tensor):
        return None if type(got) is type(want) and got == want else f"is {got!r}, not {want!r}"
    if not isinstance(got, torch.Tensor):
        return f"is {got!r}, not a tensor"
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"is {got.dtype}{list(got.shape)}, not {want.dtype}{list(want.shape)}"
    if got.requires_grad != want.requires_grad:
        return f"{'has' if got.requires_grad else 'has not'} a gradient"
    got, want = (_dense(x.detach()) for x in (got, want))
    if not (want.is_floating_point() or want.is_complex()):
        return None if torch.equal(got, want) else "differs in whole numbers"
    if not torch.equal(got.isnan(), want.isnan()):
        return "is NaN in other places"
    got, want = got.nan_to_num(), want.nan_to_num()
    if want.numel() == 0:
        return None
    wide = torch.complex128 if want.is_complex() else torch.float64
    error = (got.to(wide) - want.to(wide)).abs().max().item()
    scale = want.abs().max().item() or 1.0
    bound = _bound(want)
    return None if error <= bound * scale else f"is off by {error / scale:.1e} of its magnitude"


def _dense(value: torch.Tensor) -> torch.Tensor:
    """The same numbers in a form that can be compared."""
    value = value.to_dense() if value.layout is not torch.strided else value
    return value.float() if value.is_floating_point() and value.itemsize == 1 else value


def _bound(value: torch.Tensor) -> float:
    """The bound of the value's dtype, or of autocast's where that rounds more."""
    bound = BOUNDS.get(value.dtype, 1e-4)
    kind = value.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        bound = max(bound, BOUNDS.get(torch.get_autocast_dtype(kind), bound))
    return bound
