"""Faults of a machine and of settings, each really planted: the doctor finds each and says what to
do. The other `test_doctor_*.py` have those of certificates, databases, ports and servers."""

import os
import resource
import shutil
import tempfile
from types import SimpleNamespace

import pytest

from formwright.service.checks import machine, ray_cluster

from . import planted

world = planted.world
faults = planted.Faults()


# the machine


@faults.row("c++", "c++", "warning", "no g++", "apt-get install g++")
def no_compiler(world):
    world.patch.delenv("CXX", raising=False)
    world.patch.setenv("PATH", str(world.folder))


@faults.row("cores", "cores", "warning", "more threads than cores", "OMP_NUM_THREADS=")
def too_many_threads(world):
    world.patch.setenv("OMP_NUM_THREADS", "4096")


@faults.row("open files", "open files", "warning", "512 at once", "LimitNOFILE=65536")
def few_open_files(world):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    world.stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))


@faults.row("memory", "memory", "warning", "1.0 GiB free; 16 workers want", "--workers 1,")
def little_memory(world):
    world.options["workers"] = 16
    (world.folder / "meminfo").write_text("MemTotal: 99999999 kB\nMemAvailable: 1048576 kB\n")
    world.patch.setattr(machine, "MEMORY", world.folder / "meminfo")


@faults.row("memory", "memory", "warning", "0.1 GiB free; 2 workers want", "--workers 0,")
def little_memory_in_a_container(world):
    (world.folder / "memory.max").write_text("1073741824\n")
    (world.folder / "memory.current").write_text("966367641\n")
    world.patch.setattr(machine, "CGROUP", world.folder)


def free(world, size):
    world.patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=size))


@faults.row("shared memory", "shared memory", "warning", "64 MiB free", "--shm-size=256m")
def little_shared_memory(world):
    free(world, 64 * 2**20)


@faults.row("disk", "disk", "failed", "0.0 GiB free", "make room")
def a_disk_that_is_full(world):
    free(world, 2**20)


@faults.row("disk", "disk", "warning", "0.5 GiB free", "FORMWRIGHT_DATABASE=FILE")
def a_disk_that_is_nearly_full(world):
    free(world, 2**29)


@faults.row("temporary files", "temporary files", "warning", "0.5 GiB free", "TMPDIR=")
def little_room_for_temporary_files(world):
    free(world, 2**29)


@faults.row("temporary files", "temporary files", "failed", "cannot write in", "TMPDIR=")
def no_temporary_files(world):
    (world.folder / "file").touch()
    world.patch.setattr(tempfile, "tempdir", str(world.folder / "file" / "tmp"))


@faults.row("cache", "cache", "failed", "cannot write in", "FORMWRIGHT_CACHE_DIR=FOLDER")
def a_cache_that_cannot_be(world):
    (world.folder / "file").touch()
    world.patch.setenv("FORMWRIGHT_CACHE_DIR", str(world.folder / "file" / "cache"))


@faults.row("workers", "workers", "failed", "no Ray cluster answers", "ray start --head --port=1")
def a_cluster_where_nobody_listens(world):
    world.options["ray"] = "127.0.0.1:1"


def answers(world, **said):
    """What the process that looks at a cluster has found, as it does."""
    world.options |= {"ray": "10.0.0.5:6379", "workers": 8}
    found = {"version": "2.60.0"} | said
    world.patch.setattr(ray_cluster, "_asked", lambda address: found)


@faults.row("workers", "workers", "failed", "8 workers want one each", "--workers 2,")
def a_cluster_that_is_too_small(world):
    answers(world, cpus=2.0, free=1.0, nodes=1)


@faults.row("workers", "workers", "failed", "Failed to connect", "RAY_AUTH_TOKEN=")
def a_cluster_that_wants_a_token(world):
    answers(world, error="Ray did not start: Failed to connect to Ray cluster at 10.0.0.5:6379")


@faults.row("workers", "workers", "failed", "Version mismatch", "ray==2.60.0 on the cluster")
def a_cluster_of_another_version(world):
    answers(world, error="Ray did not start: Version mismatch: The cluster was started with: 2.50")


@faults.row("workers", "workers", "failed", "cannot be loaded", "formwright[search]")
def a_ray_that_is_broken(world):
    (world.folder / "ray.py").write_text("raise ImportError('half of it is missing')")
    paths = [str(world.folder), os.environ.get("PYTHONPATH", "")]
    world.patch.setenv("PYTHONPATH", os.pathsep.join(paths))


# settings and secrets


@faults.row("settings", "settings", "failed", "Did you mean 'serve.database'?", "formwright config")
def a_setting_that_nobody_knows(world):
    (world.folder / "formwright.toml").write_text("[serve]\ndatabse = 'x'")


@faults.row("port", "port", "warning", "not looked at: FORMWRIGHT_PORT", "formwright config")
def a_setting_that_is_no_number(world):
    world.patch.setenv("FORMWRIGHT_PORT", "high")


@faults.row("variables", "variables", "warning", "Did you mean 'FORMWRIGHT_DATABASE'?", "unset")
def a_variable_that_nobody_reads(world):
    world.patch.setenv("FORMWRIGHT_DATABSE", "x")


@faults.row("secrets", "settings file", "warning", "the password of the database", "chmod 600")
def a_password_that_all_may_read(world):
    path = world.folder / "formwright.toml"
    path.write_text("[serve]\ndatabase = 'postgresql://me:secret@host/name'")
    path.chmod(0o644)


@pytest.mark.parametrize(("plant", "check", "name", "status", "says", "remedy"), faults)
def test_a_fault_is_found(world, plant, check, name, status, says, remedy):
    planted.assert_found(world, plant, check, name, status, says, remedy)
