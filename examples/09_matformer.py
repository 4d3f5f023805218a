"""Train one MatFormer on handwritten digits; compare its sub-models with the same sizes alone.

python examples/09_matformer.py [--quick]
"""

import random
import sys

import plotext
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.nn import functional as F

from formwright.search import TASKS, build, cost_of
from formwright.search.space.matformer import HIDDENS, LAYERS, whole
from formwright.search.supernet import Supernet, narrowed, summed

STEPS = 10 if "--quick" in sys.argv else 400
task = TASKS.load("digits")
train, validation = (task.load()[split] for split in ("train", "validation"))
spec = whole(task.signature)
subs = [narrowed(spec, [hidden] * LAYERS) for hidden in HIDDENS]


def trained(net, parts, what):
    """The network after STEPS batches that each of `parts` has seen."""
    rng = random.Random(0)
    optimiser = torch.optim.AdamW(net.model.parameters(), lr=2e-3)
    for _ in track(range(STEPS), what):
        rows = torch.tensor(rng.sample(range(len(train.inputs)), 64))
        optimiser.zero_grad()
        summed(net, parts, train.inputs[rows], train.targets[rows], F.cross_entropy)
        optimiser.step()
    return net


@torch.no_grad()
def accuracy(net, sub):
    return (net.run(sub, validation.inputs).argmax(-1) == validation.targets).float().mean().item()


torch.manual_seed(0)
one = trained(Supernet(spec, build(spec)), subs, "one for all")
table = Table("hidden units", "parameters", "of the whole", "alone")
sizes, together, alone = [cost_of(sub).params for sub in subs], [], []
for sub, hidden, size in zip(subs, HIDDENS, sizes, strict=True):
    together.append(accuracy(one, sub))
    alone.append(accuracy(trained(Supernet(sub, build(sub)), [sub], f"{hidden} alone"), sub))
    table.add_row(str(hidden), f"{size:,}", f"{together[-1]:.3f}", f"{alone[-1]:.3f}")
Console().print(table)
plotext.plot(sizes, together, marker="●", label="of the whole")
plotext.plot(sizes, alone, marker="o", label="alone")
plotext.theme("clear")
plotext.plot_size(70, 15)
plotext.xlabel("parameters")
plotext.show()
