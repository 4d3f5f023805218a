"""What depends on weights only is computed once: a LoRA adapter is merged, and follows training."""

import argparse

import torch
from torch import nn

from formwright.compiler import collect, refresh

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="without generating code")
target = "eager" if parser.parse_args().quick else "inductor"


class LoRALinear(nn.Module):
    """y = x (W + B A)^T + b"""

    def __init__(self, width: int, rank: int):
        super().__init__()
        self.base = nn.Linear(width, width).requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, width) / width)
        self.b = nn.Parameter(torch.randn(width, rank))

    def forward(self, x):
        return nn.functional.linear(x, self.base.weight + self.b @ self.a, self.base.bias)


model = nn.Sequential(LoRALinear(64, 4), nn.GELU(), LoRALinear(64, 4))
compiled = torch.compile(model, backend="formwright", options={"target": target})
x = torch.randn(8, 64)


def difference() -> str:
    with torch.no_grad():
        return f"{(compiled(x) - model(x)).abs().max():.1e}"


with collect() as report:
    print("compiled:                 difference to eager", difference())
print(report)

model(x).square().sum().backward()
torch.optim.AdamW(model.parameters(), lr=0.1, fused=True).step()
print("after an optimiser step:  difference to eager", difference())

model[0].a.data.mul_(2)  # a write through .data is the one thing that nothing can notice
print("after a write to .data:   difference to eager", difference(), "(stale, as documented)")
refresh(model)
print("after refresh(model):     difference to eager", difference())
