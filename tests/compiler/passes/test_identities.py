"""remove_identities and remove_dead_code as Before / Expected."""

import torch
from torch.nn import functional as F

from formwright.compiler import Reason
from formwright.compiler.passes.dead_code import remove_dead_code
from formwright.compiler.passes.identities import remove_identities
from formwright.compiler.testing import assert_declines, assert_rewrites, capture_call, run_pass


def test_calls_that_return_their_argument_go():
    def before(x):
        x = F.dropout(x, 0.5, training=False)
        x = x.view(4, 6).expand(4, 6)[:, 0:6]
        return x.to(x.dtype) * 2

    def expected(x):
        return x * 2

    x = torch.randn(4, 6, requires_grad=True)
    assert_rewrites(remove_identities, before, expected, x, sites=5)


def test_what_changes_the_layout_stays():
    def before(x):
        return x.view(6, 4) * 1, x.t().contiguous() * 1, x[:, 1:] * 1, x.to(torch.float16) * 1

    captured, _ = capture_call(before, torch.randn(4, 6))

    assert run_pass(remove_identities, captured.module).sites == 0


def test_memory_that_is_written_stays():
    def before(x):
        x = x * 1
        y = x.view(4, 6)
        y.add_(1)
        return x + y

    assert_declines(remove_identities, before, torch.randn(4, 6), code=Reason.MUTATED)


def test_an_output_stays_a_tensor_of_its_own():
    def before(x):
        x = x * 1
        return x, x.view(4, 6)

    assert_declines(remove_identities, before, torch.randn(4, 6), code=Reason.ALIASES_OUTPUT)


def test_dead_chains_go_and_random_calls_stay():
    def before(x):
        y = torch.rand_like(x)
        (x.sin() + y).cos()
        return x + torch.rand_like(x)

    captured, real = capture_call(before, torch.randn(4, 6))
    torch.manual_seed(3)
    want = before(*real)
    outcome = run_pass(remove_dead_code, captured.module)
    torch.manual_seed(3)

    assert outcome.rewritten == 3  # sine, addition and cosine; the random call stays
    assert torch.equal(captured.module(*real)[0], want)


def test_a_write_is_not_dead():
    def before(x, cache):
        cache[0] = x.sum()
        return x * 2

    captured, real = capture_call(before, torch.ones(3), torch.zeros(2))
    run_pass(remove_dead_code, captured.module)
    names = [n.name for n in captured.module.graph.find_nodes(op="placeholder")]
    inputs = dict(zip(names, real, strict=True))
    inputs["l_cache_"].zero_()
    captured.module(*inputs.values())

    assert inputs["l_cache_"].tolist() == [3.0, 0.0]
