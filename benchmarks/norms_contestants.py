"""What `norms.py` measures: norms alone and with the linear that reads them, and whole models.

Shapes: T rows, D wide. A kernel cell compiles each function for its shape; a model cell compiles
one transformers model, random weights, in inference or a training step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch.nn import functional as F

import formwright.compiler  # noqa: F401  (registers the backend and the operators)

EPS = 1e-5
Call = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """A cell: a kernel of `rows` by `width`, or a model by name."""

    kind: str
    rows: int
    width: int
    training: bool = False

    @property
    def key(self) -> str:
        """kind/rows/width, and /training"""
        return f"{self.kind}/{self.rows}/{self.width}" + "/training" * self.training


# --- kernels ------------------------------------------------------------------------------------


def layer(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], w, b, EPS)


def rms(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, x.shape[-1:], None, EPS)  # weight and bias are folded into the reader


def crms(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """x [T, D - 1], as `shorten_norms` writes it."""
    squares, last = (x * x).sum(-1, keepdim=True), x.sum(-1, keepdim=True)
    root = torch.rsqrt((squares + last * last) / (x.shape[-1] + 1) + EPS)
    return x * torch.ops.formwright.materialize(root)


def copy(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return x.clone()


FUNCTIONS = {"copy": copy, "layer": layer, "rms": rms, "crms": crms}
BACKENDS = ("inductor", "ours")


def kernels(case: Case) -> dict[str, Call]:
    """Each norm under each backend, alone and (+) with a linear [D, D] that reads it."""
    found: dict[str, Call] = {}
    for name, function in FUNCTIONS.items():
        for backend in BACKENDS:
            width = case.width - (name == "crms")
            if name == "crms" and backend == "inductor":
                continue
            torch.manual_seed(0)
            x, w, b = torch.randn(case.rows, width), torch.rand(width), torch.randn(width)
            weight, bias = torch.randn(case.width, width) / width**0.5, torch.randn(case.width)

            def read(x, w, b, weight, bias, function=function):  # type: ignore[no-untyped-def]
                return F.linear(function(x, w, b), weight, bias)

            for label, body, args in (
                (f"{backend} {name}", function, (x, w, b)),
                (f"{backend} {name}+", read, (x, w, b, weight, bias)),
            ):
                found[label] = compiled(body, backend, args)
    return found


def compiled(function: Any, backend: str, args: Any, options: Any = None) -> Call:
    """A call of `function(*args)` compiled for these sizes, once run."""
    torch.compiler.reset()
    name = "formwright" if backend == "ours" else backend
    run = torch.compile(function, backend=name, dynamic=False, options=options)
    with torch.no_grad():
        run(*args)

    def call() -> Any:
        with torch.no_grad():
            return run(*args)

    return call


# --- models -------------------------------------------------------------------------------------

LAYERS = 4
NORMS = {"ours auto": "auto", "ours off": "off", "ours rms": "rms", "ours crms": "crms"}


def model(case: Case) -> tuple[torch.nn.Module, torch.Tensor]:
    """A model of `width` and its input of `rows` tokens in all."""
    torch.manual_seed(0)
    heads = case.width // 64
    sizes = {
        "hidden_size": case.width,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": heads,
        "intermediate_size": 4 * case.width,
    }
    if case.kind == "vit":
        config = transformers.ViTConfig(**sizes)
        made: Any = transformers.ViTModel(config, add_pooling_layer=False)
        return made, torch.randn(case.rows // 197, 3, 224, 224)
    text = {**sizes, "vocab_size": 1000, "use_cache": False}
    if case.kind == "llama":
        made = transformers.LlamaModel(transformers.LlamaConfig(**text))
    else:
        drops = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        made = transformers.GPT2Model(transformers.GPT2Config(**text, **drops))
    length = min(case.rows, 256)
    return made, torch.randint(0, 1000, (case.rows // length, length))


def models(case: Case) -> dict[str, Call]:
    """The model under Inductor, and under each value of `norm`."""
    made, x = model(case)
    made.train(case.training)
    found: dict[str, Call] = {}
    for name, norm in {"inductor": None, **NORMS}.items():
        torch.compiler.reset()
        backend = "inductor" if norm is None else "formwright"
        options = None if norm is None else {"norm": norm, "padding": "off"}
        run = torch.compile(made, backend=backend, dynamic=False, options=options)
        found[name] = step(run, made, x) if case.training else inference(run, x)
        found[name]()
    return found


def inference(run: Any, x: torch.Tensor) -> Call:
    def call() -> Any:
        with torch.no_grad():
            return run(x)[0]

    return call


def step(run: Any, made: torch.nn.Module, x: torch.Tensor) -> Call:
    def call() -> None:
        made.zero_grad(set_to_none=True)
        run(x)[0].square().mean().backward()

    return call
