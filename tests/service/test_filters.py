"""Filters and orders: what they mean, what is wrong with one, and lists that follow them."""

import random
from itertools import pairwise

import pytest

from formwright.search import Measurement, SearchSpec
from formwright.search.testing import a_trial
from formwright.service.errors import InvalidRequest
from formwright.service.filters import And, Compare, Not, Or, parse
from formwright.service.records import Action
from formwright.service.store import open_store
from formwright.service.store.paging import make_token

A, B, C = (Compare(name, "=", "1") for name in "abc")


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("", None),
        ("  ", None),
        ("a=1", A),
        (" ( a = 1 ) ", A),
        ("a = 1 AND b = 1 OR c = 1", And(A, Or(B, C))),  # as AIP-160 has it
        ("(a = 1 AND b = 1) OR c = 1", Or(And(A, B), C)),
        ("NOT a = 1 AND b = 1", And(Not(A), B)),
        ("NOT (a = 1 AND b = 1)", Not(And(A, B))),
        ("NOT NOT a=1", Not(Not(A))),
        ('a = "x y"', Compare("a", "=", "x y")),
        ("a = 'it\\'s'", Compare("a", "=", "it's")),
        ('a : "AND"', Compare("a", ":", "AND")),
        ("m.n<=-2e4", Compare("m.n", "<=", "-2e4")),
        ("a!=1", Compare("a", "!=", "1")),
        ('a = ""', Compare("a", "=", "")),
    ],
)
def test_what_it_means(text, means):
    assert parse(text) == means


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a", "at character 2: expected one of"),
        ("a =", "at character 4: expected a value after '='"),
        ("a = AND", ""),
        ("= 1", "at character 1: expected a field"),
        ("AND a = 1", "at character 1: expected a field"),
        ("a = 1 AND", "at character 10: expected a field"),
        ("a = 1 b = 1", "at character 7: expected AND, OR or the end, not 'b'"),
        ("(a = 1", "at character 1: this bracket is not closed"),
        ("a = 1)", "at character 6: expected AND, OR or the end, not ')'"),
        ("()", "at character 2: expected a field"),
        ('a = "x', "at character 5: '\"x' is not understood"),
        ("(" * 99 + "a = 1" + ")" * 99, "more than 16 within each other"),
        ("NOT " * 99 + "a = 1", "more than 16 within each other"),
        (" AND ".join(["a = 1"] * 65), "more than 64 comparisons"),
        ("a" * 2001, "longer than 2000 characters"),
    ],
)
def test_what_is_wrong(text, said):
    if text == "a = AND":
        assert parse(text) == Compare("a", "=", "AND")  # a word like any other, there
        return
    with pytest.raises(InvalidRequest) as caught:
        parse(text)
    assert said in str(caught.value)
    assert caught.value.field == "filter"


def values(number):
    return {"quality": number % 5 / 5, "params": float(number % 7)}


@pytest.fixture
def trials(url):
    """A store, the id of a search, and its trials: of all states, some without values."""
    store = open_store(url)
    id = store.create_search(SearchSpec(), "").id
    log, moves = store.log(store.claim("me", 600)), []
    for number in range(40):
        started = a_trial(number).started()
        ended = {
            2: started.succeeded(Measurement(values(number))),
            3: started.failed(f"it's 100% over_{number}"),
        }
        moves += [a_trial(number), started, ended.get(number % 4)][: 1 + number % 4]
        if number % 5 == 4:  # so many have the same times
            log.append(*moves)
            moves = []
    yield store, id, store.list_trials(id, 100).items
    store.close()


ATOMS = {
    "number < 20": lambda t: t.number < 20,
    "number >= 33": lambda t: t.number >= 33,
    "state = SUCCEEDED": lambda t: t.state == "SUCCEEDED",
    'state != "FAILED"': lambda t: t.state != "FAILED",
    "metrics.quality >= 0.4": lambda t: t.values.get("quality", -1) >= 0.4,
    "metrics.params != 3": lambda t: t.values.get("params", 3) != 3,
    'error : "100%"': lambda t: "100%" in t.error,
    "error : over_1": lambda t: "over_1" in t.error,
    'error = ""': lambda t: t.error == "",
    "attempt = 1": lambda t: t.attempt == 1,
    'create_time > "2026-01-01T00:00:00Z"': lambda t: True,
}


def test_lists_have_what_is_asked_for(trials):
    store, id, every = trials
    rng = random.Random(5)

    def draw(depth):
        kind = rng.choice(["atom", "and", "or", "not"]) if depth else "atom"
        if kind == "atom":
            return rng.choice(list(ATOMS.items()))
        (one, is_one), (two, is_two) = draw(depth - 1), draw(depth - 1)
        if kind == "not":
            return f"NOT ({one})", lambda t: not is_one(t)
        if kind == "and":
            return f"({one}) AND ({two})", lambda t: is_one(t) and is_two(t)
        return f"({one}) OR ({two})", lambda t: is_one(t) or is_two(t)

    for _ in range(60):
        text, is_wanted = draw(3)
        found = store.list_trials(id, 100, filter=text).items
        assert found == tuple(filter(is_wanted, every)), text


def test_a_filter_and_an_order_by_metrics(trials):
    store, id, every = trials
    text = "metrics.params <= 3 AND NOT state = FAILED"
    found = store.list_trials(id, 100, filter=text, order_by="metrics.quality desc").items
    wanted = [t for t in every if t.values.get("params", 9) <= 3]
    assert sorted(t.number for t in found) == [t.number for t in wanted]
    assert [t.values["quality"] for t in found] == sorted(t.values["quality"] for t in wanted)[::-1]
    edge = 'create_time > "0001-01-01T00:00:00+14:00"'
    with pytest.raises(InvalidRequest, match="create_time is a time"):
        store.list_trials(id, 3, filter=edge)
    assert store.list_trials(id, 3, filter="error : OVER_1").items == ()  # case counts


@pytest.mark.parametrize("way", ["", " asc", " desc"])
@pytest.mark.parametrize(
    "field", ["number", "state", "error", "update_time", "metrics.quality", "metrics.params"]
)
def test_pages_are_the_list_in_its_order(trials, field, way):
    store, id, every = trials
    found, token = [], ""
    while True:
        page = store.list_trials(id, 3, token, order_by=field + way)
        found += page.items
        if not (token := page.next):
            break
    name = field.removeprefix("metrics.")
    keys = {
        "number": lambda t: t.number,
        "state": lambda t: t.state.value,
        "update_time": lambda t: t.updated,
    }
    wanted = [t for t in every if not field.startswith("metrics.") or name in t.values]
    assert sorted(t.number for t in found) == [t.number for t in wanted]
    if field == "error":  # databases sort texts as they like
        return
    key = keys.get(field, lambda t: t.values[name])
    down = way == " desc"
    assert all((key(b) <= key(a)) if down else (key(a) <= key(b)) for a, b in pairwise(found))


@pytest.mark.parametrize(
    ("filter", "order", "said"),
    [
        ("stat = RUNNING", "", "at character 1: unknown field 'stat'; known: .*mean 'state'"),
        ("number = 1 AND x = 2", "", "at character 16: unknown field 'x'"),
        ("state = running", "", "state is PENDING or RUNNING or .*, not 'running'"),
        ("number = many", "", "number is a whole number, not 'many'"),
        ("number = 99999999999", "", "number is a whole number"),
        ("number : 3", "", "number can be compared, not searched with ':'"),
        ("metrics.qualty > 0", "", "unknown metric 'qualty'; .*mean 'quality'"),
        ("metrics.quality : 0", "", "can be compared"),
        ("metrics.quality > nan", "", "metrics.quality is a number, not 'nan'"),
        ('create_time > "2026-01-01"', "", "create_time is a time with its zone"),
        ("", "nothing", "unknown field 'nothing'"),
        ("", "number down", "wanted a field, as in"),
        ("", "number, state", "wanted a field, as in"),
        ("", "metrics.nothing", "unknown field 'metrics.nothing'"),
    ],
)
def test_what_cannot_be_listed(trials, filter, order, said):
    store, id, _ = trials
    with pytest.raises(InvalidRequest, match=said) as caught:
        store.list_trials(id, 3, filter=filter, order_by=order)
    assert caught.value.field == ("filter" if filter else "order_by")


@pytest.mark.parametrize("place", [("x", 1), (None, 1), (1.5, 1), ("2026-01-01", 1), (True, 1)])
def test_a_token_that_somebody_has_made_up(trials, place):
    store, id, _ = trials
    for order in ("number", "state", "update_time", "metrics.quality"):
        token = make_token(place, ("trials", "", order, id))
        try:
            store.list_trials(id, 3, token, order_by=order)
        except InvalidRequest as error:
            assert error.field == "page_token"  # noqa: PT017


def test_searches_are_filtered_and_sorted(url):
    store = open_store(url)
    ids = [store.create_search(SearchSpec(), "", f"n{at}", at % 3).id for at in range(6)]
    store.act(ids[0], Action.CANCEL)

    def listed(**given):
        return [ids.index(search.id) for search in store.list_searches(10, **given).items]

    assert listed() == [5, 4, 3, 2, 1, 0]
    assert listed(filter="state = CANCELLED") == [0]
    assert listed(filter="priority > 0", order_by="priority desc") == [5, 2, 4, 1]
    assert listed(order_by="create_time") == [0, 1, 2, 3, 4, 5]
    assert listed(filter='display_name : "n" AND NOT display_name = n3') == [5, 4, 2, 1, 0]
    with pytest.raises(InvalidRequest, match=r"unknown field 'metrics\.quality'"):
        store.list_searches(10, filter="metrics.quality > 0")
    store.close()
