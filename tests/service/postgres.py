"""A PostgreSQL cluster of the tests' own, in a temporary folder, for as long as they run."""

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

REQUIRED = "FORMWRIGHT_REQUIRE"  # names of what must not be skipped
SETTINGS = ("fsync=off", "listen_addresses=", "max_connections=200", "shared_buffers=64MB")


def binaries():
    """Where initdb and pg_ctl are; None if PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    where = found[-1] if found else shutil.which("initdb")
    return Path(where).resolve().parent if where else None


@contextmanager
def cluster():
    """Yields a function that makes a new database and returns its URL."""
    bin = binaries()
    if bin is None:
        said = "PostgreSQL is not installed"
        if "postgresql" in os.environ.get(REQUIRED, ""):
            pytest.fail(said)
        pytest.skip(said)
    with tempfile.TemporaryDirectory(prefix="fw-pg-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        data, user = Path(folder, "data"), None
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            user = "postgres" if _exists("postgres") else "nobody"
            shutil.chown(folder, user)
        _run([bin / "initdb", "-D", data, "-U", "tests", "-A", "trust", "-N"], user, folder)
        options = " ".join(
            f"-c {setting}" for setting in (*SETTINGS, f"unix_socket_directories={folder}")
        )
        start = [bin / "pg_ctl", "-D", data, "-w", "-l", Path(folder, "log"), "-o", options]
        _run([*start, "start"], user, folder)
        made = 0

        def database():
            nonlocal made
            made += 1
            name = f"tests{made}"
            command = [bin / "psql", "-h", folder, "-U", "tests", "-d", "postgres", "-qc"]
            _run([*command, f"CREATE DATABASE {name}"], user, folder)
            return f"postgresql://tests@/{name}?host={folder}"

        try:
            yield database
        finally:
            _run([bin / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], user, folder)


def _exists(user):
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _run(command, user, folder):
    subprocess.run(
        [str(part) for part in command],
        user=user,
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "PGCTLTIMEOUT": "600",  # seconds
        },
        check=True,
        stdout=subprocess.DEVNULL,
    )
