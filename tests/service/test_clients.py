"""Clients say the same, whoever answers: over a server, asynchronous or not, and of a database."""

import asyncio
import inspect
import threading
from dataclasses import replace

import pytest

from formwright.search import SearchSpec, load
from formwright.service import ArtifactState, AsyncClient, Client, SearchState
from formwright.service.errors import InvalidRequest, NotFound, OutOfRange, Stale, Unavailable
from formwright.service.store import Store, open_store

from .servers import serving
from .test_artifacts import CONTENTS, folder_of, made, searched

# method, arguments: whatever can be asked of a search that has ended, and what is refused
ASKED = [
    ("get", ["ID"], {}),
    ("get", ["nobody"], {}),
    ("get", ["UPPER"], {}),
    ("searches", [], {"order_by": "create_time desc"}),
    ("searches", ["state = SUCCEEDED"], {}),
    ("searches", ["state = NOWHERE"], {}),
    ("trial", ["ID", 0], {}),
    ("trial", ["ID", 9], {}),
    ("trials", ["ID"], {"filter": "metrics.params > 3"}),
    ("trials", ["ID"], {"order_by": "speed"}),
    ("best", ["ID"], {"objectives": ["quality"]}),
    ("best", ["ID"], {"objectives": ["speed"]}),
    ("best", ["ID"], {"limit": -1}),
    ("architecture", ["FINGERPRINT"], {}),
    ("architecture", ["a1:0"], {}),
    ("artifact", ["ID", 0], {}),
    ("artifact", ["ID", 1], {}),
    ("keep", ["ID", 1], {}),
    ("keep", ["ID", 0], {"seeds": 9}),
    ("watch", ["ID"], {}),
    ("watch", ["ID", 3], {}),
    ("watch", ["ID", 999], {}),
    ("watch", ["nobody"], {}),
    ("watch", ["ID", -1], {}),
    ("plan", [SearchSpec(trials=3)], {}),
    ("plan", [SearchSpec(space="nowhere")], {}),
    ("cancel", ["ID"], {}),
    ("pause", ["ID"], {}),
    ("update", ["ID"], {"trials": 9}),
    ("update", ["ID"], {"display_name": "x" * 201}),
    ("update", ["ID"], {"revision": 9, "display_name": "x"}),
    ("update", ["ID"], {"colour": "red"}),
    ("delete", ["nobody"], {}),
    ("delete", ["nobody"], {"missing_ok": True}),
]


def said(ask):
    """What comes back, or what is raised."""
    try:
        return ask()
    except Exception as error:
        return type(error), str(error), getattr(error, "field", None)


@pytest.fixture
def kept(store, tmp_path):
    """A search that has ended, with an artefact."""
    id = searched(store)
    made(store, id, folder_of(tmp_path / "made"))
    return id


def given(arguments, **named):
    return [named.get(each, each) if isinstance(each, str) else each for each in arguments]


@pytest.mark.parametrize(("method", "arguments", "named"), ASKED, ids=lambda v: None)
def test_clients_agree(kept, store, url, method, arguments, named):
    arguments = given(arguments, ID=kept, FINGERPRINT=store.get_trial(kept, 0).fingerprint)

    def blocking(client):
        answer = getattr(client, method)(*arguments, **named)
        return list(answer) if inspect.isgenerator(answer) else answer

    async def awaited(made):
        async with made() as client:
            answer = getattr(client, method)(*arguments, **named)
            return [x async for x in answer] if hasattr(answer, "__anext__") else await answer

    with serving(url) as address, Client(address) as remote, Client.local(url) as local:
        answers = [
            said(lambda: blocking(remote)),
            said(lambda: blocking(local)),
            said(lambda: asyncio.run(awaited(lambda: AsyncClient(address)))),
            said(lambda: asyncio.run(awaited(lambda: AsyncClient.local(url)))),
        ]
    assert answers.count(answers[0]) == 4, answers


def test_they_have_the_same_methods():
    def methods(of):
        found = inspect.getmembers(of, inspect.isfunction)
        return {n: [*inspect.signature(f).parameters] for n, f in found if not n.startswith("_")}

    assert methods(Client) == methods(AsyncClient)


@pytest.mark.parametrize("local", [False, True])
def test_asynchronous_watches_go_on_while_others_work(store, url, local):
    async def run(made):
        async with made() as client:
            search = await client.submit(SearchSpec(), request_id="r")
            assert await client.submit(SearchSpec(), request_id="r") == search
            seen = []

            async def watch():
                async for event in client.watch(search.id):
                    seen.append(event.state)

            watching = asyncio.create_task(watch())
            while not seen:
                await asyncio.sleep(0.01)
            await client.pause(search.id)
            updated = await client.update(search.id, priority=7)
            with pytest.raises(Stale):
                await client.update(search.id, revision=updated.revision - 1, priority=8)
            await client.resume(search.id)
            await client.cancel(search.id)
            await watching
            assert (await client.wait(search.id)).state is SearchState.CANCELLED
            await client.delete(search.id)
            with pytest.raises(NotFound):
                await client.get(search.id)
            return seen

    def made_by(address):
        return AsyncClient.local(url) if local else AsyncClient(address)

    with serving(url) as address:
        seen = asyncio.run(run(lambda: made_by(address)))
    q, p, c = SearchState.QUEUED, SearchState.PAUSED, SearchState.CANCELLED
    assert seen == [q, p, p, q, c]


@pytest.mark.parametrize("local", [False, True])
def test_asynchronous_fetches(store, url, kept, tmp_path, local):
    async def run(made):
        async with made() as client:
            return await client.fetch(kept, 0, tmp_path / "fetched")

    with serving(url) as address:
        to = asyncio.run(run(lambda: AsyncClient.local(url) if local else AsyncClient(address)))
    assert {path.name: path.read_bytes() for path in to.iterdir()} == CONTENTS


def closed_while_it_watches(made):
    """What a watch of a quiet search, and what is asked afterwards, say once its client is
    closed."""

    async def run():
        client = made()
        search = await client.submit(SearchSpec())
        watch = client.watch(search.id)
        await anext(watch)
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0.3)
        await client.close()
        done = await asyncio.wait_for(asyncio.gather(waiting, return_exceptions=True), 60)
        return [*done, *await asyncio.gather(client.get(search.id), return_exceptions=True)]

    return asyncio.run(run())


@pytest.mark.parametrize("local", [False, True])
def test_a_client_that_is_closed_says_so(url, local):
    with serving(url) as address:
        client = Client.local(url) if local else Client(address)
        search = client.submit(SearchSpec())
        watch = client.watch(search.id)
        next(watch)
        threading.Timer(0.3, client.close).start()
        with pytest.raises(Unavailable):
            next(watch)
        for ask in (lambda: client.get("abc"), lambda: list(client.watch("abc"))):
            with pytest.raises(Unavailable, match="closed"):
                ask()
        made = (lambda: AsyncClient.local(url)) if local else (lambda: AsyncClient(address))
        watched, asked = closed_while_it_watches(made)
        assert isinstance(watched, Unavailable)
        assert isinstance(asked, Unavailable)
        assert "closed" in str(asked)


@pytest.mark.parametrize(("call", "method"), [("get", "get_search"), ("watch", "progress_of")])
def test_a_local_client_that_is_closed_while_it_reads_says_so(path, call, method, monkeypatch):
    with Client.local(path) as client:
        id, read = client.submit(SearchSpec()).id, getattr(Store, method)

        def closed_first(store, *given):
            client.close()
            return read(store, *given)

        monkeypatch.setattr(Store, method, closed_first)
        with pytest.raises(Unavailable, match="is closed"):
            client.get(id) if call == "get" else list(client.watch(id))


@pytest.mark.parametrize("local", [False, True])
def test_asynchronous_watches_can_be_cancelled(url, local):
    async def run(made):
        async with made() as client:
            search = await client.submit(SearchSpec())

            async def watch():
                async for _ in client.watch(search.id):
                    pass

            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await watch()
            many = [asyncio.create_task(watch()) for _ in range(40)]
            await asyncio.sleep(0.3)
            assert (await client.get(search.id)).id == search.id  # nobody is kept waiting
            for task in many:
                task.cancel()
            return await asyncio.gather(*many, return_exceptions=True)

    with serving(url) as address:
        made = (lambda: AsyncClient.local(url)) if local else (lambda: AsyncClient(address))
        ended = asyncio.run(asyncio.wait_for(run(made), 120))
    assert {type(error) for error in ended} == {asyncio.CancelledError}


def test_local_watches_see_what_others_do(store, url):
    search = store.create_search(SearchSpec(), "")
    with Client.local(url) as client:
        events = client.watch(search.id)
        assert next(events).state is SearchState.QUEUED
        threading.Timer(0.1, client.cancel, [search.id]).start()
        assert [event.state for event in events] == [SearchState.CANCELLED]
        with pytest.raises(OutOfRange):
            list(client.watch(search.id, 99))
        with pytest.raises(InvalidRequest):
            list(client.watch(search.id, 2**63))


def test_a_trial_is_kept_by_the_scheduler_of_a_server(client, small, tmp_path):
    """The whole of it: searched, made by a keeper, fetched, loaded."""
    spec = replace(small, trials=1, objectives=("params", "flops"), sampler="random")
    search = client.wait(client.submit(spec).id)
    best = client.best(search.id)[0]
    told = []
    to = client.fetch(search.id, best.number, tmp_path / "kept", seeds=1, told=told.append)
    assert {record.state for record in told} >= {ArtifactState.QUEUED, ArtifactState.READY}
    architecture, model = load(to)
    assert architecture.fingerprint() == best.fingerprint
    assert sum(p.numel() for p in model.parameters()) == best.values["params"]
    record = client.artifact(search.id, best.number)
    assert (record.seeds, record.done, record.step) == (1, record.total, "")
    assert {file.path for file in record.files} == {path.name for path in to.iterdir()}


def test_a_store_of_a_client_is_that_of_a_server(path):
    with Client.local(path) as client:
        search = client.submit(SearchSpec(), display_name="mine")
    store = open_store(str(path))
    assert store.get_search(search.id) == search
    store.close()
