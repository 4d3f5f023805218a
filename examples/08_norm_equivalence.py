"""Norm equivalence: a GPT-2 whose LayerNorms become RMSNorms, in its graph or for good."""

import argparse
import copy

import torch
from transformers import GPT2Config, GPT2LMHeadModel, ViTConfig, ViTModel

from formwright.compiler import ConversionError, collect, convert

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="without generating code")
quick = parser.parse_args().quick
target = {"target": "eager"} if quick else {}

torch.manual_seed(0)
sizes = {"n_embd": 256, "n_layer": 2 if quick else 4, "n_head": 4, "vocab_size": 1000}
model = GPT2LMHeadModel(GPT2Config(bos_token_id=1, eos_token_id=2, **sizes)).eval()
ids = torch.randint(0, 1000, (2, 64))
with torch.no_grad():
    want = model(ids).logits

print("in the graph; the model stays as it is")
for norm in ("rms", "crms"):
    torch.compiler.reset()
    with torch.no_grad(), collect() as report:
        compiled = torch.compile(model, backend="formwright", options={**target, "norm": norm})
        got = compiled(ids).logits
    row = report.row("equate_norms" if norm == "rms" else "shorten_norms")
    print(
        f"  {norm}: {row.rewritten} of {row.sites} LayerNorms, "
        f"{report.row('fold_norms').rewritten} folded into what reads them; "
        f"{report.prepared_bytes:,} bytes of prepared weights; "
        f"differs from eager by {(got - want).abs().max():.1e}"
    )

print("in the model, for good")
for norm in ("rms", "crms"):
    converted = convert(copy.deepcopy(model), norm=norm, example_inputs=(ids,))
    with torch.no_grad():
        got = converted(ids).logits
    width = converted.transformer.wte.weight.shape[1]
    print(f"  {norm}: a main branch {width} wide; differs by {(got - want).abs().max():.1e}")
    print(f"    {converted.transformer.h[0].ln_1}")

print("and where the main branch is read as it is")
vit = ViTModel(ViTConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=2)).eval()
vit.layernorm = torch.nn.Identity()
try:
    convert(vit, example_inputs=(torch.randn(1, 3, 224, 224),))
except ConversionError as error:
    print(f"  {str(error).splitlines()[0]}:{str(error).splitlines()[1][:110]} ...")
