"""Server, scheduler and Ray workers are killed at random while clients submit, watch, cancel, pause
and query: nothing that was acknowledged is lost or there twice, and no process stays behind.
benchmarks/chaos_service.py does the same hundreds of times."""

import pytest

from formwright.service.testing_chaos import chaos

SOON_S = ((0.05, 0.6), (0.6, 2.5))


@pytest.mark.parametrize(
    ("workers", "kills"),
    [(0, {"server": 3, "scheduler": 2}), (1, {"worker": 1})],
    ids=["alone", "ray"],
)
def test_whoever_is_killed_nothing_is_lost(tmp_path, workers, kills):
    report = chaos(
        tmp_path, kills, workers=workers, seed=workers, searches=1 + (workers == 0), gaps=SOON_S
    )

    assert report.wrong == []
    assert report.kills == kills
    assert report.finished > 0
    assert report.back_s
