"""Latency: of the rewritten graph, checked against eager, and leaving the process as it was."""

import gc
import json
from importlib import import_module

import pytest
import torch
from torch import nn

from formwright.errors import FormwrightError
from formwright.search import EvaluationError
from formwright.search.evaluate import latency
from formwright.search.evaluate.failure import Deadline
from formwright.search.evaluate.latency import REFERENCE, TIMES, check_target, measure
from formwright.search.evaluate.machine import (
    Machine,
    conditions,
    cpu_quota,
    machine,
    usable_cores,
)
from formwright.search.evaluate.quiet import VARIABLE
from formwright.search.evaluate.timing import LEAST
from formwright.search.objective import METRICS


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    monkeypatch.setattr(latency, "AIM_S", 0.01)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "quiet"))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 10)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, 4, 4).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(-2, -1) * 0.5, dim=-1)
        return self.out((weights @ v).transpose(1, 2).reshape(b, t, 16).mean(1))


class Tokens(nn.Module):
    """[B, T] -> [B, T, 7]"""

    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(7, 16), nn.Linear(16, 7)

    def forward(self, tokens):
        return self.out(self.table(tokens))


def run(model=None, example=None, *, target="eager", threads=1, deadline=None, wanted=()):
    return measure(
        model or Attention(),
        torch.randn(8, 12, 16) if example is None else example,
        target=target,
        threads=threads,
        deadline=deadline or Deadline.after(600),
        wanted=wanted,
    )


def row(report, name):
    return next(r for r in report["passes"] if r["name"] == name)


def test_what_is_measured_is_the_rewritten_graph():
    measured = run()

    assert row(measured.report, "fuse_attention")["rewritten"] == 1
    assert measured.report["graphs"] == 1
    assert measured.graph_hash == measured.report["graph_hash"] != ""
    json.dumps(measured.report, allow_nan=False)
    assert 0 < measured.median_ms <= measured.p95_ms
    assert measured.samples >= LEAST
    assert measured.batch == 8


def test_values_are_metrics_and_belong_together():
    measured = run(wanted=TIMES)
    values = measured.values()

    assert set(values) == set(TIMES) < {name for name, m in METRICS.items() if m.of_machine}
    assert values["latency_ms"] == measured.median_ms
    assert values["latency_ratio"] == measured.times.ratio
    assert values["throughput"] * values["latency_ms"] == pytest.approx(8 * 1e3)
    assert measured.peak_bytes is None


def test_the_record_says_what_a_latency_depends_on():
    measured = run()
    record = measured.record()

    json.dumps(record, allow_nan=False)
    assert record["graph_hash"] == measured.report["graph_hash"]
    assert record["reference"] == REFERENCE
    assert record["samples"] == measured.samples
    assert {"batch", "clock", "disturbed", "governor", "page_faults", "quota"} < set(record)
    assert {"cpu", "cores", "threads", "torch", "formwright", "target", "fingerprint"} == set(
        measured.machine.to_dict()
    )


def test_tokens_in_and_something_for_each_token_out():
    measured = run(Tokens(), torch.randint(7, (3, 5)), wanted=["peak_bytes"])

    assert measured.batch == 3
    embedded, logits = 3 * 5 * 16 * 4, 3 * 5 * 7 * 4
    assert measured.peak_bytes >= embedded + logits
    assert measured.values()["peak_bytes"] == measured.peak_bytes


def test_the_process_is_left_as_it_was():
    threads, collecting = torch.get_num_threads(), gc.isenabled()
    seen = []

    class Looking(Attention):
        def forward(self, x):
            seen.append((torch.get_num_threads(), torch.is_grad_enabled(), self.training))
            return super().forward(x)

    with torch.compiler.set_stance("default"):
        measured = run(Looking(), threads=threads + 1)

    assert set(seen) == {(threads + 1, False, False)}
    assert measured.machine.threads == threads + 1
    assert torch.get_num_threads() == threads
    assert gc.isenabled() == collecting
    assert torch.is_grad_enabled()


@torch._dynamo.config.patch(recompile_limit=2)
def test_many_models_of_one_class_are_each_compiled():
    for place in range(4):  # beyond Dynamo's limit of recompilations
        model = nn.Sequential(*(Attention() if at == place else nn.Identity() for at in range(4)))
        assert row(run(model).report, "fuse_attention")["rewritten"] == 1


def test_an_unknown_target_is_told_in_our_words():
    words = r"^unknown target 'inductro'; known: .*aot_eager.*….*\. Did you mean 'inductor'\?$"
    with pytest.raises(EvaluationError, match=words):
        run(target="inductro")
    with pytest.raises(FormwrightError, match="Did you mean 'inductor'"):
        check_target("inductro")


def test_another_answer_is_no_measurement():
    class Random(Attention):
        def forward(self, x):
            return super().forward(x) + torch.rand(10)

    with pytest.raises(EvaluationError, match="gives another answer: up to"):
        run(Random())


def test_large_outputs_may_be_rounded_and_small_ones_no_more_than_they_were():
    class Off(Attention):
        """By a thousandth of the largest output, each call the other way."""

        def __init__(self, by):
            super().__init__()
            self.by, self.calls = by, 0

        @torch.compiler.disable
        def error(self):
            self.calls += 1
            return self.by * (-1) ** self.calls

        def forward(self, x):
            return 1e4 + super().forward(x) * 0 + self.error()

    assert run(Off(4.0)).samples >= LEAST
    with pytest.raises(EvaluationError, match="another answer: up to 16 away"):
        run(Off(8.0))


def test_what_is_not_a_number_is_no_answer():
    class Gone(Attention):
        def forward(self, x):
            return super().forward(x) * float("nan")

    with pytest.raises(EvaluationError, match="returns what is not a number"):
        run(Gone())


def test_if_nothing_is_compiled_nothing_is_measured():
    with torch.compiler.set_stance("force_eager"), pytest.raises(EvaluationError, match="nothing"):
        run()


@pytest.mark.filterwarnings("ignore:formwright could not rewrite")
def test_where_our_compiler_fails_the_target_is_measured_and_the_report_says_so(monkeypatch):
    def fail(*_):
        raise RuntimeError("ours")

    monkeypatch.setattr(import_module("formwright.compiler.backend"), "capture", fail)
    measured = run()
    (declined,) = row(measured.report, "capture")["declined"]
    assert declined["code"] == "internal_error"
    assert measured.median_ms > 0


def test_the_time_limit():
    with pytest.raises(EvaluationError, match=r"took longer than 5 s \(compiling\)"):
        run(deadline=Deadline(0.0, 5))


@pytest.mark.inductor
def test_with_inductor():
    measured = run(target="inductor")
    assert row(measured.report, "fuse_attention")["rewritten"] == 1
    assert {v["state"] for v in measured.report["variants"]} == {"compiled"}
    assert measured.machine.target == "inductor"


def test_a_fingerprint_is_pinned():
    there = Machine("cpu", 2, 1, "2.13.0", "0.1.0", "eager")
    assert there.fingerprint == (
        "m1:0f484ffc85b8fb3d3e7341c3d76c3832e68334ba05a45907c6e2f46c61105dcb"
    )
    assert there.to_dict() == {
        "cpu": "cpu",
        "cores": 2,
        "threads": 1,
        "torch": "2.13.0",
        "formwright": "0.1.0",
        "target": "eager",
        "fingerprint": there.fingerprint,
    }


def test_this_machine():
    here = machine(1, "eager")
    assert here == machine(1, "eager")
    assert here.cpu
    assert here.cores == usable_cores() >= 1
    assert here.torch == torch.__version__
    prints = {here.fingerprint, machine(2, "eager").fingerprint, machine(1, "x").fingerprint}
    assert len(prints) == 3


def test_conditions_are_no_part_of_the_fingerprint():
    now = conditions()
    assert set(now.to_dict()) == {"governor", "quota", "load"}
    assert now.quota is None or now.quota > 0
    assert now.governor is None or now.governor.isprintable()
    assert not set(now.to_dict()) & set(machine(1, "eager").to_dict())


def test_cgroup_quotas(tmp_path):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("max 100000\n")
    assert cpu_quota(["0::/a/b"], tmp_path) is None
    (tmp_path / "a" / "cpu.max").write_text("150000 100000\n")
    assert cpu_quota(["0::/a/b"], tmp_path) == 1.5
    assert cpu_quota(["0::/elsewhere"], tmp_path) is None

    old = tmp_path / "cpu,cpuacct" / "job"
    old.mkdir(parents=True)
    (old / "cpu.cfs_quota_us").write_text("-1\n")
    (old / "cpu.cfs_period_us").write_text("100000\n")
    lines = ["4:memory:/job", "3:cpu,cpuacct:/job"]
    assert cpu_quota(lines, tmp_path) is None
    (old / "cpu.cfs_quota_us").write_text("50000\n")
    assert cpu_quota(lines, tmp_path) == 0.5
