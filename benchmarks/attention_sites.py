"""How many hand-written attentions of Hugging Face models are rewritten, and whether values stay.

    python benchmarks/attention_sites.py [--only bert,t5] [--out FILE]

Every architecture of `architectures.py` is built tiny, run eagerly, and compiled with the target
`eager` under `no_grad`; the table says what the report says of it and by how much the compiled
values differ from eager. `attentions` is how many a call computes; fewer `sites` mean that a graph
break stands inside. Writes docs/measurements/attention_sites.json; takes minutes, and no times.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import transformers
from architectures import ARCHITECTURES, Architecture
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.utils._pytree import tree_leaves

import formwright
from formwright.compiler import collect

OUT = Path(__file__).resolve().parent.parent / "docs" / "measurements" / "attention_sites.json"


def relative_error(got: Any, want: Any) -> float:
    """The largest difference, relative to the largest magnitude of its tensor; NaN has to meet NaN,
    or it is infinite."""
    worst = 0.0
    for g, w in zip(tree_leaves(got), tree_leaves(want), strict=True):
        if not isinstance(w, torch.Tensor) or not w.is_floating_point():
            continue
        if not torch.equal(g.isnan(), w.isnan()):
            return float("inf")
        if w.numel():
            g, w = g.nan_to_num(), w.nan_to_num()
            worst = max(worst, ((g - w).abs().max() / w.abs().max().clamp_min(1e-30)).item())
    return worst


def scan(architecture: Architecture) -> dict[str, Any]:
    """What became of the attentions of one architecture."""
    torch.manual_seed(0)
    torch.compiler.reset()
    model, inputs = architecture.build()
    compiled = torch.compile(model, backend="formwright", options={"target": "eager"})
    with torch.no_grad(), collect() as report:
        got, want = compiled(**inputs), model(**inputs)
    row = report.row("fuse_attention")
    declined = [*report.row("capture").declined, *row.declined]
    return {
        "attentions": architecture.attentions,
        "graphs": report.graphs,
        "sites": row.sites,
        "rewritten": row.rewritten,
        "declined": Counter(d.code.value for d in declined),
        "reasons": sorted({d.reason for d in declined}),
        "relative_error": relative_error(got, want),
    }


def show(found: dict[str, dict[str, Any]]) -> None:
    table = Table("architecture", "attentions", "graphs", "sites", "rewritten", "declined", "error")
    for name, r in found.items():
        codes = ", ".join(f"{n} {code}" for code, n in r["declined"].items())
        style = None if r["rewritten"] == r["attentions"] else "bold"
        counts = (str(r[key]) for key in ("attentions", "graphs", "sites", "rewritten"))
        table.add_row(name, *counts, codes, f"{r['relative_error']:.0e}", style=style)
    console = Console()
    console.print(table)
    total = summary(found)
    console.print(
        f"{total['all_rewritten']} of {total['architectures']} architectures, "
        f"{total['rewritten']} of {total['attentions']} attentions; "
        f"largest error {total['relative_error']:.1e}"
    )


def summary(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    rows = found.values()
    return {
        "architectures": len(found),
        "all_rewritten": sum(r["rewritten"] == r["attentions"] for r in rows),
        "attentions": sum(r["attentions"] for r in rows),
        "sites": sum(r["sites"] for r in rows),
        "rewritten": sum(r["rewritten"] for r in rows),
        "relative_error": max(r["relative_error"] for r in rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", help="architectures, by commas; no file but with --out")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)
    transformers.logging.set_verbosity_error()
    wanted = set(given.only.split(",")) if given.only else {a.kind for a in ARCHITECTURES}
    chosen = [a for a in ARCHITECTURES if a.kind in wanted]
    if unknown := wanted - {a.kind for a in chosen}:
        parser.error(f"no such architecture: {', '.join(sorted(unknown))}")
    progress = track(chosen, "compiling", console=Console(stderr=True))
    found = {a.kind: scan(a) for a in progress}
    show(found)
    out = given.out or (None if given.only else OUT)
    if out is not None:
        versions = {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "formwright": formwright.__version__,
        }
        record = {"versions": versions, "summary": summary(found), "architectures": found}
        out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
