"""Artefacts, in the store and over the wire: who may have one, who makes it, what comes back."""

import hashlib
import shutil

import pytest

from formwright.search import Fenced, SearchSpec
from formwright.search.testing import a_measurement, a_trial
from formwright.service import ArtifactState, Client
from formwright.service.client.downloads import Download, Part
from formwright.service.errors import (
    AlreadyExists,
    Failed,
    InternalError,
    InvalidRequest,
    NotAllowed,
    NotFound,
    OutOfRange,
)
from formwright.service.records import ArtifactFile, SearchState
from formwright.service.store.artifacts import PIECE, TRIES
from formwright.service.store.schema import pieces

from .servers import serving

# one is empty, one ends with a piece, one in the middle of one
CONTENTS = {
    "README.md": b"",
    "metrics.json": b"{}",
    "model.safetensors": bytes(range(256)) * (3 * PIECE // 256 + 1),
    "spec.json": b"s" * PIECE,
}


def searched(store):
    """A search that has ended: trial 0 has succeeded, trial 1 has failed."""
    search = store.create_search(SearchSpec(), "")
    claim = store.claim("me", 60)
    first, second = a_trial(0).started(), a_trial(1).started()
    done = [first.succeeded(a_measurement()), second.failed("it diverged")]
    store.log(claim).append(a_trial(0), a_trial(1), first, second, *done)
    store.finish(claim, SearchState.SUCCEEDED)
    return search.id


def folder_of(path, contents=CONTENTS):
    path.mkdir()
    for name, content in contents.items():
        (path / name).write_bytes(content)
    return path


def made(store, id, folder):
    store.artifacts.create(id, 0, 2)
    store.artifacts.finish(store.artifacts.claim("me", 60), folder)


def content_of(store, id, name):
    found = b""
    while True:
        file, piece = store.artifacts.piece(id, 0, name, len(found))
        if not piece:
            assert len(found) == file.size
            return found
        found += piece


def count_pieces(store):
    with store._database.read() as connection:
        return len(connection.execute(pieces.select()).all())


def test_from_asked_for_to_ready(store, tmp_path):
    id, kept = searched(store), store.artifacts
    asked = kept.create(id, 0, 2)
    assert (asked.state, asked.seeds, asked.files) == (ArtifactState.QUEUED, 2, ())
    assert kept.waiting()

    claim = kept.claim("me", 60)
    assert (claim.search_id, claim.trial.number, claim.seeds, claim.spec) == (
        id,
        0,
        2,
        SearchSpec(),
    )
    assert claim.trial.values == a_measurement().values
    assert kept.claim("you", 60) is None
    assert not kept.waiting()
    assert kept.tell(claim, 1, 6, "training with\nseed 2")
    running = kept.get(id, 0)
    assert (running.state, running.done, running.total, running.step) == (
        ArtifactState.RUNNING,
        1,
        6,
        "training with seed 2",
    )
    with pytest.raises(NotAllowed, match="RUNNING, not READY"):
        kept.piece(id, 0, "spec.json", 0)

    kept.finish(claim, folder_of(tmp_path / "made"))
    ready = kept.get(id, 0)
    assert ready.state is ArtifactState.READY
    assert {f.path: (f.size, f.sha256) for f in ready.files} == {
        name: (len(content), hashlib.sha256(content).hexdigest())
        for name, content in CONTENTS.items()
    }
    for name, content in CONTENTS.items():
        assert content_of(store, id, name) == content
    assert kept.create(id, 0, 0) == ready  # as many seeds as there are
    assert not kept.tell(claim, 9, 9, "late")
    assert kept.get(id, 0) == ready


def test_a_file_from_any_byte_on(store, tmp_path):
    id = searched(store)
    made(store, id, folder_of(tmp_path / "made"))
    whole = CONTENTS["model.safetensors"]
    for offset in (0, 1, PIECE - 1, PIECE, PIECE + 1, len(whole) - 1):
        _, piece = store.artifacts.piece(id, 0, "model.safetensors", offset)
        assert piece
        assert whole[offset:].startswith(piece)
    assert store.artifacts.piece(id, 0, "model.safetensors", len(whole))[1] == b""
    for offset in (-1, len(whole) + 1):
        with pytest.raises(OutOfRange):
            store.artifacts.piece(id, 0, "model.safetensors", offset)
    with pytest.raises(NotFound, match=r"it has README\.md, metrics\.json"):
        store.artifacts.piece(id, 0, "../spec.json", 0)


def test_who_cannot_be_kept(store):
    id = searched(store)
    for number, error in ((1, NotAllowed), (2, NotFound)):
        with pytest.raises(error):
            store.artifacts.create(id, number, 1)
        with pytest.raises(NotFound):
            store.artifacts.get(id, number)
    with pytest.raises(NotFound):
        store.artifacts.create("nobody", 0, 1)
    store.artifacts.create(id, 0, 2)
    with pytest.raises(NotAllowed, match="from 2 seeds, not 3"):
        store.artifacts.create(id, 0, 3)


def test_requests_with_an_id_have_one_effect(store):
    id = searched(store)
    store.artifacts.create(id, 0, 2, "r1")
    store.artifacts.fail(store.artifacts.claim("me", 60), "no\nluck")
    again = store.artifacts.create(id, 0, 2, "r1")  # sent again, late
    assert (again.state, again.error) == (ArtifactState.FAILED, "no luck")
    assert store.artifacts.create(id, 0, 0, "r2").state is ArtifactState.QUEUED
    with pytest.raises(AlreadyExists):
        store.artifacts.create(id, 0, 3, "r2")


def test_whoever_was_late_is_fenced(store, tmp_path):
    id, folder = searched(store), folder_of(tmp_path / "made")
    store.artifacts.create(id, 0, 1)
    late = store.artifacts.claim("late", -1)  # its lease has ended already
    claim = store.artifacts.claim("me", 60)
    assert claim.epoch == late.epoch + 1
    assert not store.artifacts.renew(late, 60)
    assert not store.artifacts.tell(late, 1, 2, "")
    for end in (
        lambda: store.artifacts.finish(late, folder),
        lambda: store.artifacts.fail(late, ""),
    ):
        with pytest.raises(Fenced):
            end()
    assert store.artifacts.renew(claim, 60)
    assert store.artifacts.get(id, 0).state is ArtifactState.RUNNING
    assert count_pieces(store) == 0


def test_a_lost_maker_is_replaced_but_not_for_ever(store):
    id = searched(store)
    store.artifacts.create(id, 0, 1)
    for _ in range(10):  # whoever lets go because its server stops is not counted
        store.artifacts.claim("me", 60)
        store.release("me")
    for _ in range(TRIES):
        assert store.artifacts.claim("me", 60) is not None
        store.artifacts.lost("me")
    assert store.artifacts.claim("me", 60) is None
    failed = store.artifacts.get(id, 0)
    assert (failed.state, failed.error) == (
        ArtifactState.FAILED,
        "whoever made it was lost, 3 times",
    )
    assert store.artifacts.create(id, 0, 0).state is ArtifactState.QUEUED  # on request, again
    assert store.artifacts.claim("me", 60) is not None


def test_content_is_there_once_and_goes_with_the_last_who_has_it(store, tmp_path):
    folder = folder_of(tmp_path / "made")
    one, other = searched(store), searched(store)
    made(store, one, folder)
    alone = count_pieces(store)
    made(store, other, folder)
    assert count_pieces(store) == alone > len(CONTENTS)
    store.delete_search(one)
    assert content_of(store, other, "model.safetensors") == CONTENTS["model.safetensors"]
    store.delete_search(other)
    assert count_pieces(store) == 0


def test_a_maker_of_what_was_deleted_is_fenced(store, tmp_path):
    id = searched(store)
    store.artifacts.create(id, 0, 1)
    claim = store.artifacts.claim("me", 60)
    store.delete_search(id)
    with pytest.raises(Fenced):
        store.artifacts.finish(claim, folder_of(tmp_path / "made"))
    assert count_pieces(store) == 0


def test_over_the_wire(store, url, tmp_path):
    id = searched(store)
    with serving(url) as address, Client(address) as client:
        assert client.keep(id, 0, seeds=2).state is ArtifactState.QUEUED
        for seeds in (-1, 101):
            with pytest.raises(InvalidRequest, match="1 to 100"):
                client.keep(id, 0, seeds=seeds)
        store.artifacts.finish(store.artifacts.claim("me", 60), folder_of(tmp_path / "made"))
        to = client.fetch(id, 0, tmp_path / "fetched")
        assert {path.name: path.read_bytes() for path in to.iterdir()} == CONTENTS

        assert client.fetch(id, 0, to) == to  # it is there
        with pytest.raises(NotFound):
            client.artifact(id, 1)


def test_a_fetch_goes_on_where_one_ended(store, url, tmp_path):
    id, to = searched(store), tmp_path / "fetched"
    made(store, id, folder_of(tmp_path / "made"))
    whole = CONTENTS["model.safetensors"]
    for begun in (whole[: PIECE + 7], b"x" * 9, whole + b"x", b""):
        with serving(url) as address, Client(address) as client:
            half = Download(to, client.artifact(id, 0))
            (model,) = [part for part in half.missing() if part.file.path == "model.safetensors"]
            model.add(0, begun)
            asked = []
            ask = client._wire.stream

            def stream(method, request, ask=ask, asked=asked):
                if request.path == "model.safetensors":
                    asked.append(request.offset)
                return ask(method, request)

            client._wire.stream = stream
            with pytest.raises(InvalidRequest, match="another process fetches it"):
                client.fetch(id, 0, to)
            half.close()
            client.fetch(id, 0, to)
        assert {path.name: path.read_bytes() for path in to.iterdir()} == CONTENTS
        assert asked == {PIECE + 7: [PIECE + 7], 9: [9, 0]}.get(len(begun), [0])
        assert [path for path in tmp_path.iterdir() if path.name.endswith(".part")] == []
        shutil.rmtree(to)


def test_folders_of_others_are_left_alone(store, url, tmp_path):
    one, other = searched(store), searched(store)
    made(store, one, folder_of(tmp_path / "made"))
    contents = {name: content + b"!" for name, content in CONTENTS.items()}
    made(store, other, folder_of(tmp_path / "others", contents))
    with serving(url) as address, Client(address) as client:
        to = client.fetch(one, 0, tmp_path / "fetched")
        with pytest.raises(InvalidRequest, match="something else"):
            client.fetch(other, 0, to)
        assert {path.name: path.read_bytes() for path in to.iterdir()} == CONTENTS
        (to / "mine.txt").write_text("mine")
        with pytest.raises(InvalidRequest, match="something else"):
            client.fetch(one, 0, to)
        with pytest.raises(InvalidRequest, match="not a folder"):
            client.fetch(one, 0, to / "mine.txt")

        third = searched(store)
        with pytest.raises(InvalidRequest, match="something else"):
            client.fetch(third, 0, to)
        with pytest.raises(NotFound):  # nothing was asked for
            client.artifact(third, 0)


def test_one_that_failed_is_told(store, url, tmp_path):
    id = searched(store)
    with serving(url) as address, Client(address) as client:
        client.keep(id, 0, request_id="r")
        store.artifacts.fail(
            store.artifacts.claim("me", 60), "it says something else when compiled"
        )
        failed = client.keep(id, 0, request_id="r")
        assert failed.error == "it says something else when compiled"

        told = []

        def tell(record):
            told.append(record.state)
            if record.state is ArtifactState.QUEUED:
                store.artifacts.fail(store.artifacts.claim("me", 60), "again")

        with pytest.raises(Failed, match="trial 0 could not be kept: again"):
            client.fetch(id, 0, tmp_path / "fetched", told=tell)
        assert told == [ArtifactState.QUEUED, ArtifactState.FAILED]
        assert not (tmp_path / "fetched").exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/x", "..\\x"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    with pytest.raises(InternalError, match="a file with the name"):
        Part(tmp_path, ArtifactFile(name, 1, "0"))
