"""The law as tests state it: compiled is as in eager, whatever was rewritten.

`four` makes inputs; `assert_lawful` compares values, strides, where NaN is, what wants a gradient,
the gradients, and what became of the inputs; `assert_expected` looks at the report. A backward pass
that raises in eager has to raise when compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from formwright.compiler import Reason, Report, collect
from formwright.compiler.backend import backend
from formwright.compiler.testing import FAILURES
from formwright.compiler.torch_compat import make_fx

Build = Callable[[], tuple[Sequence[torch.Tensor], Sequence[Any]]]
"""Makes the leaves that gradients are asked for, and the arguments made of them: each call of the
function gets its own, and they are alike."""


@dataclass(frozen=True)
class Ran:
    """What came of one call; `gradients` is None where the backward pass raised."""

    outputs: Sequence[Any]
    arguments: Sequence[Any]
    gradients: Sequence[torch.Tensor] | None


def nothing(*arguments: Any) -> None:
    """What happens between forward and backward, usually."""


def run(function: Callable[..., Any], build: Build, between: Callable[..., Any] = nothing) -> Ran:
    """Call `function`, then `between` with the same arguments, then the backward pass."""
    leaves, arguments = build()
    torch.manual_seed(1)
    found = function(*arguments)
    outputs = found if isinstance(found, tuple) else (found,)
    between(*arguments)
    sources = [o for o in outputs if o.requires_grad]
    wanted = [x for x in leaves if x.requires_grad]
    if not sources or not wanted:
        return Ran(outputs, arguments, ())
    torch.manual_seed(2)
    weights = [torch.randn_like(o) for o in sources]
    try:
        gradients = torch.autograd.grad(
            sources, wanted, weights, allow_unused=True, materialize_grads=True
        )
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        return Ran(outputs, arguments, None)
    return Ran(outputs, arguments, gradients)


def strides(x: torch.Tensor) -> list[int]:
    """The strides that matter: those of axes longer than one, of a tensor that is not empty."""
    return [s for n, s in zip(x.shape, x.stride(), strict=True) if n > 1 and x.numel()]


def shared(values: Sequence[Any]) -> list[list[bool]]:
    """Which values share memory with which, as far as they have any."""
    pointers = [x.untyped_storage().data_ptr() for x in values]
    return [[p == q != 0 for q in pointers] for p in pointers]


def assert_same(
    what: str, got: Sequence[Any], want: Sequence[Any], tolerance: float = 1e-10
) -> None:
    """Tensors equal up to `tolerance` of the largest magnitude in all of `want`; gradients may be
    laid out in their own way."""
    assert len(got) == len(want)
    finite = [w.detach()[w.isfinite()].double().abs() for w in want]
    largest = max((w.max().item() for w in finite if w.numel()), default=0.0)
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        assert g.requires_grad == w.requires_grad, f"{what} {i} wants a gradient"
        try:
            torch.testing.assert_close(g, w, rtol=0, atol=tolerance * largest, equal_nan=True)
            assert what == "gradient" or strides(g) == strides(w), (g.stride(), w.stride())
        except AssertionError as error:
            raise AssertionError(f"{what} {i}: {error}") from None


def through_dynamo(
    function: Callable[..., Any], build: Build, dynamic: bool | None = None, **options: Any
) -> Callable[..., Any]:
    """`function` as users compile it."""
    torch._dynamo.reset()
    return torch.compile(function, backend="formwright", options=options, dynamic=dynamic)


def without_dynamo(
    function: Callable[..., Any], build: Build, **options: Any
) -> Callable[..., Any]:
    """`function` traced by `make_fx` and given to the backend: in a fifth of the time."""

    def several(*arguments: Any) -> tuple[Any, ...]:
        found = function(*arguments)
        return found if isinstance(found, tuple) else (found,)

    traced = make_fx(several, pre_dispatch=True)(*build()[1])
    for node in traced.graph.nodes:
        if node.op == "call_function":
            node.meta["example_value"] = node.meta["val"]  # where Dynamo has the values it inferred
    return lambda *arguments: backend(traced, arguments, options=options)(*arguments)


def assert_lawful(
    function: Callable[..., Any],
    build: Build,
    *,
    between: Callable[..., Any] = nothing,
    tolerance: float = 1e-10,
    compile: Callable[..., Any] = through_dynamo,
    **options: Any,
) -> Report:
    """Compile `function` and compare; the report, for what was rewritten."""
    compiled = compile(function, build, **{"target": "eager", **options})
    want = run(function, build, between)
    with collect() as report:
        got = run(compiled, build, between)
    assert not FAILURES & {d.code for d in report.declines()}, report.declines()
    assert_same("output", got.outputs, want.outputs, tolerance)
    assert shared(got.outputs) == shared(want.outputs), "outputs share memory with others"
    assert_same("input", got.arguments, want.arguments, tolerance)
    assert (got.gradients is None) == (want.gradients is None), "one backward pass raised"
    assert_same("gradient", got.gradients or (), want.gradients or (), tolerance)
    return report


def four(*shape: int, train: bool = True, dtype: torch.dtype = torch.float64) -> Build:
    """q, k, v and x, all of one shape."""

    def build() -> tuple[Sequence[torch.Tensor], Sequence[Any]]:
        torch.manual_seed(0)
        made = [torch.randn(shape, dtype=dtype, requires_grad=train) for _ in range(4)]
        return made, made

    return build


FREE, NO_SITE = "free", "no site"
Expected = str | Reason | Sequence[Reason]


def assert_expected(report: Report, expected: Expected) -> None:
    """The attention sites were left alone for (one of) the reasons expected, there is NO_SITE, or
    they are FREE to be rewritten or not."""
    row = report.row("fuse_attention")
    assert report.row("capture").rewritten == report.graphs
    if expected == NO_SITE:
        assert row.sites == 0
    elif expected != FREE:
        assert row.sites > row.rewritten == 0
        codes = [expected] if isinstance(expected, Reason) else expected
        assert {d.code for d in row.declined} <= set(codes), row.declined


def look_alikes(rows: dict[str, tuple[Callable[..., Any], Expected]]) -> Callable[..., None]:
    """The test of a table of look-alikes: each is lawful, and reported as its row says."""

    @pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
    @pytest.mark.parametrize("name", rows)
    def test(name: str, train: bool) -> None:
        function, expected = rows[name]
        assert_expected(assert_lawful(function, four(4, 4, 4, 4, train=train)), expected)

    return test
