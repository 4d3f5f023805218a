"""The contestants of attention.py: each makes a case's model ready and returns a call of it.

A call returns what it computed, as a list of tensors: the output, and in training the gradients.
Every contestant gets the same weights, inputs and number of threads. It must not know how calls
are timed. `hand`, `oracle` and `dense` are explained in attention_models.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from attention_models import Case, inputs, make
from torch import Tensor, nn

Call = Callable[[], list[Tensor]]
TOLERANCE = 1e-4  # of the largest difference to eager, in parts of the largest value; see `apart`


def names(case: Case) -> list[str]:
    """Who takes part. Eager comes first, because the others are compared to it."""
    found = ["eager", "ours", "inductor", "oracle"]
    if "dense" in case.spellings:
        found.append("sdpa-dense")
    return found if case.trains else [*found, "ort", "openvino"]


def prepare(name: str, case: Case, threads: int, arena: bool = True) -> Call:
    """The call of one contestant. torch's compile at the first call of it, the others here.
    `arena=False` keeps ONNX Runtime from holding on to memory between calls."""
    if name in ("ort", "openvino"):
        with tempfile.TemporaryDirectory() as folder:
            path = export(case, Path(folder) / "model.onnx")
            given = inputs(case)
            if name == "ort":
                return onnxruntime(path, given, threads, arena)
            return openvino(path, given, threads)
    spelling = {"oracle": "oracle", "sdpa-dense": "dense"}.get(name, "hand")
    model = make(case, spelling)
    backend = {"eager": None, "ours": "formwright"}.get(name, "inductor")
    run = model if backend is None else torch.compile(model, backend=backend)
    return training(model, run, case) if case.trains else inference(run, case)


def inference(run: Callable[..., Any], case: Case) -> Call:
    given = inputs(case)

    def call() -> list[Tensor]:
        with torch.no_grad():
            return [run(*given)]

    return call


def training(model: nn.Module, run: Callable[..., Any], case: Case) -> Call:
    given, weights = inputs(case), list(model.parameters())

    def call() -> list[Tensor]:
        for weight in weights:
            weight.grad = None
        out = run(*given)
        out.square().mean().backward()
        return [out.detach(), *(w.grad for w in weights if w.grad is not None)]

    return call


def apart(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference, each in parts of the largest value of its tensor."""
    if [f.shape for f in found] != [e.shape for e in expected]:
        return float("inf")
    pairs = zip(found, expected, strict=True)
    parts = [((f - e).abs().max() / e.abs().max().clamp(min=1e-12)).item() for f, e in pairs]
    return float("inf") if any(p != p for p in parts) else max(parts)


# --- the peers ----------------------------------------------------------------------------------


def export(case: Case, path: Path) -> Path:
    """The model written by hand as an ONNX file, its weights beside it."""
    with torch.no_grad():
        program = torch.onnx.export(make(case, "hand"), inputs(case), dynamo=True, verbose=False)
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    program.save(str(path), external_data=True)
    return path


def onnxruntime(path: Path, given: tuple[Tensor, ...], threads: int, arena: bool) -> Call:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_cpu_mem_arena = arena
    # its threads spin while it computes, as by default, but not into the call of the next one
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feeds = _feeds([i.name for i in session.get_inputs()], given)

    def call() -> list[Tensor]:
        return [torch.from_numpy(session.run(None, feeds)[0])]

    return call


def openvino(path: Path, given: tuple[Tensor, ...], threads: int) -> Call:
    import openvino as ov

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = ov.Core().compile_model(str(path), "CPU", settings)
    request = compiled.create_infer_request()
    feeds = _feeds([i.any_name for i in compiled.inputs], given)

    def call() -> list[Tensor]:
        # the result is handed out without a copy and read before the next call
        return [torch.from_numpy(request.infer(feeds, share_inputs=True, share_outputs=True)[0])]

    return call


def _feeds(wanted: list[str], given: tuple[Tensor, ...]) -> dict[str, Any]:
    if len(wanted) != len(given):
        raise RuntimeError(f"the exported model wants {wanted}, not {len(given)} inputs")
    return {name: tensor.numpy() for name, tensor in zip(wanted, given, strict=True)}
