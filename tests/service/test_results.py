"""Records of a service as one thing: a `Result` that is the search's own, and tables."""

import math

import pytest

from formwright.search import METRICS, Result, SearchSpec, as_text
from formwright.search.testing import a_measurement, a_trial
from formwright.service import Client, result_of, to_frame
from formwright.service.records import SearchState

QUALITIES = (0.3, 0.5, 0.1)


@pytest.fixture
def done(store):
    search = store.create_search(SearchSpec(objectives=("quality", "params")), "", "mine")
    claim = store.claim("me", 60)
    log = store.log(claim)
    for number, quality in enumerate(QUALITIES):
        log.append(trial := a_trial(number), trial := trial.started())
        log.append(trial.succeeded(a_measurement(quality)))
    log.append(a_trial(3), a_trial(3).started(), a_trial(3).started().failed("it diverged"))
    store.finish(claim, SearchState.SUCCEEDED)
    return search.id, Result(search.spec, tuple(log.history()))


def test_a_result(done, url):
    id, own = done
    with Client.local(url) as client:
        found = result_of(client.get(id), client.trials(id))
    assert [t.number for t in found.front()] == [t.number for t in own.front()]
    assert as_text(found) == as_text(own)
    assert found.hypervolume() == own.hypervolume()


def test_tables(done, url):
    pandas = pytest.importorskip("pandas")
    id, _ = done
    with Client.local(url) as client:
        trials, searches = to_frame(client.trials(id)), to_frame(client.searches())
    assert isinstance(trials, pandas.DataFrame)
    assert list(trials["number"]) == [0, 1, 2, 3]
    assert list(trials["metrics.quality"][:3]) == list(QUALITIES)
    assert math.isnan(trials["metrics.quality"][3])
    assert trials["error"][3] == "it diverged"
    assert {name.partition(".")[2] for name in trials if name.startswith("metrics.")} <= set(
        METRICS
    )
    assert list(searches["search"]) == [id]
    assert searches["trials.SUCCEEDED"][0] == 3
    assert to_frame([]).empty
