"""What has ended long ago goes: which, how much that frees, and who may use the space."""

import os
import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from formwright.search import Measurement, SearchSpec
from formwright.search.testing import a_trial
from formwright.service.cli.prune import prune
from formwright.service.errors import NotFound
from formwright.service.records import ArtifactState, SearchState
from formwright.service.scheduler import Scheduler
from formwright.service.store import open_store
from formwright.service.store.schema import artifacts, pieces, searches

from . import consistent

SPEC = SearchSpec(objectives=("quality", "params"))
OLD = datetime.now(UTC) - timedelta(days=100)
DAYS = 90


def searched(store, name=""):
    """One that has ended: trial 0 is on the front, trial 1 is not."""
    search = store.create_search(SPEC, "", name)
    claim = store.claim("me", 600)
    log = store.log(claim)
    for number in range(2):
        trial, started = a_trial(number), a_trial(number).started()
        values = {"quality": 1.0 - number, "params": 1.0 + number}
        log.append(trial, started, started.succeeded(Measurement(values)))
    store.finish(claim, SearchState.SUCCEEDED)
    return search.id


def keep(store, id, number, folder, content=b"x" * 1000, own=b""):
    store.artifacts.create(id, number, 1)
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(content)
    (folder / "spec.json").write_bytes(own or f"{id} {number:9}".encode())  # 42 bytes
    store.artifacts.finish(store.artifacts.claim("me", 60), folder)


def age(store, *tables):
    """All that is there was changed long ago."""
    with store._database.write() as connection:
        for table in tables or (searches, artifacts):
            connection.execute(update(table).values(updated=OLD))


def there(store):
    return {search.id for search in store.list_searches(100).items}


def gone(removed):
    return [(each.search_id, each.number) for each in removed]


def test_what_has_ended_long_ago_goes(store, url, tmp_path):
    old, other = searched(store, "mine"), searched(store)
    keep(store, old, 0, tmp_path / "made")
    waits = store.create_search(SPEC, "").id
    age(store)
    young = searched(store)

    kept = store.retention
    planned = list(kept.searches(DAYS, dry_run=True))
    assert gone(planned) == [(old, None), (other, None)]
    assert there(store) == {old, other, waits, young}
    removed = list(kept.searches(DAYS))
    assert removed == planned
    assert (removed[0].display_name, removed[0].last_change) == ("mine", OLD)
    assert removed[0].size - removed[1].size == 1042
    assert there(store) == {waits, young}
    assert list(kept.searches(DAYS)) == []
    with pytest.raises(NotFound):
        store.get_search(old)
    assert consistent.check(url) == (2, 0)


def test_what_somebody_wants_stays(store, tmp_path):
    """An artefact that is being made, or was made lately, or was asked for meanwhile."""
    waits, made, asked = searched(store), searched(store), searched(store)
    keep(store, made, 1, tmp_path / "made")
    store.artifacts.create(waits, 0, 1)
    age(store, searches)
    removing = store.retention.searches(DAYS)
    assert gone(store.retention.searches(DAYS, dry_run=True)) == [(asked, None)]
    age(store)
    assert gone(store.retention.searches(DAYS, dry_run=True)) == [(made, None), (asked, None)]

    assert next(removing).search_id == made
    store.artifacts.create(asked, 0, 1)
    assert list(removing) == []
    assert there(store) == {waits, asked}


def test_content_that_others_have_is_counted_once(store, tmp_path):
    first, second, young = searched(store), searched(store), searched(store)
    for id in (first, second):
        keep(store, id, 0, tmp_path / "made", b"shared" * 1000)
    keep(store, first, 1, tmp_path / "made", b"with one who stays")
    age(store)
    keep(store, young, 0, tmp_path / "made", b"with one who stays")

    planned = list(store.retention.artifacts(DAYS, dry_run=True))
    removed = list(store.retention.artifacts(DAYS))
    assert gone(planned) == gone(removed) == [(first, 0), (first, 1), (second, 0)]
    assert sum(each.size for each in planned) == 6000 + 3 * 42
    assert sum(each.size for each in removed) == 6000 + 3 * 42
    with store._database.read() as connection:
        assert len(connection.execute(select(pieces.c.at)).all()) == 2


@pytest.mark.parametrize("keep_front", [False, True])
def test_artefacts_only(store, url, tmp_path, keep_front):
    id = searched(store)
    for number in range(2):
        keep(store, id, number, tmp_path / "made")
    age(store)
    removed = list(store.retention.artifacts(DAYS, keep_front=keep_front))
    assert gone(removed) == [(id, 1)] if keep_front else [(id, 0), (id, 1)]
    assert there(store) == {id}
    with pytest.raises(NotFound):
        store.artifacts.get(id, 1)
    keep(store, id, 1, tmp_path / "made")  # again
    assert store.artifacts.get(id, 1).state is ArtifactState.READY
    assert consistent.check(url) == (1, 4 if keep_front else 2)


def test_searches_whose_front_is_kept_may_stay(store, tmp_path):
    front, other, none = searched(store), searched(store), searched(store)
    keep(store, front, 0, tmp_path / "made")
    keep(store, other, 1, tmp_path / "made")
    age(store)
    assert gone(store.retention.searches(DAYS, keep_front=True)) == [(other, None), (none, None)]
    assert there(store) == {front}


def test_who_sees_little_removes_no_more(store, tmp_path):
    others = searched(store)
    keep(store, others, 0, tmp_path / "made")
    mine = searched(store.seen_by("ada"))
    keep(store, mine, 0, tmp_path / "made")
    age(store)
    ada = store.seen_by("ada").retention
    assert gone(ada.artifacts(DAYS)) == [(mine, 0)]
    assert gone(ada.searches(DAYS)) == [(mine, None)]
    assert there(store) == {others}


def test_two_at_once(store, url):
    for _ in range(12):
        searched(store)
    age(store)
    found, other = [], open_store(url)
    threads = [
        threading.Thread(target=lambda of=of: found.extend(of.retention.searches(DAYS)))
        for of in (store, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert len(found) == len({each.search_id for each in found}) == 12
    assert there(store) == set()


def test_a_file_becomes_smaller(path, tmp_path):
    store = open_store(str(path))
    id = searched(store)
    keep(store, id, 0, tmp_path / "made", os.urandom(3_000_000))
    age(store)
    store.close()
    before = path.stat().st_size
    store = open_store(str(path))
    assert sum(each.size for each in store.retention.searches(DAYS)) > 3_000_000
    went, left = store.retention.give_back()
    assert went > 3_000_000
    assert left == 0
    store.close()
    assert path.stat().st_size < before - 3_000_000
    consistent.check(str(path))


def test_the_scheduler_does_so_once_a_day(store):
    old = searched(store)
    age(store)
    Scheduler(store, "me", 0, None)._tidy()
    assert there(store) == {old}
    daily = Scheduler(store, "me", 0, None, retention_days=DAYS)
    daily._tidy()
    assert there(store) == set()
    searched(store)
    age(store)
    daily._tidy()  # not yet
    assert len(there(store)) == 1


def test_the_command(path, tmp_path, capsys):
    store = open_store(str(path))
    id = searched(store, "mine")
    keep(store, id, 1, tmp_path / "made")
    age(store)
    store.close()
    where = ["--database", str(path)]

    assert prune([*where, "--older-than", "90d", "--dry-run"]) == 0
    would = capsys.readouterr().out.splitlines()
    assert would[0].startswith(f"{id} (mine), of ")
    assert would[1:] == [f"1 searches would be removed, about {would[0].rpartition(', ')[2]}"]
    assert prune([*where, "--older-than", "90d", "--artifacts-only"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"trial 1 of {id} (mine), of ")
    assert said[1] == "1 artefacts removed, about 1.0 kB"
    assert said[2].endswith("went back to the disk")
    assert prune([*where, "--older-than", "2500h"]) == 0
    assert capsys.readouterr().out.startswith("0 searches removed, about 0 bytes")
    assert prune([*where, "--older-than", "12w"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("1 searches removed")
    for wrong in ("90", "d", "-1d", "1e9d", "99999999w"):
        with pytest.raises(SystemExit) as ended:
            prune([*where, f"--older-than={wrong}"])
        assert ended.value.code == 2
        assert "as in 90d" in capsys.readouterr().err
    assert prune(["--database", str(tmp_path / "none.db"), "--older-than", "1d"]) == 2
    assert "there are no searches in" in capsys.readouterr().err
