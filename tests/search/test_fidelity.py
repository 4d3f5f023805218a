"""Kendall's tau against its definition and scipy, its interval, and what stands beside a proxy."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import kendalltau

from formwright.search import TrialState, kendall, ranking_fidelity

from .recorded import SPEC, searched


def some(n, seed, spread=9):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, spread, n)
    return x.tolist(), (x + rng.integers(0, spread, n)).tolist()


@pytest.mark.parametrize("n", [5, 6, 40, 300])  # 300 is more than one block
def test_tau_is_that_of_scipy(n):
    x, y = some(n, n)
    assert kendall(x, y, resamples=2).tau == pytest.approx(kendalltau(x, y).statistic, abs=1e-4)


def test_tau_among_equal_sizes_is_its_definition():
    x, y = some(30, 1)
    sizes = [100 + 4 * (at % 5) for at in range(30)]
    near = [
        (x[i] - x[j], y[i] - y[j])
        for i, j in combinations(range(30), 2)
        if max(sizes[i], sizes[j]) <= 1.05 * min(sizes[i], sizes[j])
    ]
    agree = sum(np.sign(a) * np.sign(b) for a, b in near)
    untied = sum(a != 0 for a, _ in near), sum(b != 0 for _, b in near)

    assert 0 < len(near) < 30 * 29 / 2
    expected = agree / (untied[0] * untied[1]) ** 0.5
    assert kendall(x, y, sizes=sizes, resamples=2).tau == pytest.approx(expected, abs=1e-4)


def test_the_interval_is_that_of_resampled_things():
    x, y = some(25, 2)
    rng = np.random.default_rng(0)
    counts = rng.multinomial(25, np.full(25, 1 / 25), size=1000)
    taus = []
    for row in counts:
        drawn = np.repeat(np.arange(25), row)
        taus.append(kendalltau(np.array(x)[drawn], np.array(y)[drawn]).statistic)
    found = kendall(x, y)

    assert [found.low, found.high] == pytest.approx(np.quantile(taus, [0.025, 0.975]), abs=1e-4)
    assert found.low < found.tau < found.high
    assert kendall(x, y) == found != kendall(x, y, seed=1)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """For two normals of correlation r, tau is 2/pi arcsin r."""
    truth, rng, held = 2 / np.pi * np.arcsin(0.6), np.random.default_rng(3), 0
    for _ in range(200):
        x = rng.normal(size=40)
        y = 0.6 * x + 0.8 * rng.normal(size=40)
        found = kendall(x, y, resamples=300)
        held += found.low <= truth <= found.high
    assert 180 <= held <= 199


def test_what_cannot_be_ranked_says_why():
    assert str(kendall([1, 2, 3, 4], [1, 2, 3, 4])) == "not enough: 4 of 5"
    assert str(kendall([1] * 5, [1, 2, 3, 4, 5])) == "no pairs that differ"
    x, y, sizes = [1, 2, 3, 4, 5], [1, 2, 3, 5, 4], [10, 100, 1000, 10_000, 100_000]
    assert str(kendall(x, y, sizes=sizes)) == "no pairs that differ"
    with pytest.raises(ValueError, match="as many"):
        kendall([1], [1, 2])
    with pytest.raises(ValueError, match="finite"):
        kendall([float("nan")] * 5, [1, 2, 3, 4, 5])


def test_params_always_stand_beside_the_proxies():
    result = searched(replace(SPEC, rungs=3, keep=2))
    rows = ranking_fidelity(result.trials, result.spec)

    names = ["quality after 1/4 of the training", "quality after 1/2 of the training"]
    assert [row.proxy for row in rows] == [*names, "odd", "flops", "params"]
    done = result.succeeded
    assert {row.all.n for row in rows} == {len(done)}
    quarter = [trial.details["rungs"][0]["quality"] for trial in done]
    final = [trial.values["quality"] for trial in done]
    assert rows[0].all.tau == pytest.approx(kendalltau(quarter, final).statistic, abs=1e-4)
    assert rows[0].all.tau < rows[1].all.tau  # more training is nearer to the whole
    sizes = [trial.values["params"] for trial in done]
    assert rows[-1].all.tau == pytest.approx(kendalltau(sizes, final).statistic, abs=1e-4)


def test_flops_and_params_are_counted_where_they_were_not_measured():
    result = searched()
    bare = [
        replace(t, values={"quality": t.values["quality"]}, details={})
        for t in result.succeeded[:6]
    ]
    flops, params = ranking_fidelity(bare)

    assert (flops.proxy, params.proxy, params.all.n) == ("flops", "params", 6)
    assert ranking_fidelity([]) != []
    assert ranking_fidelity([])[0].all.why == "not enough: 0 of 5"
    assert {t.state for t in bare} == {TrialState.SUCCEEDED}
