"""Server and scheduler are killed at random while clients submit, watch, cancel, pause and query:
nothing that was acknowledged is lost or there twice, and no process stays behind. test_kill.py does
so with Ray workers; benchmarks/chaos_service.py with all, hundreds of times."""

from formwright.service.testing_chaos import chaos

SOON_S = ((0.05, 0.6), (0.6, 2.5))


def test_whoever_is_killed_nothing_is_lost(tmp_path):
    kills = {"server": 3, "scheduler": 2}
    report = chaos(tmp_path, kills, workers=0, seed=0, searches=2, gaps=SOON_S)

    assert report.wrong == []
    assert report.kills == kills
    assert report.finished > 0
    assert report.back_s
