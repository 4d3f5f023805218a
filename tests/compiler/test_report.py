"""The report and the ways to get one: collect, explain, the command line, the dumps."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import formwright
from formwright.__main__ import main
from formwright.compiler import Reason, Report, collect, explain


class LookAlike(nn.Module):
    """Attention normalised over the queries: not attention."""

    def forward(self, x):
        scores = x @ x.transpose(-1, -2) / 4
        return F.softmax(scores, dim=-2) @ x


def look_alike():
    return LookAlike(), (torch.randn(2, 2, 8, 4),)


def test_the_format_is_as_documented():
    report = explain(LookAlike(), torch.randn(2, 2, 8, 4))
    data = json.loads(json.dumps(report.to_dict()))

    assert set(data) == {"graphs", "graph_hash", "variants", "prepared_bytes", "passes"}
    assert {"name", "sites", "rewritten", "declined", "ms"} == set(data["passes"][0])
    (row,) = [p for p in data["passes"] if p["name"] == "fuse_attention"]
    (declined,) = row["declined"]
    assert set(declined) == {"where", "op", "source", "code", "reason"}
    assert declined["code"] == "other_axis"
    assert declined["op"] == "softmax.int"
    assert "test_report.py:" in declined["source"]
    assert (row["sites"], row["rewritten"]) == (1, 0)
    assert data["graphs"] == 1
    assert data["variants"] == [{"graph": 0, "name": "general", "state": "analysed"}]


def test_the_table_says_what_was_left_and_why():
    text = str(explain(LookAlike(), torch.randn(2, 2, 8, 4)))

    for words in ("1 graph", "fuse_attention", "left as it was", "other_axis", "over another axis"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 110


def test_every_reason_is_documented():
    root = os.path.dirname(formwright.__file__)
    with open(os.path.join(root, "docs", "reasons.md"), encoding="utf-8") as f:
        text = f.read()

    missing = [r.value for r in Reason if f"`{r.value}`" not in text]
    assert missing == []


def test_the_innermost_collect_gets_the_graph(compile_eager):
    with collect() as outer:
        with collect() as inner:
            compile_eager(lambda x: x + 1)(torch.ones(2))
        assert (outer.graphs, inner.graphs) == (0, 1)


def test_the_hash_tells_graphs_apart():
    hashes = {
        explain(function, torch.ones(2)).graph_hash
        for function in (lambda x: x + 1, lambda x: x + 2, lambda x: x + 1)
    }
    assert len(hashes) == 2


def test_explain_leaves_what_is_compiled_alone(zoo, compile_eager):
    model, args, kwargs = zoo["bert"]()
    compiled = compile_eager(model.eval())
    limit = torch._dynamo.config.patch(recompile_limit=2)
    with torch.no_grad(), collect() as report, limit:
        compiled(*args, **kwargs)
        for _ in range(4):  # more often than Dynamo recompiles one function
            assert explain(model, *args, **kwargs).row("fuse_attention").rewritten == 2
        compiled(*args, **kwargs)

    assert report.graphs == 1


def test_explain_takes_the_options_of_a_compiled_model(zoo):
    model, args, kwargs = zoo["bert"]()
    compiled = torch.compile(model.eval(), backend="formwright", options={"attention": False})
    with torch.no_grad():
        report = explain(compiled, *args, **kwargs)

    assert "fuse_attention" not in [p.name for p in report.passes]


def test_explain_counts_the_graphs_of_a_model_with_breaks():
    def function(x):
        x = x.sin()
        torch._dynamo.graph_break()
        return x.cos()

    assert explain(function, torch.ones(2)).graphs == 2


def test_disabled_passes_do_not_run(compile_eager):
    with collect() as report:
        compile_eager(lambda x: x + 1, disable=["fuse_attention", "hoist_weights"])(torch.ones(2))

    names = {p.name for p in report.passes}
    assert "remove_identities" in names
    assert not names & {"fuse_attention", "hoist_weights"}


def test_an_empty_report_prints():
    assert "0 graphs" in str(Report())


def test_the_command_line_prints_the_report(capsys, monkeypatch, tmp_path):
    (tmp_path / "factory_module.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def linear():\n    return nn.Linear(3, 3), torch.ones(2, 3)\n"
        "def bare():\n    return nn.Linear(3, 3)\nx = 3\n"
    )
    monkeypatch.chdir(tmp_path)

    assert main(["compile-report", "factory_module:linear"]) == 0
    assert "1 graph ·" in capsys.readouterr().out
    assert main(["compile-report", "factory_module:linear", "--train", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["graphs"] == 1


BAD_CALLS = {
    "no such module": (["compile-report", "no_such_module:f"], "cannot import 'no_such_module'"),
    "no colon": (["compile-report", "json"], "not of the form module:factory"),
    "no such factory": (["compile-report", "json:dum"], "has no factory 'dum'; callables: "),
    "not a model": (["compile-report", "builtins:dict"], "returned dict, not a torch.nn.Module"),
    "an unknown option": (
        ["compile-report", "torch.nn:Identity", "--options", '{"attention ": 1}'],
        "unknown option",
    ),
    "options that are not JSON": (
        ["compile-report", "torch.nn:Identity", "--options", "{"],
        "--options is not JSON",
    ),
    "a factory that fails": (["compile-report", "json:loads"], "json:loads failed: TypeError"),
    "a model without inputs": (
        ["compile-report", "torch.nn:Identity"],
        "the model failed on the inputs of torch.nn:Identity: TypeError",
    ),
    "an unknown command": (["compile"], "unknown command 'compile'; known: backup, best, blocks"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls_say_what_is_wrong(name, capsys):
    arguments, message = BAD_CALLS[name]

    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_help_needs_no_torch():
    code = "import sys\nfrom formwright.__main__ import main\n"
    code += "main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "compile-report" in done.stdout
    assert done.stdout.strip().endswith("False")


def test_graphs_are_dumped_before_and_after(monkeypatch, tmp_path, compile_eager, zoo):
    monkeypatch.setenv("FORMWRIGHT_DUMP", str(tmp_path))
    model, args, kwargs = zoo["bert"]()
    with torch.no_grad():
        compile_eager(model.eval())(*args, **kwargs)

    names = sorted(p.name for p in (tmp_path / "graph0").iterdir())
    assert names[0] == "00_captured.txt"
    assert "03_fuse_attention.txt" in names
    assert "softmax.int" in (tmp_path / "graph0" / "00_captured.txt").read_text()
    assert "formwright.attention" in (tmp_path / "graph0" / "03_fuse_attention.txt").read_text()


def test_torch_logs_show_graphs_and_report():
    code = "import torch\n"
    code += "torch.compile(lambda x: x * 1 + 1, backend='formwright', "
    code += "options={'target': 'eager'})(torch.ones(2))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "TORCH_LOGS": "+formwright"},
        check=True,
    )

    assert "captured" in done.stderr
    assert "1 graph ·" in done.stderr
