"""Facts about mutation, aliasing and state."""

import torch

from formwright.compiler.facts import Facts
from formwright.compiler.graph import op_name
from formwright.compiler.testing import capture_call


def facts_of(function, *inputs):
    captured, _ = capture_call(function, *inputs)
    facts = Facts(captured.module.graph)
    named = {}
    for node in captured.module.graph.nodes:
        key = node.name if node.op != "call_function" else op_name(node).split(".")[0]
        named.setdefault(key, node)
    return facts, named


def test_views_share_memory_and_computed_values_do_not():
    facts, n = facts_of(lambda x: (x.view(6).unsqueeze(0), x.exp()), torch.randn(2, 3))

    assert facts.may_alias(n["l_x_"], n["unsqueeze"])
    assert facts.is_view_of_input(n["unsqueeze"])
    assert not facts.may_alias(n["l_x_"], n["exp"])
    assert facts.reaches_output(n["exp"])


def test_a_write_through_a_view_is_a_write_to_the_whole():
    def function(x):
        y = x * 2
        s = y.sin()
        y[0].add_(1)
        return y, s

    facts, n = facts_of(function, torch.randn(2, 3))

    assert facts.is_written(n["mul"])
    assert not facts.is_written(n["sin"])
    assert facts.written_between([n["mul"]], n["sin"], facts.output) is n["add_"]
    assert facts.written_between([n["mul"]], n["add_"], facts.output) is None
    assert facts.written_between([n["sin"]], n["mul"], facts.output) is None


def test_inputs_of_the_caller_may_overlap_anything_and_weights_only_what_they_do_now():
    linear = torch.nn.Linear(3, 3)

    def function(x, y):
        y.add_(1)
        return linear(x) + y

    facts, n = facts_of(function, torch.randn(2, 3), torch.randn(2, 3))
    weight = next(i for i in facts.inputs if i.meta["weight"])

    assert facts.is_written(n["l_x_"])
    assert facts.is_written(weight)  # the caller may pass a view of it

    class Counter(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(4))
            self.register_buffer("same", self.count.view(2, 2))
            self.register_buffer("other", torch.zeros(4))

        def forward(self, x):
            self.count.add_(1)
            return x + self.other + self.same.sum()

    facts, n = facts_of(Counter(), torch.randn(4))
    written = {i.name.rsplit("_buffers_")[-1]: facts.is_written(i) for i in facts.inputs}
    assert written == {"count_": True, "same_": True, "other_": False, "l_x_": True}


def test_dropout_that_is_off_hands_its_argument_back():
    def function(x):
        return torch.nn.functional.dropout(x, 0.5, training=False) * 2

    facts, n = facts_of(function, torch.randn(3))

    assert facts.may_alias(n["l_x_"], n["dropout"])
    assert not facts.is_random


def test_random_graphs_are_known():
    assert facts_of(lambda x: torch.rand_like(x) + x, torch.randn(3))[0].is_random
    assert facts_of(lambda x: torch.nn.functional.dropout(x, 0.5), torch.randn(3))[0].is_random
    assert not facts_of(lambda x: x + 1, torch.randn(3))[0].is_random


def test_gradients_are_recorded_only_where_they_are_wanted():
    x = torch.randn(3, requires_grad=True)

    assert facts_of(lambda x: x + 1, x)[0].records_gradients
    assert not facts_of(lambda x: x + 1, x.detach())[0].records_gradients
    with torch.no_grad():
        assert not facts_of(lambda x: x + 1, x)[0].records_gradients

        def enabling(x):
            with torch.enable_grad():
                return x + 1

        assert facts_of(enabling, x)[0].records_gradients
