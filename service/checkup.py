"""`formwright doctor`: the table of what is looked at, and each look bounded in time.

To add a check: a function in `checks/` that takes a `Look` and yields findings, and a row here.
It must not know what is looked at. Next: `checks/finding.py`; `cli/doctor.py` shows the findings.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from ..errors import FormwrightError, one_line, unknown
from ..extras import MissingExtraError
from .checks import database, installed, machine, ports, ray_cluster, server, tls, tokens
from .checks.finding import Finding, failed, warning
from .checks.look import Look
from .errors import InvalidRequest, SettingError


@dataclass(frozen=True)
class Check:
    """`name` stands where it did not come to findings, which have names of their own; `limit_s` is
    how long it may take."""

    name: str
    limit_s: float
    look: Callable[[Look], Iterator[Finding]]


# fmt: off
CHECKS = (
    Check("python", 10, installed.of_python),
    Check("packages", 20, installed.of_packages),
    Check("c++", 10, installed.of_compiler),
    Check("settings", 10, installed.of_settings),
    Check("variables", 10, installed.of_variables),
    Check("secrets", 10, tokens.of_files),
    Check("cores", 10, machine.of_cores),
    Check("memory", 10, machine.of_memory),
    Check("open files", 10, machine.of_files),
    Check("shared memory", 10, machine.of_shared_memory),
    Check("cache", 10, machine.of_cache),
    Check("temporary files", 10, machine.of_temporary),
    Check("workers", 60, ray_cluster.of_ray),
    Check("database", 30, database.of_database),
    Check("disk", 10, database.of_disk),
    Check("integrity", 30, database.of_health),
    Check("searches", 20, database.of_searches),
    Check("exposure", 10, tls.of_exposure),
    Check("certificate", 10, tls.of_server_files),
    Check("client certificate", 10, tls.of_client_files),
    Check("port", 20, ports.of_port),
    Check("web port", 20, ports.of_web),
    Check("server", 40, server.of_server),
    Check("token", 20, tokens.of_token),
)
# fmt: on


def checkup(look: Look, only: Collection[str] = ()) -> Iterator[Finding]:
    """What the checks find, in their order; `only` those of these names, if there are any. Raises
    InvalidRequest for a name that no check has."""
    known = [check.name for check in CHECKS]
    for name in only:
        if name not in known:
            raise InvalidRequest(unknown("check", name, known))
    for check in CHECKS:
        if not only or check.name in only:
            yield from examined(check, look)


def examined(check: Check, look: Look) -> list[Finding]:
    """What one check finds; that it did not end, where it does not."""
    found: list[Finding] = []
    thread = threading.Thread(target=_look, args=(check, look, found), daemon=True)
    thread.start()
    thread.join(check.limit_s)
    if thread.is_alive():
        said = f"no end within {check.limit_s:.0f} s"
        late = failed(check.name, said, "see what hangs: a network folder, a name server, a host")
        return [*found, late]
    return found


def _look(check: Check, look: Look, found: list[Finding]) -> None:
    try:
        for finding in check.look(look):
            found.append(finding)
    except SettingError as error:
        remedy = "mend that setting; `formwright config` shows all"
        found.append(warning(check.name, f"not looked at: {error}", remedy))
    except MissingExtraError as error:
        said, _, remedy = str(error).partition("; try: ")
        found.append(warning(check.name, f"not looked at: {said}", remedy))
    except FormwrightError as error:
        said = one_line(str(error), 300)
        found.append(failed(check.name, said, "see the server's log, or run it again"))
    except Exception as error:  # one check that fails must not hide what the others find
        said = one_line(f"could not look: {type(error).__name__}: {error}", 300)
        found.append(failed(check.name, said, "run it again; if it stays, report it"))
