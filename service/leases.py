"""What processes that hold leases share: to renew one, and to end with whoever started them.

It must not know what is leased. Next: `scheduler.py`, `keeper.py`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import FormwrightError
from .labels import carried
from .settings import LEASE_S

log = logging.getLogger("formwright.scheduler")


@contextmanager
def leased(renew: Callable[[], bool], stopping: threading.Event | None = None) -> Iterator[None]:
    """Renews a lease from a thread, for as long as the block lasts and `renew` says that it holds.
    Who is `stopping` and hangs must not keep from others what it holds."""
    done, given_up = threading.Event(), stopping or threading.Event()

    def keep_on() -> None:
        while not done.wait(LEASE_S / 3) and not given_up.is_set():
            try:
                if not renew():
                    return
            except FormwrightError as error:  # the next renewal may come in time
                log.warning("lease not renewed: %s", error)

    thread = threading.Thread(target=carried(keep_on), name="formwright-lease")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def follow_parent(told: Callable[[], None], patience_s: float) -> None:
    """When standard input closes, because the parent ended or wants this process to, it is `told`,
    and is ended once patience is."""

    def wait() -> None:
        # not by `sys.stdin`, whose lock a process that ends by itself could not take
        while os.read(0, 4096):
            continue
        try:
            told()
        except Exception:
            log.exception("this process ends, and not in order")
        finally:
            threading.Event().wait(patience_s)
            os._exit(4)

    threading.Thread(target=wait, daemon=True, name="formwright-parent").start()
