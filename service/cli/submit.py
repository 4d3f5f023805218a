"""`formwright submit`: a search as a file, as options, or as both; or only what it would do.

Next: `../client/sync.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ...search import (
    METRICS,
    PROXY_NAMES,
    SAMPLERS,
    SPACES,
    TASKS,
    UNITS,
    SearchSpec,
    SpecError,
)
from .common import connect, followed, parser, run, suggest

if TYPE_CHECKING:
    from ..client import Client


def submit_parser() -> argparse.ArgumentParser:
    made = parser("submit", "Submit a search. What is not given has its default.")
    spec = "a spec as JSON; - for standard input"
    made.add_argument("-f", "--file", metavar="FILE", help=spec)
    helps, known = _field_help(), _known()
    for field in fields(SearchSpec):
        default: Any = field.default
        several = isinstance(default, tuple)
        shown = " ".join(map(str, default)) or "none" if several else default
        added = made.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(next(iter(default), "")) if several else type(default),
            nargs="+" if several else None,
            help=f"{helps[field.name]} (default {shown})",
        )
        suggest(added, known.get(field.name, ()))
    made.add_argument("--request-id", default="", help="makes it safe to submit again")
    made.add_argument("--display-name", default="", help="for people")
    made.add_argument("--watch", action="store_true", help="show it until it has ended")
    made.add_argument("--dry-run", action="store_true", help="check it, and say what it would do")
    made.add_argument(
        "--priority", type=int, default=0, help="the highest runs next (default 0); above 0: admins"
    )
    return made


def submit(arguments: list[str]) -> int:
    return run(submit_parser(), arguments, _submit)


def _submit(given: argparse.Namespace, console: Console) -> int:
    spec = _spec(given)
    with connect(given) as client:
        if given.dry_run:
            return _dry_run(client, spec, console)
        search = client.submit(
            spec,
            request_id=given.request_id,
            display_name=given.display_name,
            priority=given.priority,
        )
        console.print(search.id, highlight=False)
        return followed(client, search, console) if given.watch else 0


def _dry_run(client: Client, spec: SearchSpec, console: Console) -> int:
    plan = client.plan(spec)
    print(f"{plan.settings:,} settings, of which {spec.trials:,} are tried, such as")
    for sample in plan.samples:
        print(f"  {sample.short()}")
    if plan.training_flops:
        total = plan.training_flops * spec.trials
        print(f"{plan.training_flops:.2g} operations of training each, {total:.2g} in all")
    return 0


def _known() -> dict[str, Iterable[str]]:
    """Field of a spec -> words for it, where there is a table; a server may know others."""
    return {
        "space": SPACES.names(),
        "task": TASKS.names(),
        "sampler": SAMPLERS.names(),
        "objectives": METRICS,
        "proxies": PROXY_NAMES,
    }


def _field_help() -> dict[str, str]:
    """Field of a spec -> what it is; the defaults are the spec's own."""
    installed = "or what the server has installed"
    return {
        "space": f"what is searched: {', '.join(SPACES.names())}, {installed}",
        "task": f"what is learnt: {', '.join(TASKS.names())}, {installed}",
        "trials": "how many architectures are tried",
        "objectives": f"the most important first, of: {', '.join(METRICS)}",
        "sampler": f"who proposes: {', '.join(SAMPLERS.names())}",
        "seed": "of the proposals and of every training",
        "steps": "of training, for each architecture",
        "batch": "examples in a step, and in a call whose latency is measured",
        "threads": "that train and that latency is measured with",
        "target": "compiles the rewritten graph, as for torch.compile; eager generates no code",
        "timeout_s": "seconds after which a trial has failed",
        "attempts": "how often a trial is tried whose worker is lost",
        "knobs": "a part of the space, as in width=16|32 depth=2",
        "constraints": "what a candidate must keep, as in 'params<=2e4' 'quality>=0.9'",
        "baselines": "files with architectures of your own (their JSON), tried first",
        "budget": f"of training in another unit, as in '2e6 tokens'; of: {', '.join(UNITS)}",
        "rates": "learning rates that each trial is trained with; the best counts",
        "pretrain": "steps of self-supervised training before the training",
        "rungs": "parts of the training after which only the best go on",
        "keep": "one of so many goes on",
        "audit": "share of those who were stopped that is trained to the end all the same",
        "latency": "whole: each model is compiled and measured; layers: predicted, then the front",
        "weights": "own: each trial is trained; shared: sub-models of one trained supernet",
        "seconds": "of evaluation that all trials may take together; 0: no bound",
        "proxies": f"scores without training, for the record: {', '.join(PROXY_NAMES)}",
        "flops": "of training that all trials may take together; 0: no bound",
    }


def _spec(given: argparse.Namespace) -> SearchSpec:
    """The file's spec with what the command line says on top. Raises SpecError."""
    data: dict[str, Any] = {}
    if given.file:
        try:
            text = sys.stdin.read() if given.file == "-" else Path(given.file).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(f"cannot read {given.file}: {error}") from error
        data = SearchSpec.from_json(text).to_dict()
    for field in fields(SearchSpec):
        value = getattr(given, field.name)
        if value is not None:
            data[field.name] = value
    if given.baselines is not None:
        data["baselines"] = list(map(_architecture, given.baselines))
    return SearchSpec.from_dict(data)


def _architecture(given: str) -> str:
    """The JSON itself, or what is in the file. Raises SpecError."""
    try:
        return given if given.lstrip().startswith("{") else Path(given).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read {given}: {error}", "baselines") from error
