"""The keeper: a process that makes the artefacts that were asked for, beside a scheduler.

A scheduler starts one when there is something to make and holds the other end of its standard
input; it ends when nothing is left, or when its scheduler does. What it was making then is made by
the next one: trainings go on from their checkpoints. It must not know grpc.
Next: `store/artifacts.py`; `formwright.search.keep`, which does the work.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType

from ..errors import FormwrightError, one_line
from ..search import Fenced
from . import logs, names
from .configured import taken
from .errors import InvalidRequest, ServiceError
from .labels import labels
from .leases import follow_parent, leased
from .records import ArtifactClaim
from .settings import LEASE_S, SETTINGS
from .store import Store, open_store

log = logging.getLogger("formwright.scheduler")

LOOK_S = 1.0  # how long an artefact may go unseen
AGAIN_S = 10.0  # after one that ended in another way than it should
ENDING_S = 5.0  # after which a keeper that was told to end is killed


class Keepers:
    """Keeps a keeper running while there is something to make, from a thread, as long as the
    `with` block lasts."""

    def __init__(self, store: Store, database: str, owner: str, stopping: threading.Event) -> None:
        self._store, self._owner, self._stopping = store, owner, stopping
        self._command = [sys.executable, "-P", "-m", "formwright.service.keeper"]
        self._command += [f"--owner={owner}"]
        self._environment = {**logs.passed_on(), SETTINGS["database"].variable: database}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="formwright-keepers")

    def __enter__(self) -> Keepers:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _over(self) -> bool:
        return self._ended.is_set() or self._stopping.is_set()

    def _run(self) -> None:
        while not self._over():
            try:
                well = self._keep() if self._store.artifacts.waiting() else True
            except (FormwrightError, OSError) as error:  # what is away may come back
                log.warning("%s", error)
                well = False
            self._ended.wait(LOOK_S if well else AGAIN_S)

    def _keep(self) -> bool:
        """Starts a keeper, waits until it ends, or must, and removes what it leaves; whether it
        did what it could."""
        with tempfile.TemporaryDirectory(
            prefix="formwright-keeper-", ignore_cleanup_errors=True
        ) as folder:
            return self._keep_in(folder)

    def _keep_in(self, folder: str) -> bool:
        command = [*self._command, f"--folder={folder}"]
        process = subprocess.Popen(
            command, env=self._environment, stdin=subprocess.PIPE, start_new_session=True
        )
        while process.poll() is None and not self._over():
            self._ended.wait(LOOK_S / 5)
        if process.stdin is not None:
            process.stdin.close()
        try:
            code = process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if code and not self._over():
            log.warning("the keeper ended with code %d", code)
            self._release()
        return not code

    def _release(self) -> None:
        """The lease need not run out: whoever held it is known to be gone."""
        try:
            self._store.artifacts.lost(self._owner)
        except ServiceError as error:
            log.warning("%s", error)


def keep_all(store: Store, owner: str, folder: Path) -> None:
    """Makes what can be claimed, until there is nothing left; `folder` is for what is half done."""
    while store.artifacts.waiting():
        claim = store.artifacts.claim(owner, LEASE_S)
        if claim is not None:
            id, number = claim.search_id, claim.trial.number
            with labels(search=id, trial=number, artifact=names.artifact_name(id, number)):
                try:
                    log.info("claimed, epoch %d", claim.epoch)
                    _keep(store, claim, folder)
                except Fenced as error:
                    log.info("%s", error)


def _keep(store: Store, claim: ArtifactClaim, folder: Path) -> None:
    """Raises Fenced."""
    from ..search import keep  # loads torch, and whoever only starts keepers does not need it

    def told(done: int, total: int, step: str) -> None:
        try:
            held = store.artifacts.tell(claim, done, total, step)
        except ServiceError as error:  # it is only for people
            log.warning("%s", error)
            return
        if not held:
            raise Fenced(f"the artefact of trial {claim.trial.number} is left to others")

    short = claim.trial.architecture.fingerprint().partition(":")[2][:12]
    made = folder / f"trial-{claim.trial.number}-{short}"
    shutil.rmtree(made, ignore_errors=True)
    architecture, seeds = claim.trial.architecture, claim.seeds
    try:
        with leased(lambda: store.artifacts.renew(claim, LEASE_S)):
            keep(architecture, claim.spec, made, seeds=seeds, trial=claim.trial, progress=told)
            store.artifacts.finish(claim, made)  # may wait for the database longer than the lease
    except InvalidRequest as error:  # what the database does not take
        store.artifacts.fail(claim, str(error))
    except (Fenced, ServiceError):
        raise
    except Exception as error:
        if not isinstance(error, FormwrightError):
            log.exception("the artifact of trial %d failed", claim.trial.number)
        store.artifacts.fail(claim, one_line(f"{type(error).__name__}: {error}"))
    finally:
        shutil.rmtree(made, ignore_errors=True)


def main() -> int:
    """The process. Exit code 1 if the database fails; what was being made is made again."""
    parser = argparse.ArgumentParser()
    for name in ("--owner", "--folder"):
        parser.add_argument(name, required=True)
    given = parser.parse_args()
    logs.set_up_as_told()
    folder, ending = Path(given.folder), threading.Event()
    opened: list[Store] = []

    def end() -> None:
        ending.set()
        for each in opened:
            each.close()  # first: nothing is written of a folder that is half gone
        shutil.rmtree(folder, ignore_errors=True)

    # whoever is killed removes nothing, and then this one does
    follow_parent(end, 0.0)
    try:
        opened.append(open_store(taken(SETTINGS["database"])))
        keep_all(opened[0], given.owner, folder)
        opened[0].close()
    except ServiceError as error:
        log.error("%s", error)
        return 1
    finally:
        if ending.is_set():
            threading.Event().wait()  # until `end` has removed all, and this process ends
    return 0


if __name__ == "__main__":
    sys.exit(main())
