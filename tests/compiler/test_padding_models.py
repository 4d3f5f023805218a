"""Padding removal on third-party models: real rows as in eager, zeros elsewhere, gradients too.

Every model is compiled once per dtype and called with masks of all kinds, so the packed variant is
one program for every number of tokens.
"""

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F

from formwright.compiler import Reason, collect

pytestmark = pytest.mark.usefixtures("packs_always")

B, L = 4, 14
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}
TINY = {"vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "num_labels": 5,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    **TINY,
}
GPT2 = {
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 40,
    "use_cache": False,
    "attn_pdrop": 0.0,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "num_labels": 3,
    **TINY,
}
LLAMA = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    **TINY,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "use_cache": False,
    "num_labels": 3,
}
ENCODERS = {
    "bert": lambda: transformers.BertModel(transformers.BertConfig(**BERT), False),
    "distilbert": lambda: transformers.DistilBertModel(
        transformers.DistilBertConfig(
            dim=32, n_layers=2, n_heads=4, hidden_dim=48, dropout=0.0, attention_dropout=0.0, **TINY
        )
    ),
    "electra": lambda: transformers.ElectraModel(
        transformers.ElectraConfig(embedding_size=16, **BERT)
    ),
    "t5": lambda: transformers.T5EncoderModel(
        transformers.T5Config(
            d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, dropout_rate=0.0, **TINY
        )
    ),
    "gpt2": lambda: transformers.GPT2Model(transformers.GPT2Config(**GPT2)),
    "llama": lambda: transformers.LlamaModel(transformers.LlamaConfig(**LLAMA)),
}


def masks():
    """Right and left padding, holes, and a sequence of nothing but padding."""
    at, n = torch.arange(L), torch.tensor([L, 9, 1, 4])[:, None]
    right = at < n
    empty = right.clone()
    empty[2] = False
    holes = torch.rand(B, L) > 0.4
    holes[:, 5] = True
    return {"right": right, "left": right.flip(1), "holes": holes, "empty": empty}


def ids():
    return torch.randint(3, 50, (B, L))


def rewritten(report):
    """How many attentions were packed, and which variants there are."""
    row = next(p for p in report.passes if p.name == "remove_padding")
    return row.rewritten, [v.name.split("+")[0] for v in report.variants]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ENCODERS)
def test_real_rows_are_as_in_eager_and_the_others_zero(name, attention, compile_eager):
    torch.manual_seed(0)
    # Llama by hand takes its softmax in float32, which is another function in float64
    double = attention == "sdpa"
    dtype = torch.float64 if double else torch.float32
    model = ENCODERS[name]().to(dtype).train(double)
    model.set_attn_implementation(attention)
    weights = [w for w in model.parameters() if w.requires_grad]
    with collect() as report, torch.set_grad_enabled(model.training):
        packed = compile_eager(model, padding="remove")
        for kind, keep in masks().items():
            given = {"input_ids": ids(), "attention_mask": keep.long()}
            want, got = (f(**given)[0] for f in (model, packed))
            tolerance = TOLERANCE[dtype]
            assert torch.allclose(got[keep], want[keep], rtol=0, atol=tolerance), kind
            assert not got[~keep].any(), kind
            if model.training:
                g = torch.randn_like(want) * keep[..., None]
                both = (
                    torch.autograd.grad(y, weights, g, materialize_grads=True, allow_unused=True)
                    for y in (want, got)
                )
                for a, b in zip(*both, strict=True):
                    assert torch.allclose(a, b, rtol=1e-9, atol=1e-9), kind
    assert rewritten(report) == (2, ["packed"])


# --- models that read no padding: option "auto" ---------------------------------------------------


class SentenceEncoder(nn.Module):
    """The mean over the real tokens, normalised."""

    def __init__(self):
        super().__init__()
        self.encoder = ENCODERS["bert"]()

    def forward(self, input_ids, attention_mask, labels):
        x = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        real = attention_mask.unsqueeze(-1).expand(x.size()).float()
        mean = (x * real).sum(1) / torch.clamp(real.sum(1), min=1e-9)
        return F.normalize(mean, p=2, dim=1)


class MaxPooled(nn.Module):
    """The maximum over the real tokens."""

    def __init__(self):
        super().__init__()
        self.encoder = ENCODERS["distilbert"]()

    def forward(self, input_ids, attention_mask, labels):
        x = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        return x.masked_fill(attention_mask[..., None] == 0, -1e9).amax(1)


class Loss(nn.Module):
    """The loss, or the logits, of a model of transformers."""

    def __init__(self, model, labelled=True, attention="sdpa"):
        super().__init__()
        model.set_attn_implementation(attention)
        self.model, self.labelled = model, labelled

    def forward(self, input_ids, attention_mask, labels):
        given = {"labels": labels} if self.labelled else {}
        return self.model(input_ids=input_ids, attention_mask=attention_mask, **given)[0]


def bert(kind, **more):
    return Loss(getattr(transformers, kind)(transformers.BertConfig(**BERT)), **more)


AUTO = {
    "masked mean": SentenceEncoder,
    "masked maximum": MaxPooled,
    "[CLS]": lambda: bert("BertForSequenceClassification", labelled=False),
    "[CLS], eager attention": lambda: bert(
        "BertForSequenceClassification", labelled=False, attention="eager"
    ),
    "token classifier": lambda: bert("BertForTokenClassification"),
    "masked language model": lambda: bert("BertForMaskedLM"),
    "last token": lambda: Loss(
        transformers.GPT2ForSequenceClassification(transformers.GPT2Config(**GPT2)), False
    ),
    "last token, eager attention": lambda: Loss(
        transformers.GPT2ForSequenceClassification(transformers.GPT2Config(**GPT2)), False, "eager"
    ),
    "language model": lambda: Loss(
        transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA))
    ),
}
DEMANDED = ("[CLS]", "[CLS], eager attention", "last token", "last token, eager attention")


def batch():
    keep = torch.arange(L) < torch.randint(1, L, (B, 1))
    given = torch.where(keep, ids(), 0)
    labels = torch.randint(0, 5, (B, L)).masked_fill(~keep, -100)
    return given, keep.long(), labels


TRAINED = ("masked mean", "[CLS]", "token classifier")


@pytest.mark.parametrize(
    ("name", "training"), [*((n, False) for n in AUTO), *((n, True) for n in TRAINED)]
)
def test_what_reads_no_padding_is_packed_without_asking(name, training, compile_eager):
    torch.manual_seed(0)
    model = AUTO[name]().double().train(training)
    weights = [w for w in model.parameters() if w.requires_grad]
    with collect() as report, torch.set_grad_enabled(training):
        compiled = compile_eager(model, dynamic=name == "masked mean" or None)
        for _ in range(3):
            given = batch()
            want, got = model(*given), compiled(*given)
            assert torch.allclose(
                got, want, rtol=0, atol=TOLERANCE[want.dtype]
            )  # a loss is float32
            if training:
                g = torch.randn_like(want)
                both = (
                    torch.autograd.grad(y, weights, g, materialize_grads=True, allow_unused=True)
                    for y in (want, got)
                )
                for a, b in zip(*both, strict=True):
                    assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)
    assert rewritten(report) == (2, ["packed"])
    demanded = next(p for p in report.passes if p.name == "demand_tokens")
    assert demanded.rewritten == (name in DEMANDED)


# --- torch's own encoder --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("training", "batch_first", "norm_first"),
    [(False, True, False), (False, True, True), (True, True, False), (True, False, True)],
)
def test_torchs_encoder(training, batch_first, norm_first, compile_eager):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        32, 4, 48, 0.0, batch_first=batch_first, norm_first=norm_first, activation="gelu"
    )
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double().train(training)
    pad = ~masks()["right"]
    x = torch.randn(B, L, 32, dtype=torch.float64)
    x = (x if batch_first else x.transpose(0, 1).contiguous()).requires_grad_(training)
    keep = ~pad if batch_first else ~pad.t()
    with collect() as report, torch.set_grad_enabled(training):
        compiled = compile_eager(model, padding="remove")
        want, got = (f(x, src_key_padding_mask=pad) for f in (model, compiled))
    assert torch.allclose(got[keep], want[keep], rtol=0, atol=1e-10)
    assert not got[~keep].any()
    if training:
        g = torch.randn_like(want) * keep[..., None]
        a, b = (torch.autograd.grad(y, x, g)[0] for y in (want, got))
        assert torch.allclose(a, b, rtol=0, atol=1e-10)
    assert rewritten(report) == (2, ["packed"])
    opened = next(p for p in report.passes if p.name == "open_layers")
    assert opened.rewritten == (2 if batch_first and not training else 0)


# --- what is left alone ---------------------------------------------------------------------------


def declined(report, name="remove_padding"):
    row = next(p for p in report.passes if p.name == name)
    return row.rewritten, {d.code for d in row.declined}


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_hidden_states_are_not_packed_unless_asked(training, compile_eager):
    model = ENCODERS["bert"]().train(training)
    given = {"input_ids": ids(), "attention_mask": masks()["right"].long()}
    outs = []
    for padding in ("auto", "off"):
        torch.compiler.reset()
        with collect() as report, torch.set_grad_enabled(training):
            outs.append(compile_eager(model, padding=padding)(**given)[0])
        if padding == "auto":
            assert declined(report) == (0, {Reason.PADDING_READ})
    assert torch.equal(*outs)


def test_without_a_mask_there_is_nothing_to_remove(compile_eager):
    model = ENCODERS["bert"]().eval()
    with collect() as report, torch.no_grad():
        compile_eager(model, padding="remove")(ids())
    assert declined(report) == (0, {Reason.NO_PADDING})


def test_dropout_in_attention_stays_padded_and_the_rest_is_packed(compile_eager):
    config = transformers.BertConfig(**{**BERT, "attention_probs_dropout_prob": 0.1})
    model = Loss(transformers.BertForTokenClassification(config)).train()
    with collect() as report:
        loss = compile_eager(model)(*batch())
    loss.backward()
    assert declined(report) == (0, {Reason.DROPOUT})
    assert [v.name for v in report.variants] == ["packed"]
    assert torch.isfinite(loss)
