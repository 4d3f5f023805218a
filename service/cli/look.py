"""`formwright searches | watch | best | pareto | trials`: what there is, and what is best.

Next: `output.py`, `../show.py` for the looks.
"""

from __future__ import annotations

import argparse

from rich.console import Console

from ...search import METRICS, SPACES, TASKS, SearchSpec
from ..errors import InvalidRequest
from ..rows import search_row, trial_row
from .common import connect, followed, parser, run, search_of, suggest
from .output import add_format, show


def searches_parser() -> argparse.ArgumentParser:
    made = parser("searches", "All searches, the newest first.")
    _add_filter(made, "state = RUNNING AND space = metaformer", "priority desc")
    add_format(made)
    return made


def searches(arguments: list[str]) -> int:
    return run(searches_parser(), arguments, _searches)


def watch_parser() -> argparse.ArgumentParser:
    return parser("watch", "Show a search until it has ended.", of_search=True)


def watch(arguments: list[str]) -> int:
    return run(watch_parser(), arguments, _watch)


def best_parser() -> argparse.ArgumentParser:
    what = "The best architectures: the Pareto front of a search, or of all; or by weights."
    made = parser("best", what, of_search=True)
    made.add_argument("--weights", nargs="+", default=(), metavar="METRIC=WEIGHT")
    return _add_best(made)


def best(arguments: list[str]) -> int:
    return run(best_parser(), arguments, _best)


def pareto_parser() -> argparse.ArgumentParser:
    made = parser("pareto", "The Pareto front of a search, or of all.", of_search=True)
    made.set_defaults(weights=())
    return _add_best(made)


def pareto(arguments: list[str]) -> int:
    return run(pareto_parser(), arguments, _best)


def trials_parser() -> argparse.ArgumentParser:
    made = parser("trials", "Every trial of a search.", of_search=True)
    _add_filter(made, "state = SUCCEEDED AND metrics.params <= 20000", "metrics.quality desc")
    add_format(made)
    return made


def trials(arguments: list[str]) -> int:
    return run(trials_parser(), arguments, _trials)


def _add_filter(to: argparse.ArgumentParser, filter: str, order: str) -> None:
    to.add_argument("--filter", default="", help=f"as in {filter!r}")
    to.add_argument("--order-by", default="", metavar="FIELD", help=f"as in {order!r}")


def _add_best(to: argparse.ArgumentParser) -> argparse.ArgumentParser:
    to.add_argument("--all", action="store_true", help="over all searches")
    for name, known in (("space", SPACES), ("task", TASKS)):
        added = to.add_argument(f"--{name}", default="", help=f"only searches of this {name}")
        suggest(added, known.names())
    to.add_argument("--machine", default="", help="only what this machine measured (m1:…)")
    added = to.add_argument("--objectives", nargs="+", default=(), metavar="METRIC")
    suggest(added, METRICS)
    for name, what in (("--at-least", "lowest"), ("--at-most", "highest")):
        to.add_argument(
            name, action="append", default=[], metavar="METRIC=VALUE", help=f"{what} value"
        )
    to.add_argument("-n", "--limit", type=int, default=0, help="at most so many")
    add_format(to)
    return to


def _searches(given: argparse.Namespace, console: Console) -> int:
    from ..show import searches_table  # with a plot, which a parser does not need

    with connect(given) as client:
        found = list(client.searches(given.filter, given.order_by))
    show(given, console, map(search_row, found), lambda: searches_table(found))
    return 0


def _watch(given: argparse.Namespace, console: Console) -> int:
    with connect(given) as client:
        return followed(client, search_of(client, given.search), console)


def _best(given: argparse.Namespace, console: Console) -> int:
    from ..show import front_table, plot

    with connect(given) as client:
        search = None if given.all else search_of(client, given.search)
        weights = dict(map(_number, given.weights))
        spec = search.spec if search else SearchSpec()
        objectives = given.objectives or tuple(weights) or spec.objectives
        found = client.best(
            search.id if search else "",
            objectives=objectives,
            bounds=_bounds(given.at_least, given.at_most),
            space=given.space,
            task=given.task,
            machine=given.machine,
            weights=weights,
            limit=given.limit,
        )
        if not found and given.output == "table":
            console.print("no trial succeeded that is within these bounds")
            return 0
        title = "best by weights" if weights else "best architectures"
        table = lambda: front_table(found, title, objectives)  # noqa: E731
        show(given, console, map(trial_row, found), table)
        drawn = given.output == "table" and search and not weights and len(objectives) > 1
        if drawn and search and console.is_terminal:
            print(plot(list(client.trials(search.id)), found, objectives[1], objectives[0]))
    return 0


def _trials(given: argparse.Namespace, console: Console) -> int:
    from ..show import trials_table

    with connect(given) as client:
        search = search_of(client, given.search)
        found = list(client.trials(search.id, filter=given.filter, order_by=given.order_by))
    title = f"search {search.id}, {search.state.lower()}"
    table = lambda: trials_table(found, title, search.spec.objectives)  # noqa: E731
    show(given, console, map(trial_row, found), table)
    return 0


def _number(text: str) -> tuple[str, float]:
    """`METRIC=VALUE`. Raises InvalidRequest."""
    metric, _, value = text.partition("=")
    try:
        return metric, float(value)
    except ValueError:
        raise InvalidRequest(f"{text!r} is not METRIC=VALUE") from None


def _bounds(lowest: list[str], highest: list[str]) -> dict[str, tuple[float | None, float | None]]:
    bounds: dict[str, tuple[float | None, float | None]] = {}
    for texts, at in ((lowest, 0), (highest, 1)):
        for metric, number in map(_number, texts):
            low, high = bounds.get(metric, (None, None))
            bounds[metric] = (low, number) if at else (number, high)
    return bounds
