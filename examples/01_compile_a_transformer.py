"""A BERT with hand-written attention on a ragged batch: report, agreement, time beside Inductor."""

import argparse
import statistics
import time

import torch
from rich.console import Console
from transformers import BertConfig, BertModel

from formwright.compiler import explain

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="small, and without generating code")
quick = parser.parse_args().quick
torch.manual_seed(0)
layers, width, batch, tokens = (2, 64, 2, 16) if quick else (4, 256, 4, 512)
config = BertConfig(
    num_hidden_layers=layers,
    hidden_size=width,
    num_attention_heads=width // 32,
    intermediate_size=4 * width,
    attn_implementation="eager",  # softmax(q @ k.T * scale + mask) @ v, spelled out
)
model = BertModel(config, add_pooling_layer=False).eval()
ids = torch.randint(config.vocab_size, (batch, tokens))
lengths = torch.randint(tokens // 3, tokens + 1, (batch, 1))
mask = (torch.arange(tokens) < lengths).long()
real, threads = mask.float().mean(), torch.get_num_threads()
print(f"BERT, {layers} layers, width {width}; {batch} x {tokens} tokens, {real:.0%} of them real")


def milliseconds(run) -> float:
    started = time.perf_counter()
    run(ids, attention_mask=mask)
    return (time.perf_counter() - started) * 1e3


with torch.no_grad():
    print(explain(model, ids, attention_mask=mask))
    want = model(ids, attention_mask=mask).last_hidden_state
    runs = {"eager": model}
    targets = {"formwright": {"target": "eager"}} if quick else {"formwright": {}, "inductor": {}}
    for name, options in targets.items():
        torch.compiler.reset()
        with Console().status(f"compiling with {name}"):
            runs[name] = torch.compile(model, backend=name, options=options)
            got = runs[name](ids, attention_mask=mask).last_hidden_state
        print(f"{name}: largest difference to eager {(got - want).abs().max():.1e}")
    times = {name: [] for name in runs}
    for _ in range(2 if quick else 15):  # interleaved, so that a noisy machine is unfair to none
        for name, run in runs.items():
            times[name].append(milliseconds(run))
for name, ms in times.items():
    print(f"{name:10} {statistics.median(ms):6.1f} ms, median of {len(ms)}, {threads} threads")
