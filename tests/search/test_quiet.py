"""Work and measurements never overlap, nobody starves, and the dead hold nothing."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress

import pytest

from formwright.search.evaluate import quiet
from formwright.search.evaluate.quiet import VARIABLE, alone, folder, working

HANG = 20.0  # seconds; only a hang takes so long

START = "import os, sys, time\nfrom formwright.search.evaluate.quiet import alone, working\n"
SAY = "print('in', flush=True)\n"
HOLD_WORKING = START + f"with working():\n    {SAY}    sys.stdin.readline()"
HOLD_ALONE = START + f"with alone():\n    {SAY}    sys.stdin.readline()"
LOOP = START + f"{SAY}while True:\n    with working():\n        time.sleep(0.003)"
# a slice is a file while it lasts
MARK = (
    START
    + SAY
    + """
mark = os.path.join(sys.argv[1], str(os.getpid()))
while True:
    with working():
        open(mark, "w").close()
        time.sleep(0.002)
        os.unlink(mark)
"""
)
FORKING = (
    START
    + """
with alone():
    child = os.fork()
    if child == 0:
        print(os.getpid(), flush=True)
    time.sleep(100)
"""
)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "quiet"))


@pytest.fixture
def start():
    """Starts a script in a process; returns when it has printed its first line."""
    processes = []

    def started(script, *args):
        process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        process.first_line = process.stdout.readline()
        assert process.first_line
        return process

    yield started
    for process in processes:
        process.kill()
        process.communicate()


def soon():
    return time.monotonic() + 0.1


def in_time():
    return time.monotonic() + HANG


def entering(section):
    """A thread that goes through `section`, and an event that it has been inside."""
    been = threading.Event()

    def go():
        with section():
            been.set()

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    return been, thread


def test_a_measurer_waits_for_work_in_another_process(start):
    worker = start(HOLD_WORKING)
    with pytest.raises(TimeoutError), alone(soon()):
        pass
    been, thread = entering(alone)
    assert not been.wait(0.1)
    worker.communicate("\n")
    assert been.wait(HANG)
    thread.join()


def test_work_waits_for_a_measurer_in_another_process(start):
    measurer = start(HOLD_ALONE)
    been, thread = entering(working)
    assert not been.wait(0.1)
    with pytest.raises(TimeoutError), alone(soon()):
        pass
    measurer.communicate("\n")
    assert been.wait(HANG)
    thread.join()


def test_threads_exclude_each_other_too():
    with alone():
        been, thread = entering(working)
        other, waiting = entering(alone)
        assert not been.wait(0.1)
        assert not other.is_set()
    assert been.wait(HANG)
    assert other.wait(HANG)
    thread.join()
    waiting.join()


def test_slices_run_side_by_side(start):
    start(HOLD_WORKING)
    with working():
        been, thread = entering(working)
        assert been.wait(HANG)
        thread.join()


def test_nothing_works_while_somebody_measures(start, tmp_path):
    for _ in range(2):
        start(MARK, tmp_path)
    seen, rounds, ends = set(), 0, in_time()
    while rounds < 20 or (not seen and time.monotonic() < ends):
        rounds += 1
        with alone(in_time() if rounds % 2 else None):
            assert not [name for name in os.listdir(tmp_path) if name.isdigit()]
            time.sleep(0.002)
            assert not [name for name in os.listdir(tmp_path) if name.isdigit()]
        time.sleep(0.004)
        seen.update(name for name in os.listdir(tmp_path) if name.isdigit())
    assert seen  # there was work to be kept out


@pytest.mark.parametrize("limited", [False, True])
def test_a_stream_of_work_does_not_starve_a_measurer(start, limited):
    start(LOOP)
    start(LOOP)
    for _ in range(10):
        been, thread = entering(lambda: alone(in_time() if limited else None))
        assert been.wait(HANG)
        thread.join()


@pytest.mark.parametrize("script", [HOLD_WORKING, HOLD_ALONE])
def test_the_dead_hold_nothing(start, script):
    process = start(script)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with alone(in_time()):
        pass
    with working():
        pass


def test_a_forked_child_does_not_inherit_what_its_parent_holds(start):
    parent = start(FORKING)
    child = int(parent.first_line)
    parent.kill()
    parent.wait()
    try:
        with alone(in_time()):
            os.kill(child, 0)  # it is still there
    finally:
        os.kill(child, signal.SIGKILL)


def test_inside_a_slice_or_a_measurement_a_slice_is_nothing():
    with alone():
        with working(), alone():
            pass
        with pytest.raises(TimeoutError):
            in_another_thread(lambda: alone(soon()))
    with working():
        with working():
            pass
        with pytest.raises(TimeoutError):  # the inner one did not end the outer one
            in_another_thread(lambda: alone(soon()))
    with alone(in_time()):
        pass


def in_another_thread(section):
    """Goes through `section` in a thread, and raises here what it raised there."""
    raised = []

    def go():
        try:
            with section():
                pass
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def test_measuring_inside_a_slice_is_refused():
    with working(), pytest.raises(RuntimeError, match="leave the slice first"), alone():
        pass


def locks_open():
    """How many descriptors of this process are of files in the folder of the locks."""
    found = 0
    for name in os.listdir("/dev/fd"):
        with suppress(OSError):  # the one that lists them is closed by now
            found += os.readlink(f"/dev/fd/{name}").startswith(folder() + os.sep)
    return found


def test_an_error_inside_frees_the_locks_and_closes_the_files():
    with working():
        assert locks_open() == 1
    for section in (working, alone):
        with pytest.raises(ZeroDivisionError), section():
            raise ZeroDivisionError
    with alone(in_time()):
        pass
    assert locks_open() == 0


def test_the_folder_is_the_users_own(monkeypatch):
    monkeypatch.delenv(VARIABLE)
    assert os.path.basename(folder()) == f"formwright-{os.getuid()}"
    monkeypatch.setenv(VARIABLE, "/somewhere")
    assert folder() == "/somewhere"


def test_work_goes_on_beside_a_measurer_that_hangs(start, monkeypatch):
    monkeypatch.setattr("formwright.search.evaluate.quiet.PATIENCE_S", 0.2)
    start(HOLD_ALONE)
    done = []

    for _ in range(2):
        with working():
            done.append(time.monotonic())
    assert len(done) == 2


class Clock:
    """Of the locks: it goes only while the thread named "measurer" sleeps, so that a machine that
    stands still is no time at all. Counts the naps of each thread."""

    def __init__(self):
        self.now, self.naps = 0.0, Counter()

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        name = threading.current_thread().name
        if name == "measurer":
            self.now += seconds
        self.naps[name] += 1
        time.sleep(0.001)


def until(true):
    """Waits until it is; fails if it never is."""
    ends = in_time()
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.001)


def test_a_measurer_that_waits_is_not_one_that_hangs(start, monkeypatch):
    """However long the slice is that it waits for, nobody works while it then measures."""
    clock, spans = Clock(), {}
    monkeypatch.setattr(quiet, "time", clock)
    monkeypatch.setattr(quiet, "PATIENCE_S", 0.03)
    monkeypatch.setattr(quiet, "SIGN_S", 0.01)
    compiler = start(HOLD_WORKING)

    def measure():
        with alone() as alive:
            entered = clock.now
            for _ in range(10):
                clock.sleep(0.01)
                alive()
                looked = clock.naps["worker"]
                until(lambda: clock.naps["worker"] > looked or "working" in spans)  # noqa: B023
            spans["alone"] = entered, clock.now

    def work():
        with working():
            spans["working"] = clock.now

    measurer = threading.Thread(target=measure, name="measurer")
    worker = threading.Thread(target=work, name="worker")
    measurer.start()
    until(lambda: clock.naps["measurer"])  # it is through the turnstile
    worker.start()
    until(lambda: clock.naps["worker"])
    waited = clock.now + 3 * quiet.PATIENCE_S
    until(lambda: clock.now > waited)
    assert spans == {}
    compiler.stdin.write("\n")
    compiler.stdin.flush()
    for thread in (measurer, worker):
        thread.join(HANG)

    entered, left = spans["alone"]
    assert left - entered > 3 * quiet.PATIENCE_S
    assert spans["working"] >= left
