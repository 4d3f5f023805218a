"""Kendall's tau against its definition and scipy, its interval, and what stands beside a proxy."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import kendalltau

from formwright.search import TrialState, concordance, fidelity, kendall, ranking_fidelity

from .recorded import SPEC, searched, with_block


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


@pytest.mark.parametrize("few", [1, 40, concordance.FEW])
@pytest.mark.parametrize("spread", [0.01, 0.3, 3.0])
def test_pairs_are_counted_as_one_by_one(few, spread, monkeypatch):
    """Whatever part of the pairs is looked at one by one."""
    monkeypatch.setattr(concordance, "FEW", few)
    rng = np.random.default_rng(4)
    for n in (0, 1, 2, 3, 17, 90):
        x, y = (rng.integers(0, 9, n).astype(float) for _ in range(2))
        sizes = np.round(100 * np.exp(spread * rng.random(n)))
        of_x, of_y = (np.sign(of[:, None] - of) for of in (x, y))
        near = np.maximum(sizes[:, None], sizes) <= 1.05 * np.minimum(sizes[:, None], sizes)

        def counts(near, of_x=of_x, of_y=of_y):
            found = (of_x * of_y, of_x * of_x, of_y * of_y)
            return [int((of * near).sum()) // 2 for of in found]

        assert concordance.pairs(x, y).tolist() == counts(1.0)
        assert concordance.pairs_alike(x, y, sizes, 1.05).tolist() == counts(near)


def test_the_work_for_many_is_bounded(monkeypatch):
    """Tau is that of all 3000; the interval is drawn from 500 and is as narrow as that of all."""
    drawn, taus = [], fidelity._taus

    def watched(a, b, near, weights):
        drawn.append(weights.shape)
        return taus(a, b, near, weights)

    monkeypatch.setattr(fidelity, "_taus", watched)
    rng = np.random.default_rng(5)
    x = rng.normal(size=3000)
    y = 0.6 * x + 0.8 * rng.normal(size=3000)
    found, alike = kendall(x, y), kendall(x, y, sizes=100 + 40 * rng.random(3000))

    assert drawn == [(1001, 500)] * 2
    assert found.tau == pytest.approx(kendalltau(x, y).statistic, abs=1e-4)
    assert found.low < 2 / np.pi * np.arcsin(0.6) < found.high
    few = kendall(x[:500], y[:500])
    wide = (few.high - few.low) * (500 / 3000) ** 0.5
    assert found.high - found.low == pytest.approx(wide, rel=0.25)
    assert alike.n == 3000
    assert alike.low < found.tau < alike.high
    assert kendall(x, y) == found != kendall(x, y, seed=1)


def test_an_interval_of_nothing_is_everything():
    """One pair of 1000 sizes is alike: it is in no part of 500 that is drawn anew, nearly."""
    sizes = [2.0**at for at in range(900)]
    sizes[1] = sizes[0] = 1e-9
    found = kendall(range(900), range(900), sizes=sizes, resamples=1)
    assert (found.tau, found.low, found.high) == (1.0, -1.0, 1.0)


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


def test_an_architecture_of_unknown_blocks_is_alike_to_none():
    """A store may hold what somebody else's plug-in made."""
    result = searched()
    bare = [replace(t, values={"quality": t.values["quality"]}) for t in result.succeeded[:12]]
    strange = with_block(bare[0], "of_somebody_else")
    rows = {row.proxy: row for row in ranking_fidelity([strange, *bare[1:]])}

    assert rows["odd"].all.n == 12
    assert {rows[name].all.n for name in ("flops", "params")} == {11}
    assert {row.alike.n for row in rows.values()} == {11}
