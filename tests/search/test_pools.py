"""Every pool obeys the laws of pools; a Ray pool leaves nothing behind, however it ends."""

import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from formwright.search import PoolError
from formwright.search.run.pool import SerialPool
from formwright.search.run.ray_pool import RayPool
from formwright.search.testing_pool import PoolContract, job, toy


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
pool.submit(job(1)); print(len(pool.wait(60)), flush=True)
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
        started = psutil.Process(owner.pid).children(recursive=True)
        assert any("_Worker" in " ".join(process.cmdline()) for process in started)
        assert list(short.glob("fw-ray-*"))
        if end == "close":
            owner.stdin.write("\n")
            owner.stdin.flush()
            assert owner.stdout.readline() == "closed\n"
        else:
            owner.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(started, timeout=30)
        assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
        assert not list(short.glob("fw-ray-*"))
    finally:
        owner.kill()
        owner.wait()


CLUSTER = """
import subprocess, sys, ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
address = ray.get_runtime_context().gcs_address
command = [sys.executable, "-m", "ray.util.client.server", "--mode", "specific-server"]
command += ["--address", address, "--host", "127.0.0.1", "--port", sys.argv[1]]
server = subprocess.Popen(command)
print(address, flush=True)
sys.stdin.readline()
server.kill()
ray.shutdown()
"""


def test_a_cluster_is_used_by_its_address_or_through_its_client_server(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # both sides would want the same token
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER, port], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        address = cluster.stdout.readline().decode().strip()
        for given in (address, f"ray://127.0.0.1:{port}"):
            users = [sys.executable, "-c", USES, given]
            done = subprocess.run(users, capture_output=True, text=True, timeout=120)
            said = [line[2:] for line in done.stdout.splitlines() if line.startswith("> ")]
            assert said == ["0 1", "True", "7"], done.stderr[-2000:]
    finally:
        cluster.communicate(b"\n", timeout=60)


USES = """
import sys, time
from formwright.search.run.ray_pool import RayPool
from formwright.search.testing_pool import DIES, PoolContract, job, toy
for _ in range(100):  # until the client server listens
    try:
        pool = RayPool(toy, workers=2, address=sys.argv[1])
        break
    except Exception as error:
        time.sleep(0.2)
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
        assert [outcome.job.number for outcome in first.wait(30)] == [1]
        first.close()
        assert [outcome.job.number for outcome in second.wait(30)] == [2]
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


def test_a_pool_needs_a_worker():
    with pytest.raises(PoolError, match="one worker or more, got 0"):
        RayPool(toy, workers=0)


def test_a_cluster_that_is_not_there_is_one_line():
    with pytest.raises(PoolError, match="no Ray cluster answers at") as refused:
        RayPool(toy, workers=1, address="127.0.0.1:1")
    assert "\n" not in str(refused.value)
