"""The log in memory and the one in a file obey the laws of logs; a file survives a kill."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from formwright.search import Fenced, FileLog, MemoryLog, SearchSpec, SpecError, TrialState
from formwright.search.testing import LogContract, a_measurement, a_trial

SPEC = SearchSpec(trials=100)


class TestMemoryLog(LogContract):
    def make(self):
        return MemoryLog()

    def cancel(self, log):
        log.cancel()


class TestFileLog(LogContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder, self.count = tmp_path, 0

    def make(self):
        self.count += 1
        return FileLog(self.folder / f"{self.count}.jsonl", SPEC)

    def cancel(self, log):
        log.cancel()


def test_a_paused_search_keeps_its_trials_and_goes_on():
    log = MemoryLog()
    log.append(a_trial(), a_trial().started())
    log.pause()

    assert not log.wanted()
    with pytest.raises(Fenced, match="trial 1: the search was paused"):
        log.append(a_trial(1))
    assert [trial.state for trial in log.history()] == [TrialState.RUNNING]
    log.resume()
    assert log.wanted()
    log.append(a_trial(1))


def test_a_cancelled_search_is_not_resumed():
    log = MemoryLog()
    log.cancel()
    log.resume()
    assert not log.wanted()


def test_a_file_is_read_as_it_was_written(tmp_path):
    path, started = tmp_path / "log.jsonl", a_trial().started()
    first = FileLog(path, SPEC)
    first.append(a_trial(), started)
    first.append(started.climbed(a_measurement()))
    first.append(a_trial(1))
    first.close()
    again = FileLog(path, SPEC)

    assert again.history() == first.history()
    assert again.events() == first.events()
    kinds = [type(value) for value in again.history()[0].values.values()]
    assert kinds == [type(value) for value in first.history()[0].values.values()]
    first = again.history()[0].started()
    again.append(first)
    again.cancel()
    again.close()
    ended = FileLog(path, SPEC)
    assert not ended.wanted()
    assert {trial.state for trial in ended.history()} == {TrialState.PRUNED}


def test_a_line_that_was_cut_off_is_dropped(tmp_path):
    path = tmp_path / "log.jsonl"
    log = FileLog(path, SPEC)
    log.append(a_trial())
    log.append(a_trial().started())
    log.close()
    whole = path.read_bytes()
    for cut in (1, 40, len(whole.splitlines(keepends=True)[-1]) - 1):
        path.write_bytes(whole[:-cut])
        again = FileLog(path, SPEC)
        assert again.history() == [a_trial()]
        again.append(a_trial().started())
        again.close()
        assert path.read_bytes() == whole


def test_a_file_of_another_search_is_refused(tmp_path):
    path = tmp_path / "log.jsonl"
    FileLog(path, SPEC).close()
    before = path.read_bytes()
    with pytest.raises(SpecError, match=r"log.jsonl: not a log of this search: it is of .*digits"):
        FileLog(path, replace(SPEC, seed=1))
    assert path.read_bytes() == before
    for text in ("hello\n", "[1]\n", json.dumps({"trials": [{"number": 0}]}) + "\n"):
        path.write_text(text)
        with pytest.raises(SpecError, match="not a log of this search"):
            FileLog(path, SPEC)
        assert path.read_text() == text


def test_one_process_has_it(tmp_path):
    log = FileLog(tmp_path / "log.jsonl", SPEC)
    with pytest.raises(Fenced, match="another process runs this search"):
        FileLog(tmp_path / "log.jsonl", SPEC)
    log.close()
    FileLog(tmp_path / "log.jsonl", SPEC).close()


APPENDS = """
import sys
from formwright.search import FileLog, SearchSpec
from formwright.search.testing import a_trial
log = FileLog(sys.argv[1], SearchSpec(trials=100))
for number in range(100_000):
    log.append(a_trial(number))
    print(number, flush=True)
"""


def test_what_a_file_has_acknowledged_survives_a_kill(tmp_path):
    path = tmp_path / "log.jsonl"
    command = [sys.executable, "-c", APPENDS, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    seen = [process.stdout.readline() for _ in range(50)]
    process.send_signal(signal.SIGKILL)
    seen += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    acknowledged = len([line for line in seen if line.endswith("\n")])

    kept = len(FileLog(path, SPEC).history())

    assert acknowledged <= kept <= acknowledged + 1


def test_a_file_of_another_kind_is_left_as_it_is(tmp_path):
    for at, text in enumerate(('{"version": 1, "trials": []}', "x", '{"trials": []}\n', "\n")):
        path = tmp_path / f"{at}.json"
        path.write_text(text)
        with pytest.raises(SpecError, match="not a log of this search"):
            FileLog(path, SPEC)
        assert path.read_text() == text


def test_a_write_that_fails_leaves_no_half(tmp_path, monkeypatch):
    path, real = tmp_path / "log.jsonl", os.pwrite
    log = FileLog(path, SPEC)
    log.append(a_trial())
    before = path.read_bytes()

    def full(file, data, at):
        if at > len(before):
            raise OSError(28, "No space left on device")
        return real(file, data[:40], at)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        log.append(a_trial(1))
    assert path.read_bytes() == before
    assert log.history() == [a_trial()]
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: real(file, data[:7], at))
    log.append(a_trial(1))
    log.close()
    assert FileLog(path, SPEC).history() == [a_trial(0), a_trial(1)]


def test_a_closed_file_takes_nothing(tmp_path):
    log = FileLog(tmp_path / "log.jsonl", SPEC)
    log.close()
    log.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        log.append(a_trial())
