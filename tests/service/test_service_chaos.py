"""Server and scheduler are killed at random while clients submit, watch, cancel, pause and query:
nothing that was acknowledged is lost or there twice, and no process stays behind. test_kill.py does
so with Ray workers; benchmarks/chaos_service.py with all, hundreds of times."""

from formwright.service import testing_chaos, testing_unit

SOON_S = ((0.05, 0.6), (0.6, 2.5))


def test_whoever_is_killed_nothing_is_lost(tmp_path, monkeypatch):
    # how soon is for the benchmark, on a machine that does nothing else
    monkeypatch.setattr(testing_chaos, "STUCK_S", 150.0)
    monkeypatch.setattr(testing_unit, "GONE_S", 150.0)
    monkeypatch.setattr(testing_unit, "LEFT_S", 60.0)
    kills = {"server": 3, "scheduler": 2}
    report = testing_chaos.chaos(tmp_path, kills, workers=0, seed=0, searches=2, gaps=SOON_S)

    assert report.wrong == []
    assert report.kills == kills
    assert report.finished > 0
    assert report.back_s
