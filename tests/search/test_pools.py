"""Every pool obeys the laws of pools; a Ray pool leaves nothing behind, however it ends."""

import io
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from formwright.search import PoolError
from formwright.search.run import ray_pool, reaper
from formwright.search.run.pool import SerialPool
from formwright.search.run.ray_pool import RayPool
from formwright.search.testing_pool import PoolContract, job, toy
from formwright.testing_processes import alive, descendants, left, running


class TestSerialPool(PoolContract):
    isolates = False

    def make(self):
        return SerialPool(toy)


class TestRayPool(PoolContract):
    isolates = True

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _one_ray(cls):
        """One Ray for all of these; a pool that finds one up leaves it up."""
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()

    def make(self):
        return RayPool(toy, workers=2, grace_s=0.5)


OWN = """
import sys, time
from formwright.search.run.ray_pool import RayPool
from formwright.search.testing_pool import HANGS, job, toy
pool = RayPool(toy, workers=2)
pool.submit(job(1)); print(len(pool.wait(300)), flush=True)
pool.submit(job(2, HANGS))
sys.stdin.readline()
pool.close()
print("closed", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def short():
    """A folder for temporary files whose name is short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="fw", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.parametrize("end", ["close", "kill"])
def test_a_ray_pool_leaves_no_process_and_no_folder(end, monkeypatch, short):
    monkeypatch.setenv("TMPDIR", str(short))
    owner = subprocess.Popen(
        [sys.executable, "-c", OWN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert owner.stdout.readline() == "1\n"
        started = descendants(owner.pid)
        assert running(started, "_Worker")
        assert list(short.glob("fw-ray-*"))
        if end == "close":
            owner.stdin.write("\n")
            owner.stdin.flush()
            assert owner.stdout.readline() == "closed\n"
        else:
            owner.send_signal(signal.SIGKILL)
        assert left(started, 180) == []
        assert not list(short.glob("fw-ray-*"))
    finally:
        owner.kill()
        owner.wait()


# a port that is free now may be somebody's when the server binds it: then it ends
CLUSTER = """
import socket, subprocess, sys, time, psutil, ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
address = ray.get_runtime_context().gcs_address
command = [sys.executable, "-m", "ray.util.client.server", "--mode", "specific-server"]
command += ["--address", address, "--host", "127.0.0.1", "--port"]
def listens(process):
    try:
        return any(c.status == psutil.CONN_LISTEN for c in process.net_connections("tcp"))
    except psutil.Error:
        return False
for _ in range(5):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    server = psutil.Popen([*command, port])
    while server.poll() is None and not listens(server):
        time.sleep(0.05)
    if server.poll() is None:
        break
print(address, "127.0.0.1:" + port, flush=True)
sys.stdin.readline()
server.kill()
ray.shutdown()
"""


def test_a_cluster_is_used_by_its_address_or_through_its_client_server(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # both sides would want the same token
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        address, served = cluster.stdout.readline().decode().split()
        for given in (address, f"ray://{served}"):
            users = [sys.executable, "-c", USES, given]
            done = subprocess.run(users, capture_output=True, text=True, timeout=600)
            said = [line[2:] for line in done.stdout.splitlines() if line.startswith("> ")]
            assert said == ["0 1", "True", "7"], done.stderr[-2000:]
    finally:
        try:
            cluster.communicate(b"\n", timeout=300)
        finally:
            cluster.kill()


USES = """
import sys
from formwright.search.run.ray_pool import RayPool
from formwright.search.testing_pool import DIES, PoolContract, job, toy
pool = RayPool(toy, workers=2, address=sys.argv[1])
contract = PoolContract()
for number in range(2):
    pool.submit(job(number))
print('>', *sorted(contract.collect(pool, 2)))
pool.submit(job(3, DIES))
print('>', contract.collect(pool, 1)[3].lost)
pool.submit(job(7))
print('>', *contract.collect(pool, 1))
pool.close()
"""


def test_pools_of_one_process_share_its_ray():
    import ray

    first, second = RayPool(toy, workers=1), RayPool(toy, workers=1)
    try:
        second.submit(job(2))
        first.submit(job(1))
        assert [outcome.job.number for outcome in first.wait(300)] == [1]
        first.close()
        assert [outcome.job.number for outcome in second.wait(300)] == [2]
    finally:
        second.close()
        first.close()
    assert not ray.is_initialized()


def test_a_ray_that_is_too_small_is_said_at_once():
    import ray

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        with pytest.raises(PoolError, match="2 workers of 1 CPUs each want 2, Ray has 1"):
            RayPool(toy, workers=2)
        pool = RayPool(toy, workers=2, cpus=0.5)
        for number in range(2):
            pool.submit(job(number))
        assert set(PoolContract().collect(pool, 2)) == {0, 1}
        pool.close()
        assert ray.is_initialized()
    finally:
        ray.shutdown()


@pytest.mark.parametrize("when", ["fails", "is interrupted"])
def test_a_start_that_does_not_succeed_leaves_nothing(when, short, monkeypatch):
    import ray

    monkeypatch.setattr(tempfile, "tempdir", str(short))
    before = set(psutil.Process().children())
    error = RuntimeError("no") if when == "fails" else KeyboardInterrupt()

    def init(**options):
        raise error

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(PoolError if when == "fails" else KeyboardInterrupt):
        RayPool(toy, workers=1)
    assert list(short.iterdir()) == []
    assert set(psutil.Process().children()) <= before


@pytest.mark.parametrize(("timed_out", "starts"), [(1, 2), (2, 2), (0, 1)])
def test_a_node_that_did_not_register_in_time_is_started_once_more(
    timed_out, starts, short, monkeypatch
):
    """And whatever else is wrong is said at once."""
    import ray

    monkeypatch.setattr(tempfile, "tempdir", str(short))
    folders = []

    def init(**options):
        folders.append(options["_temp_dir"])
        assert [str(path) for path in short.iterdir()] == folders[-1:]  # nothing of the other
        if len(folders) <= timed_out:
            raise Exception("The current node timed out during startup. This could happen because")
        if not timed_out:
            raise RuntimeError("no")

    monkeypatch.setattr(ray, "init", init)
    if timed_out == 1:
        ray_pool._start(1, None)()
    else:
        with pytest.raises(PoolError, match="Ray did not start: "):
            ray_pool._start(1, None)
    assert len(folders) == starts
    assert list(short.iterdir()) == []


def test_what_the_dead_have_started_is_found_too(short, monkeypatch):
    """In the moment before they were killed; and a folder that is there again is removed again."""
    folder = short / "files"
    command = [sys.executable, "-c", "import time; time.sleep(600)", str(folder)]
    looked, looks, started = reaper._found, [], []

    def found(rows, given):
        looks.append(given)
        if len(looks) <= 2:
            started.append(psutil.Popen(command))
            folder.mkdir()
        yield from looked(rows, given)

    monkeypatch.setattr(reaper, "_found", found)
    reaper.end([], str(folder))
    assert [alive(process) for process in started] == [False] * 2
    assert not folder.exists()
    assert len(looks) == 3  # the last one found nothing


def test_a_parent_that_died_at_once_has_nothing_ended(monkeypatch):
    """Every process has the empty word on its command line. Nobody is looked for here in earnest:
    if this fails, it must not end all that runs."""
    looked = []
    monkeypatch.setattr(reaper, "_found", lambda rows, folder: looked.append(folder) or iter(()))
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    reaper.reap()
    assert looked == []


def test_a_pool_needs_a_worker():
    with pytest.raises(PoolError, match="one worker or more, got 0"):
        RayPool(toy, workers=0)


def test_a_cluster_that_is_not_there_is_one_line():
    with pytest.raises(PoolError, match="no Ray cluster answers at") as refused:
        RayPool(toy, workers=1, address="127.0.0.1:1")
    assert "\n" not in str(refused.value)
