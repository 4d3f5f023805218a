"""What each page shows: who asks and the store as that one sees it in, a template and its values
out. They change nothing.

They must not know how pages are sent. Next: `app.py`, the table of routes; `asks.py`, what may be
asked; `findings.py`, fronts, failures and figures; `told.py`, what a trial tells of itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...search import METRICS, ArchSpec, TrialState
from .. import names
from ..access import Caller
from ..errors import InvalidRequest, NotFound
from ..filters import parse
from ..records import Page, SearchRecord, SearchState, TrialRecord
from ..store import Store
from ..store.store import SHOWN
from . import asks, findings, told

SEARCHES, TRIALS = 25, 25  # rows of a page


@dataclass(frozen=True)
class Asked:
    """`path` and `query` are of the address; `session` says whether who asks can log out."""

    store: Store
    caller: Caller
    path: Mapping[str, str]
    query: Mapping[str, str]
    session: bool
    kept: findings.Kept


@dataclass(frozen=True)
class Made:
    """A template and what it is filled with."""

    template: str
    values: Mapping[str, Any]
    status: int = 200


def searches(asked: Asked) -> Made:
    """All that the caller sees, the newest first, filtered. What is wrong with a filter is said
    with its place, over the form that it came from."""
    filter, token = asks.text(asked, "filter"), asks.text(asked, "page")
    order = asks.one_of(asked, "order", asks.ORDERS)
    wrong, page = None, Page[SearchRecord]()
    try:
        page = asked.store.list_searches(SEARCHES, token, filter, order)
    except InvalidRequest as error:
        wrong = asks.wrong(filter, error)
    values = {
        "rows": page.items,
        "filter": filter,
        "order": order,
        "orders": asks.ORDERS,
        "wrong": wrong,
        "first": not token,
        "next": page.next and asks.link("/searches", filter=filter, order=order, page=page.next),
        "states": [state.value for state in SearchState],
    }
    return Made("searches.html", values, 400 if wrong else 200)


def search(asked: Asked) -> Made:
    """One search: its front, how that grew, its trials, and why some failed."""
    id = _search_id(asked)
    record = asked.store.get_search(id)
    metrics = [METRICS[name] for name in record.spec.objectives]
    front = findings.front_of(asked.store, record, asked.query.get("machine", ""))
    x, y = asks.axes(asked, record.spec.objectives)
    listed = _trials(asked, id, record.spec.objectives)
    failures, fresh = asked.kept.failures(asked.store, record)
    values = {
        "search": record,
        "ended": sum(count for state, count in record.counts.items() if state.final),
        "metrics": metrics,
        "front": front,
        "axes": {"x": x, "y": y, "of": list(METRICS)},
        "failures": [(each, asks.for_reason(each.reason)) for each in failures],
        "fresh": fresh,
        "live": not record.state.final,
        **listed,
    }
    return Made("search.html", values, 400 if listed["wrong"] else 200)


def _trials(asked: Asked, id: str, objectives: Sequence[str]) -> dict[str, Any]:
    """A page of the trials of a search that are in a state, for a reason, within a filter."""
    filter, reason = asks.text(asked, "filter"), asks.text(asked, "reason")
    state = asks.one_of(asked, "state", ["", *(state.value for state in TrialState)])
    orders = asks.orders_of(objectives)
    order, token = asks.one_of(asked, "order", orders), asks.text(asked, "page")
    whole = asks.both(filter, f"error : {asks.quoted(reason)}" if reason else "")
    states = [TrialState(state)] if state else []
    wrong, page, looked_at = None, Page[TrialRecord](), filter
    try:
        parse(filter)  # alone: what is no filter may be one between brackets
        looked_at = whole
        page = asked.store.list_trials(id, TRIALS, token, states, filter=whole, order_by=order)
    except InvalidRequest as error:
        wrong = asks.wrong(looked_at, error)
    here = {"state": state, "reason": reason, "filter": filter, "order": order}
    kept = {name: asks.text(asked, name) for name in ("x", "y", "machine")}
    return {
        "rows": page.items,
        "wrong": wrong,
        "first": not token,
        "next": page.next and asks.link(f"/searches/{id}", **kept, **here, page=page.next),
        "states": [state.value for state in TrialState],
        "orders": orders,
        "kept": kept,
        **here,
    }


def trial(asked: Asked) -> Made:
    """One trial: its values, what was measured on the way, what the compiler did, its error."""
    id, number = _trial_id(asked)
    record = asked.store.get_search(id)
    found = asked.store.get_trial(id, number)
    last = sum(record.counts.values()) - 1
    values = {
        "search": record,
        "trial": found,
        "values": told.values_of(found, record.spec.objectives),
        "seconds": told.seconds_of(found),
        "report": told.report_of(found),
        "rungs": told.rungs_of(found),
        "details": told.others_of(found),
        "layers": told.layers_of(found.architecture),
        "before": number - 1 if number else None,
        "after": number + 1 if number < last else None,
    }
    return Made("trial.html", values)


def architecture(asked: Asked) -> Made:
    """An architecture, and where the caller's searches have tried it."""
    fingerprint = _fingerprint(asked)
    spec, where = asked.store.get_architecture(fingerprint)
    tried = [asked.store.get_trial(id, number) for id, number in where[:SEARCHES]]
    searched = {each.search_id: asked.store.get_search(each.search_id) for each in tried}
    values = {
        "fingerprint": fingerprint,
        "spec": spec,
        "layers": told.layers_of(spec),
        "tried": tried,
        "searched": searched,
        "more": len(where) - len(tried),
        "at_least": len(where) >= SHOWN,  # the store tells of no more
        "metrics": told.metrics_of(tried),
    }
    return Made("architecture.html", values)


def figure(asked: Asked) -> tuple[findings.Sent, bool]:
    """What plotly draws of a search, and the same in words; whether it is as of now."""
    id = _search_id(asked)
    record = asked.store.get_search(id)
    front = findings.front_of(asked.store, record, asked.query.get("machine", ""))
    x, y = asks.axes(asked, record.spec.objectives)
    return asked.kept.figure(asked.store, record, front, asked.path["figure"], x, y)


def spec_of(asked: Asked) -> ArchSpec:
    """The architecture that is to be drawn."""
    return asked.store.get_architecture(_fingerprint(asked))[0]


def last_of(asked: Asked) -> tuple[Caller, str, int]:
    """Who asks, for which search, and the number of its newest event."""
    id = _search_id(asked)
    return asked.caller, id, asked.store.get_search(id).last_sequence


def _search_id(asked: Asked) -> str:
    try:
        return names.search_id(names.search_name(asked.path["id"]))
    except InvalidRequest as error:  # an address that cannot be is one where nothing is
        raise NotFound(str(error)) from None


def _trial_id(asked: Asked) -> tuple[str, int]:
    try:
        return names.trial_id(
            f"{names.search_name(asked.path['id'])}/trials/{asked.path['number']}"
        )
    except InvalidRequest as error:
        raise NotFound(str(error)) from None


def _fingerprint(asked: Asked) -> str:
    try:
        return names.fingerprint(names.architecture_name(asked.path["fingerprint"]))
    except InvalidRequest as error:
        raise NotFound(str(error)) from None
