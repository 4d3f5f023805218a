"""The map from sums of layers to whole models: what it finds, and that its intervals hold."""

import random

import pytest

from formwright.search.evaluate.calibrate import DOUBT, FEW, calibrated


def test_the_interval_holds_what_it_says():
    draw = random.Random(0)

    def models(count):
        sums = [draw.uniform(5, 50) for _ in range(count)]
        return [(added, (1 + 1.1 * added) * draw.lognormvariate(0, 0.1)) for added in sums]

    inside = []
    for _ in range(40):
        map_ = calibrated(models(30))
        inside += [abs(found / map_(added) - 1) <= map_.error for added, found in models(20)]
    assert 0.85 <= sum(inside) / len(inside) <= 0.97
    assert map_.coverage == 0.9
    assert 0 < map_.typical < map_.error


def test_an_affine_law_is_found_and_few_models_change_nothing():
    seen = [(float(p), 3.0 + 0.5 * p) for p in range(1, 30)]
    map_ = calibrated(seen)
    assert (map_.offset, map_.slope) == pytest.approx((3.0, 0.5))
    few = calibrated(seen[: FEW - 1])
    assert (few.offset, few.slope) == (0.0, 1.0)
    assert few.error >= DOUBT


def test_a_map_never_turns_the_order_around():
    down = calibrated([(float(p), 100.0 - p) for p in range(1, 40)])
    assert down.offset == 0.0
    assert down.slope > 0
    same = calibrated([(2.0, 3.0)] * 20)
    assert (same.offset, same.slope) == (0.0, 1.5)
