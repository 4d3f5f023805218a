"""The drawings of docs/architectures.md: one architecture of each family.

python docs/drawings/draw.py
"""

from pathlib import Path

from formwright.search import SPACES, draw
from formwright.search.space import Signature

DIGITS = Signature.of_images((1, 8, 8), 10)
GENES = {
    "metaformer": {"patch": 2, "width": 32, "depth": 4, "mixer0": "conv", "mixer1": "conv",
                   "mixer2": "attention", "mixer3": "mamba2", "ratio0": 2, "ratio1": 2},
    "metaformer_staged": {"patch": 1, "width": 16, "stages": 3, "mixer0": "conv",
                          "mixer1": "manhattan", "mixer2": "attention", "depth0": 2, "scale": 0.1},
    "hybrid_mamba": {"width": 32, "depth": 8, "attention": 0.125, "channel": 0.5, "heads": 4,
                     "kv_heads": 2, "positions": "rotary", "span": 4},
    "matformer": {"patch": 2, "hidden0": 16, "hidden1": 32, "hidden2": 64, "hidden3": 128},
}  # fmt: skip


def drawings() -> dict[str, str]:
    """name -> SVG, of the genes above; knobs that are not named are at their first choice."""
    found = {}
    for name, genes in GENES.items():
        space = SPACES.load(name)
        first = {gene.name: gene.choices[0] for gene in space.genes}
        found[name] = draw(space.decode(space.canonical(first | genes), DIGITS))
    return found


if __name__ == "__main__":
    for name, svg in drawings().items():
        Path(__file__).with_name(f"{name}.svg").write_text(svg, encoding="utf-8")
