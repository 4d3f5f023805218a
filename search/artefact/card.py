"""The README of an artefact: what it is, its numbers, how it is loaded, what it does not promise.

All of it is in `metrics.json` too. Pure. Next: `record.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..describe import rows
from ..objective import METRICS
from ..show.tables import arrow, number
from ..spec import ArchSpec

LIMITS = (
    "A score on this task, with this budget, promises nothing of other tasks, other data or a "
    "larger scale: architectures change places with all three. This one was chosen because it did "
    "well in a search, and whoever is chosen was lucky too. Times are of one machine, with these "
    "threads, this batch and these versions. Agreement was shown on the inputs that were compared, "
    "in their shapes; a digest finds what was damaged, but is no signature."
)


def card(
    architecture: ArchSpec, metrics: Mapping[str, Any], name: str, takes: Tensor, gives: Tensor
) -> str:
    """Markdown. `name` is that of the folder, `gives` [1, ..] what the model says of `takes`."""
    of, recipe, budget = metrics["architecture"], metrics["recipe"], _budget(metrics["recipe"])
    parts = (
        f"# {of['pattern'] or 'No layers'}, trained on {recipe['task']}",
        f"`{of['short']}`: {number(metrics['values']['params'])} parameters, trained on the task "
        f"`{recipe['task']}` for {budget}.\nFingerprint: `{of['fingerprint']}`.",
        "## Load it",
        _code("python", f'from formwright.search import load\n\nspec, model = load("{name}")'),
        f"`model` is a torch module in evaluation. It takes {_shape(takes)} and gives "
        f'{_shape(gives)}; `torch.compile(model, backend="formwright")` says the same, faster. '
        "What is loaded is numbers and text, never code; files that are not those that were kept "
        "are refused.",
        "## Numbers",
        *_numbers(metrics),
        "## The same, however it is run",
        *_agreement(metrics["agreement"]),
        "## Parts",
        _parts(architecture),
        "## How it was made",
        *_made(metrics),
        "## Limits",
        LIMITS,
    )
    return "\n\n".join(parts) + "\n"


def _numbers(metrics: Mapping[str, Any]) -> Iterator[str]:
    search, spread, count = metrics["search"], metrics["spread"], len(metrics["seeds"])
    heads = ["", "this model", f"mean of {count}", "standard deviation", "smallest", "largest"]
    heads += ["in the search"] if search else []
    lines = [("quality", "validation", metrics["values"]["quality"])]
    lines += [("test_quality", "test", metrics["test"]["quality"])]
    names = [name for name in METRICS if name in metrics["values"] and name != "quality"]
    lines += [(name, METRICS[name].unit, metrics["values"][name]) for name in names]
    table = []
    for name, unit, value in lines:
        metric = name.removeprefix("test_")
        row = [f"{metric} {arrow(metric)}" + f" ({unit})" * bool(unit), number(value)]
        row += [_number(spread.get(name, {}).get(of)) for of in ("mean", "std", "min", "max")]
        table.append(row + ([_number(search["values"].get(name))] if search else []))
    yield _table(heads, table)
    yield f"It was {metrics['validation']['rule']}. The test split was {metrics['test']['rule']}."
    for name, why in metrics["undefined"].items():
        yield f"No {name}: {why}."
    for seed, why in metrics["failed_seeds"].items():
        yield f"Seed {seed} did not learn and is in no mean: {why}."
    if search:
        yield f"In the search it was trial {search['trial']}. {_again(search)}"


def _again(search: Mapping[str, Any]) -> str:
    if search["equal"] is None:
        return "It was measured elsewhere or otherwise, so its numbers need not be the same."
    if search["equal"]:
        return "Trained again with the search's seed, its quality is the same to the last bit."
    was, now = search["values"].get("quality"), search["quality_again"]
    return f"Trained again with the search's seed, its quality is {now!r}, not {was!r} as there."


def _agreement(agreement: Mapping[str, Any]) -> Iterator[str]:
    laws = [
        (law["what"], f"{law['absolute']:.2g}", f"{law['relative']:.2g}", f"{law['bound']:.2g}")
        for law in agreement["laws"]
    ]
    yield _table(("", "largest difference", "of the largest output", "allowed"), laws)
    sizes = ", ".join(dict.fromkeys(str(case["batch"]) for case in agreement["cases"]))
    yield (
        f"Compiled for `{agreement['target']}`. Compared on validation inputs and on random ones, "
        f"in batches of {sizes}; read back from this folder, weights and outputs are those of the "
        "trained model bit for bit."
    )


def _parts(architecture: ArchSpec) -> str:
    made = (
        (r.path, r.what, r.settings, str(r.width), number(r.cost.params))
        for r in rows(architecture)
    )
    return _table(("", "part", "settings", "width", "parameters"), made)


def _made(metrics: Mapping[str, Any]) -> Iterator[str]:
    recipe, machine, data = metrics["recipe"], metrics["machine"], metrics["data"]
    rates = ", ".join(f"{rate:g}" for rate in recipe["rates"])
    before = f", after {recipe['pretrain']} steps of self-pretraining" * bool(recipe["pretrain"])
    weights = ", on weights shared with a supernet" * (recipe["weights"] == "shared")
    whose = f" ({data['whose']})" * bool(data["whose"])
    yield (
        f"Trained for {_budget(recipe)}, with each of the learning rates {rates}{before}{weights}; "
        f"data `{data['data']}`{whose}. Measured on {machine['cpu']}, {machine['threads']} of "
        f"{machine['cores']} cores, batches of {recipe['batch']}, compiled for "
        f"`{machine['target']}`."
    )
    yield ", ".join(f"{name} {version}" for name, version in metrics["versions"].items()) + "."
    yield "In this folder, this makes it again:"
    yield _code("sh", metrics["command"])


def _budget(recipe: Mapping[str, Any]) -> str:
    budget = recipe["budget"] or f"{recipe['steps']} steps"
    return f"{budget}, {recipe['batch']} examples a step"


def _shape(x: Tensor) -> str:
    sizes = ", ".join(["batch", *map(str, x.shape[1:])])
    return f"{str(x.dtype).removeprefix('torch.')} `[{sizes}]`"


def _number(value: float | None) -> str:
    return "" if value is None else number(value)


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    made = [heads, ["---"] * len(heads), *lines]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in made
    )


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"
