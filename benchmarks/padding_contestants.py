"""The contestants of padding.py: ragged batches, and who computes them how.

Shapes: B sequences, L padded length, T real tokens, D width, H heads, K head width.

    floor       the bare matrix products of the real tokens: what no encoder can be faster than
    attention   our packed attention of the same tokens alone, all layers
    ours        padding="remove"           off         the same backend, padding="off"
    inductor    the padded batch           trimmed     the batch cut to its longest sequence
    sorted      sorted by length in four batches, each cut to its longest, one dynamic program
    ort, openvino    the padded batch

A call returns the hidden states. It must not know how calls are timed.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)

from formwright.compiler.operators import token_rows, varlen_attention

Call = Callable[[], Any]
WIDTH, HEADS, MLP, LABELS = 768, 12, 3072, 9
BATCH = {128: 16, 256: 8, 512: 8, 1024: 4}
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """A cell. `kind`: encoder, classifier (on [CLS]) or training (of a token classifier)."""

    kind: str
    lengths: str
    length: int
    fill: float
    layers: int = 2

    @property
    def key(self) -> str:
        """Its name in the record."""
        return f"{self.kind}/{self.lengths}/{self.length}/{self.fill:g}"


def drawn(case: Case) -> Tensor:
    """The lengths of the sequences, int64 [B]; their mean is `fill` of the padded length."""
    batch, length = BATCH.get(case.length, 8), case.length
    noise = torch.Generator().manual_seed(7)
    if case.lengths == "equal":
        found = torch.full((batch,), 1.0)
    elif case.lengths == "uniform":
        low, high = max(0.02, 2 * case.fill - 1), min(1.0, 2 * case.fill)
        found = low + (high - low) * torch.rand(batch, generator=noise)
    else:
        found = torch.exp(0.6 * torch.randn(batch, generator=noise))
    for _ in range(50):  # scaled to the mean, as far as the padded length lets it
        found = (found * case.fill / found.mean()).clamp(max=1.0)
    return (found * length).round().long().clamp(1, length)


def inputs(case: Case) -> tuple[Tensor, Tensor]:
    """Ids and attention mask, int64 [B, L]."""
    torch.manual_seed(0)
    n = drawn(case)
    mask = (torch.arange(case.length) < n[:, None]).long()
    return torch.randint(1, 1000, mask.shape), mask


class Hidden(nn.Module):
    """The hidden states or logits of a model, alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """[B, L, D] or [B, labels]"""
        out: Tensor = self.model(input_ids=ids, attention_mask=mask, return_dict=False)[0]
        return out


def model(case: Case) -> nn.Module:
    """BERT-base layers with random weights."""
    torch.manual_seed(1)
    config = BertConfig(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        intermediate_size=MLP,
        num_hidden_layers=case.layers,
        vocab_size=1000,
        max_position_embeddings=1024,
        num_labels=LABELS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    if case.kind == "classifier":
        return Hidden(BertForSequenceClassification(config)).eval()
    if case.kind == "training":
        return BertForTokenClassification(config).train()
    return Hidden(BertModel(config, add_pooling_layer=False)).eval()


def names(case: Case) -> list[str]:
    """Who takes part. Eager comes first, because the others are compared to it."""
    if case.kind == "training":
        return ["eager", "ours", "inductor"]
    if case.kind == "classifier":
        return ["eager", "ours", "undemanded", "inductor"]
    if case.fill == 1.0:
        return ["eager", "ours", "inductor"]
    peers = ["inductor", "trimmed", "sorted", "ort", "openvino"]
    return ["eager", "floor", "attention", "ours", *peers]


def prepare(name: str, case: Case, threads: int, arena: bool = True) -> Call:
    """The call of one contestant, ready to run."""
    if name == "floor":
        return floor(case)
    if name == "attention":
        return attention(case)
    net, given = model(case), inputs(case)
    if case.kind == "training":
        return training(net, compiled(net, name), given)
    if name == "trimmed":
        longest = int(given[1].sum(1).max())
        given = given[0][:, :longest].contiguous(), given[1][:, :longest].contiguous()
    if name == "sorted":
        return by_length(net, given)
    if name in ("ort", "openvino"):
        return peer(name, net, given, threads, arena)
    return inference(compiled(net, name), given)


OURS: dict[str, dict[str, Any]] = {
    "ours": {"padding": "remove"},
    "off": {"padding": "off"},
    "undemanded": {"padding": "remove", "demand": False},
}


def compiled(net: nn.Module, name: str) -> Callable[..., Any]:
    """The model as this contestant runs it."""
    if name == "eager":
        return net
    if name in OURS:
        return torch.compile(net, backend="formwright", options=OURS[name])
    return torch.compile(net, backend="inductor")


def inference(run: Callable[..., Any], given: tuple[Tensor, ...]) -> Call:
    """A call under no_grad."""

    def call() -> Any:
        with torch.no_grad():
            return run(*given)

    return call


def training(net: nn.Module, run: Callable[..., Any], given: tuple[Tensor, Tensor]) -> Call:
    """Loss and gradients of a token classifier whose padding has the ignored label."""
    ids, mask = given
    torch.manual_seed(2)
    labels = torch.randint(0, LABELS, ids.shape).masked_fill(mask == 0, -100)
    weights = list(net.parameters())

    def call() -> list[Tensor]:
        for weight in weights:
            weight.grad = None
        loss = run(input_ids=ids, attention_mask=mask, labels=labels, return_dict=False)[0]
        loss.backward()
        return [loss.detach(), *(w.grad for w in weights if w.grad is not None)]

    return call


def floor(case: Case) -> Call:
    """Six matrix products a layer, on T rows."""
    tokens = int(drawn(case).sum())
    narrow, wide = torch.randn(tokens, WIDTH), torch.randn(tokens, MLP)
    square = [torch.randn(WIDTH, WIDTH) for _ in range(4)]
    up, down = torch.randn(MLP, WIDTH), torch.randn(WIDTH, MLP)

    def call() -> None:
        for _ in range(case.layers):
            for weight in (*square, up):
                linear(narrow, weight)
            linear(wide, down)

    return call


def attention(case: Case) -> Call:
    """Our operator on q, k and v as a model lays them out."""
    keep = inputs(case)[1].bool()
    rows, _, position, starts = token_rows(keep)
    parts = [torch.randn(len(rows), WIDTH).view(-1, HEADS, WIDTH // HEADS) for _ in range(3)]
    places = starts, starts, position, position, None, None
    scale = 1 / math.sqrt(WIDTH // HEADS)

    def call() -> None:
        for _ in range(case.layers):
            varlen_attention(*parts, *places, scale)

    return call


def by_length(net: nn.Module, given: tuple[Tensor, Tensor], batches: int = 4) -> Call:
    """What careful users do by hand: batches of similar lengths, each cut to its longest."""
    ids, mask = given
    lengths = mask.sum(1)
    parts = []
    for chosen in lengths.argsort().chunk(batches):
        longest = int(lengths[chosen].max())
        parts.append((chosen, ids[chosen, :longest], mask[chosen, :longest]))
    run = torch.compile(net, backend="inductor", dynamic=True)

    def call() -> Tensor:
        with torch.no_grad():
            out = torch.zeros(*ids.shape, WIDTH)
            for chosen, some, theirs in parts:
                out[chosen, : some.shape[1]] = run(some, theirs)
            return out

    return call


def peer(name: str, net: nn.Module, given: tuple[Tensor, ...], threads: int, arena: bool) -> Call:
    """ONNX Runtime and OpenVINO on the exported model."""
    from attention_contestants import onnxruntime, openvino

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        with torch.no_grad():
            program = torch.onnx.export(net, given, dynamo=True, verbose=False)
        if program is None:
            raise RuntimeError("torch.onnx.export returned nothing")
        program.save(str(path), external_data=True)
        if name == "ort":
            return onnxruntime(path, given, threads, arena)
        return openvino(path, given, threads)


def apart(found: Any, expected: Any, case: Case) -> float:
    """The largest difference at real tokens, in parts of the largest value."""
    if isinstance(found, list) and case.kind != "training":
        found = found[0]
    if case.kind == "encoder":
        mask = inputs(case)[1].bool()
        mine = torch.zeros_like(expected)
        mine[:, : found.shape[1]] = found
        found, expected = [mine[mask]], [expected[mask]]
    elif case.kind == "classifier":
        found, expected = [found], [expected]
    # some gradients are zero but for rounding (that of a bias of keys): no measure for themselves
    largest = max(e.abs().max().item() for e in expected)
    parts = [(f - e).abs().max().item() for f, e in zip(found, expected, strict=True)]
    return float("inf") if any(p != p for p in parts) else max(parts) / largest
