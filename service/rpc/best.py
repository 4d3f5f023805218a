"""The best architectures: the front of one search or of many, or the best by weights.

What is compared are numbers only; records are read of those that are shown. It must not know SQL.
Next: `../store/measured.py`, which reads the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ...search import METRICS, Metric, SearchSpec, metric_named
from .. import convert, names
from ..errors import InvalidRequest, NotAllowed
from ..store import Store
from ..store.measured import (
    Bound,
    Place,
    Scope,
    Table,
    by_weights,
    check_one_machine,
    undominated,
)
from ..wire import search_pb2 as pb

LIMIT, LARGEST = 100, 1000
FEW = 4  # times as many are sorted as are wanted, because some may be of the same architecture


def query_best_architectures(
    store: Store, request: pb.QueryBestArchitecturesRequest
) -> pb.QueryBestArchitecturesResponse:
    if not 0 <= request.limit <= LARGEST:
        raise InvalidRequest(f"limit: wanted 0 to {LARGEST}, got {request.limit}", "limit")
    id = names.search_id(request.search, "search") if request.search else ""
    spec = store.get_search(id).spec if id else SearchSpec()
    weights, limit = _weights(request.weights), request.limit or LIMIT
    metrics = _metrics(request.objectives or list(weights) or spec.objectives)
    if weights and set(weights) != {metric.name for metric in metrics}:
        raise InvalidRequest("weights: wanted one for each objective, or no objectives", "weights")
    bounds = [_bound(bound) for bound in request.bounds]
    if id and _is_own(request, metrics, spec):
        front, compared = store.kept_front(id)
        best = _once(front, limit)
    else:
        scope = Scope(id, request.space, request.task, request.machine)
        found = store.measured(scope, metrics, bounds)
        _check_comparable(found, [*metrics, *(METRICS[name] for name, _, _ in bounds)])
        amounts = [weights[metric.name] for metric in metrics] if weights else []
        best, compared = _best(found, amounts, limit), len(found)
    shown = store.trials_at(best)
    return pb.QueryBestArchitecturesResponse(
        trials=[convert.to_trial(trial) for trial in shown], compared=compared
    )


def _is_own(
    request: pb.QueryBestArchitecturesRequest, metrics: Sequence[Metric], spec: SearchSpec
) -> bool:
    """Whether the front that the store keeps of a search is what is asked for."""
    narrowed = request.bounds or request.space or request.task or request.machine
    plain = not (narrowed or request.weights)
    return plain and [metric.name for metric in metrics] == list(spec.objectives)


def _metrics(wanted: Sequence[str]) -> list[Metric]:
    if len(set(wanted)) < len(wanted):
        raise InvalidRequest("objectives: a metric is there twice", "objectives")
    return [metric_named(name, "objectives") for name in wanted]


def _weights(given: Iterable[pb.Weight]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for each in given:
        name = metric_named(each.metric, "weights").name
        if name in weights:
            raise InvalidRequest(f"weights: {name} is there twice", "weights")
        if not (math.isfinite(each.weight) and each.weight > 0):
            said = f"weights: wanted more than nothing for {name}, got {each.weight!r}"
            raise InvalidRequest(said, "weights")
        weights[name] = each.weight
    return weights


def _bound(given: pb.Bound) -> Bound:
    name = metric_named(given.metric, "bounds").name
    low = given.at_least if given.HasField("at_least") else None
    high = given.at_most if given.HasField("at_most") else None
    if any(value is not None and math.isnan(value) for value in (low, high)):
        raise InvalidRequest(f"bounds: {name} is to be within what is no number", "bounds")
    return name, low, high


def _check_comparable(found: Table, metrics: Sequence[Metric]) -> None:
    """Raises NotAllowed where numbers would be compared that do not compare."""
    if len(found.tasks) > 1 and any(metric.name == "quality" for metric in metrics):
        which = f"one of {', '.join(sorted(found.tasks))}"
        raise NotAllowed(f"qualities on different tasks do not compare; {which}")
    if any(metric.of_machine for metric in metrics):
        check_one_machine(found.machines)


def _best(found: Table, weights: Sequence[float], limit: int) -> list[Place]:
    """The front, or the best by weights if there are any."""
    if not weights:
        return _once(found.rows(undominated(found.costs)), limit)
    some = _once(found.rows(by_weights(found.costs, weights, FEW * limit)), limit)
    if len(some) == limit:
        return some
    return _once(found.rows(by_weights(found.costs, weights)), limit)  # many are alike


def _once(front: Iterable[Place], limit: int) -> list[Place]:
    """The first of them; an architecture is there once."""
    kept: dict[str, Place] = {}
    for place in front:
        if len(kept) == limit:
            break
        kept.setdefault(place.fingerprint, place)
    return list(kept.values())
