"""Workers and drivers of a real search are killed at random: nothing is lost, nothing is counted
twice, and whoever replays the log has the same suggestions."""

import pytest

from formwright.search.testing_chaos import chaos


@pytest.mark.parametrize("workers", [1, 2])
def test_a_search_survives_random_kills(workers, tmp_path):
    report = chaos(tmp_path, workers=workers, kills=18, drivers=2, seed=workers, trials=40)

    assert report.wrong == []
    assert (report.workers_killed, report.drivers_killed) == (18, 2)
    assert report.finished == 40
    assert report.attempts > 40  # trials were really lost
