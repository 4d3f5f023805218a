"""What our backend adds: per call on a 12-layer model, and to the compile time, cold and cached.

Claims (README): a call costs less than 100 us more than the target alone; capture and passes take
less than 10 % of a cold compile; a second process starts no later than Inductor's plus 1 s.

    python benchmarks/overhead.py [--quick] [--out docs/measurements/overhead.json]

Each compile runs in a process of its own, ours and Inductor's in turn, with a cache folder that is
fresh for the cold run and kept for the second. Finished rounds of compiling are taken from the
output file if it was written on this kind of machine with these versions; costs per call are
always measured anew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

HERE = Path(__file__).resolve()
console = Console()


# --- the models ---------------------------------------------------------------------------------


def bert(layers: int, width: int) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    """A BERT with eager attention and a ragged mask."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=4,
        intermediate_size=4 * width,
        attn_implementation="eager",
    )
    mask = torch.ones(2, 32, dtype=torch.long)
    mask[0, 20:] = 0
    ids = torch.randint(config.vocab_size, (2, 32))
    return BertModel(config, add_pooling_layer=False).eval(), (ids,), {"attention_mask": mask}


class Adapted(nn.Module):
    """A Transformer encoder whose every linear weight carries a low-rank adapter: all of its
    weights are prepared, so this is the most that a freshness check can cost."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True, dropout=0.0),
            layers,
            enable_nested_tensor=False,
        )
        for module in list(self.encoder.modules()):
            for name, weight in list(module.named_parameters(recurse=False)):
                if weight.dim() == 2:
                    nn.utils.parametrize.register_parametrization(module, name, LowRank(weight))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x)  # type: ignore[no-any-return]


class LowRank(nn.Module):
    """W -> W + B A"""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(2, weight.shape[1]) * 0.01)
        self.b = nn.Parameter(torch.randn(weight.shape[0], 2) * 0.01)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.b @ self.a


# --- per call -----------------------------------------------------------------------------------


def per_call(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], train: bool, rounds: int
) -> dict[str, Any]:
    """Microseconds that our dispatcher adds to a call of the variant that it chooses."""
    from formwright.compiler import backend, dispatch

    made: list[dispatch.Dispatcher] = []
    original = dispatch.Dispatcher.__init__

    def keep(self: dispatch.Dispatcher, *given: Any) -> None:
        original(self, *given)
        made.append(self)

    dispatch.Dispatcher.__init__ = keep  # type: ignore[method-assign]
    seen: list[tuple[Any, ...]] = []

    def compile_and_look(gm: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        run = backend(gm, inputs, options={"target": "eager"})
        return lambda *values: seen.append(values) or run(*values)

    torch.compiler.reset()
    with torch.set_grad_enabled(train):
        torch.compile(model, backend=compile_and_look)(*args, **kwargs)
        (dispatcher,), values = made, seen[-1]
        dispatch.Dispatcher.__init__ = original  # type: ignore[method-assign]
        leaf = dispatcher.first
        leaf.executable = lambda *inputs: inputs[-1]  # what runs is not what is measured
        pairs = [
            (
                _microseconds(lambda: dispatcher(*values)),
                _microseconds(lambda: leaf.executable(*values)),
            )
            for _ in range(rounds)
        ]
    differences = [a - b for a, b in pairs]
    return {
        "variant": leaf.name,
        "inputs": len(values),
        "us_per_call": statistics.median(differences),
        "us_all": differences,
    }


def all_per_call(layers: int, width: int, rounds: int) -> dict[str, Any]:
    """The costs of the two derivations there are, on 12 layers each."""
    torch.manual_seed(0)
    adapted = Adapted(layers, width).eval()
    x = torch.randn(1, 8, width)
    model, args, kwargs = bert(layers, width)
    return {
        "every weight prepared, inference": per_call(adapted, (x,), {}, False, rounds),
        "a padding mask looked at, training": per_call(model.train(), args, kwargs, True, rounds),
    }


def _microseconds(run: Any, calls: int = 200) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - started) / calls * 1e6


# --- compile time -------------------------------------------------------------------------------


def compile_once(backend_name: str, layers: int, width: int) -> dict[str, float]:
    """Seconds of the first call in this process, and how much of it were capture and passes."""
    from formwright.compiler import collect

    model, args, kwargs = bert(layers, width)
    with torch.no_grad(), collect() as report:
        started = time.perf_counter()
        torch.compile(model, backend=backend_name)(*args, **kwargs)
        total = time.perf_counter() - started
    return {"total": total, "ours": sum(p.ms for p in report.passes) / 1e3}


def _in_a_process(backend_name: str, layers: int, width: int, cache: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, str(HERE), "--one", backend_name, str(layers), str(width)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache},
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def compile_round(layers: int, width: int) -> dict[str, dict[str, float]]:
    """One cold and one cached first call of each backend."""
    found = {}
    for name in ("formwright", "inductor"):
        with tempfile.TemporaryDirectory() as cache:
            for state in ("cold", "cached"):
                with console.status(f"{name}, {state}, {layers} layers"):
                    found[f"{name} {state}"] = _in_a_process(name, layers, width, cache)
    return found


# --- the table ----------------------------------------------------------------------------------


def summary(rounds: list[dict[str, dict[str, float]]]) -> dict[str, float]:
    """Medians over the rounds, of ratios and differences taken inside a round."""

    def median(function: Any) -> float:
        return statistics.median(function(r) for r in rounds)

    return {
        "ours_share_of_cold": median(
            lambda r: r["formwright cold"]["ours"] / r["formwright cold"]["total"]
        ),
        "cold_ratio_to_inductor": median(
            lambda r: r["formwright cold"]["total"] / r["inductor cold"]["total"]
        ),
        "cached_minus_inductor_s": median(
            lambda r: r["formwright cached"]["total"] - r["inductor cached"]["total"]
        ),
        "cached_ratio_to_inductor": median(
            lambda r: r["formwright cached"]["total"] / r["inductor cached"]["total"]
        ),
    }


def show(data: dict[str, Any]) -> None:
    table = Table("measure", "value", "goal", title="what our backend adds")
    for what, call in data["per_call"].items():
        name = f"us a call: {what} ({call['inputs']} inputs)"
        table.add_row(name, f"{call['us_per_call']:.0f}", "< 100")
    s = data["summary"]
    table.add_row("capture + passes / cold compile", f"{s['ours_share_of_cold']:.1%}", "< 10 %")
    table.add_row("cold compile / inductor", f"{s['cold_ratio_to_inductor']:.2f}", "")
    table.add_row("second process - inductor", f"{s['cached_minus_inductor_s']:+.2f} s", "< 1 s")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="one round on 2 layers")
    parser.add_argument("--out", type=Path, default=Path("docs/measurements/overhead.json"))
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        name, layers, width = given.one
        print(json.dumps(compile_once(name, int(layers), int(width))))
        return
    layers, width, rounds = (2, 64, 1) if given.quick else (12, 128, 5)
    data: dict[str, Any] = {"machine": machine(), "rounds": []}
    if given.out.exists() and not given.quick:
        earlier = json.loads(given.out.read_text(encoding="utf-8"))
        if earlier["machine"] == data["machine"]:  # else these are somebody else's numbers
            data = earlier
    data["per_call"] = all_per_call(layers, width, 5 if given.quick else 21)
    while len(data["rounds"]) < rounds:
        data["rounds"].append(compile_round(layers, width))
        save(data, given)
    save(data, given)
    show(data)


def save(data: dict[str, Any], given: argparse.Namespace) -> None:
    data["summary"] = summary(data["rounds"])
    if not given.quick:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    import formwright

    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "formwright": formwright.__version__,
    }


if __name__ == "__main__":
    main()
