"""Faults of certificates and keys, as files, each really planted: the doctor finds each and says
what to do. `test_doctor_network.py` has what is seen over the wire."""

import pytest

from . import planted
from .authority import Authority

world = planted.world
faults = planted.Faults()
pair = planted.pair


@faults.row("certificate", "certificate", "failed", "expired on", "formwright certs")
def an_expired_certificate(world):
    pair(world, begins=-90, ends=-1)


@faults.row("certificate", "certificate", "warning", "expires in 9 days", "formwright certs")
def a_certificate_that_expires_soon(world):
    pair(world, ends=10)


@faults.row("certificate", "certificate", "failed", "not valid before", "timedatectl")
def a_certificate_of_tomorrow(world):
    pair(world, begins=1)


@faults.row("certificate", "certificate", "failed", "key of another", "made together")
def the_key_of_another_certificate(world):
    world.options["key"] = pair(world).pair("other")[1]


@faults.row("certificate", "certificate", "failed", "for example.org, not for 127.0.0.1", "certs")
def a_certificate_for_another_host(world):
    pair(world, hosts=["example.org"])


@faults.row("certificate", "certificate", "failed", "for no name at all", "formwright certs")
def a_certificate_for_no_host(world):
    pair(world, hosts=[])


@faults.row("certificate", "certificate", "failed", "(644)", "chmod 600")
def a_key_that_all_may_read(world):
    pair(world)
    (world.folder / "server.key").chmod(0o644)


@faults.row("certificate", "certificate", "failed", "wants a passphrase", "openssl pkey")
def a_key_with_a_passphrase(world):
    pair(world, password=b"secret")


@faults.row("certificate", "certificate", "failed", "was signed by CN=authority", "name the CA")
def a_certificate_of_another_authority(world):
    pair(world)
    world.options["ca"] = str(Authority(world.folder, "other").file)


@faults.row("certificate", "certificate", "failed", "cannot read", "formwright certs")
def no_certificate(world):
    pair(world)
    (world.folder / "server.crt").unlink()


@faults.row("certificate", "certificate", "failed", "holds no certificate as PEM", "openssl x509")
def no_certificate_in_the_file(world):
    pair(world)
    (world.folder / "server.crt").write_bytes(b"\0\1")


@faults.row("certificate", "certificate", "failed", "key is not; they go", "FORMWRIGHT_KEY=FILE")
def a_certificate_without_its_key(world):
    pair(world)
    del world.options["key"]


@faults.row("client certificate", "CA", "warning", "is not a CA", "who has signed it")
def a_ca_that_is_none(world):
    pair(world)
    world.options["ca"] = world.options["certificate"]


@faults.row("client certificate", "client certificate", "failed", "expired on", "certs")
def an_expired_certificate_of_a_client(world):
    certificate, key = Authority(world.folder).pair("client", begins=-9, ends=-1)
    world.options |= {"client_certificate": certificate, "client_key": key}


@faults.row("exposure", "exposure", "failed", "with TLS and tokens only", "--certificate and --key")
def a_server_in_the_open(world):
    world.options["host"] = "0.0.0.0"


@pytest.mark.parametrize(("plant", "check", "name", "status", "says", "remedy"), faults)
def test_a_fault_is_found(world, plant, check, name, status, says, remedy):
    planted.assert_found(world, plant, check, name, status, says, remedy)
