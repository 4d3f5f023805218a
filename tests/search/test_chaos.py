"""Workers and drivers of a real search are killed at random: nothing is lost, nothing is counted
twice, and whoever replays the log has the same suggestions."""


from formwright.search.testing_chaos import chaos


def test_a_search_survives_random_kills(tmp_path):
    report = chaos(tmp_path, workers=2, kills=12, drivers=2, seed=2, trials=30)

    assert report.wrong == []
    assert (report.workers_killed, report.drivers_killed) == (12, 2)
    assert report.finished == 30
    assert report.attempts > 30  # trials were really lost
