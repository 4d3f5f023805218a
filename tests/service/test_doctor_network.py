"""Faults of ports, servers and tokens, each really planted: the doctor finds each and
says what to do. And a server with all of these, where nothing is wrong."""

import socket
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from formwright.service.access import Scope
from formwright.service.checks.look import Look
from formwright.service.checkup import CHECKS, Check, checkup, examined
from formwright.service.probe import SERVICE

from . import planted
from .authority import Authority
from .servers import serving

world = planted.world
faults = planted.Faults()
pair = planted.pair


# ports


def listener(world, answer=b""):
    """A port where somebody listens who is none of ours: he says `answer`, or nothing at all."""
    listening = socket.create_server(("127.0.0.1", 0))

    def speak():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                listening.close()
                return
            with connection:
                connection.recv(5000)
                connection.sendall(answer)
                while not answer and connection.recv(5000):
                    continue

    thread = threading.Thread(target=speak, daemon=True)
    thread.start()
    world.stack.callback(thread.join, 10)
    world.stack.callback(listening.shutdown, socket.SHUT_RDWR)
    return listening.getsockname()[1]


@faults.row("port", "port", "failed", "no server of ours", "FORMWRIGHT_PORT=PORT")
def a_port_that_is_taken(world):
    world.options["port"] = listener(world, b"HTTP/1.1 400 Bad Request\r\n\r\n")


@faults.row("port", "port", "failed", "cannot listen on 192.0.2.1", "FORMWRIGHT_HOST=HOST")
def an_address_of_another_machine(world):
    world.options |= {"host": "192.0.2.1", "port": 50551}


@faults.row("web port", "web port", "failed", "no page of ours", "FORMWRIGHT_WEB=PORT")
def a_port_of_the_page_that_is_taken(world):
    world.options["web"] = str(listener(world, b"HTTP/1.1 400 Bad Request\r\n\r\n"))


@faults.row("web port", "clock", "warning", "differs from ours by 90 s", "timedatectl")
def a_page_whose_clock_is_wrong(world):
    there = datetime(2026, 1, 31, 12, tzinfo=UTC)
    world.clock = lambda: there - timedelta(seconds=90)
    ahead = format_datetime(there, usegmt=True).encode()
    answer = b"HTTP/1.1 200 OK\r\nDate: " + ahead + b"\r\nContent-Length: 3\r\n\r\nok\n"
    world.options["web"] = f"127.0.0.1:{listener(world, answer)}"


@faults.row("exposure", "exposure", "failed", "with TLS and tokens only", "--certificate")
def a_page_in_the_open(world):
    world.options["web"] = "0.0.0.0:50580"


# servers


def served(world, tokens=False, **how):
    """A server with TLS, and clients who trust it."""
    by = pair(world, **how)
    files = (world.options["certificate"], world.options["key"])
    path = world.folder / "searches.db"
    address = world.enter(serving(path, tls=files, tokens=tokens))
    world.options |= {"server": address, "database": str(path)}
    return by


@faults.row("server", "server", "failed", "nobody listens there", "formwright serve there")
def no_server(world):
    world.options["server"] = "127.0.0.1:1"


@faults.row("server", "server", "warning", "nobody listens there", "FORMWRIGHT_SERVER=HOST:PORT")
def no_server_and_nobody_asked_for_one(world):
    world.patch.setattr("formwright.service.checks.server.address_of", lambda look: "127.0.0.1:1")


@faults.row("server", "server", "failed", "it says nothing", "formwright serve there")
def a_port_that_says_nothing(world):
    world.patience_s = 0.3
    world.options["server"] = f"127.0.0.1:{listener(world)}"


@faults.row("server", "server", "failed", "speaks no TLS, and we do", "--certificate FILE --key")
def a_plain_server_where_tls_is_wanted(world):
    world.options["ca"] = str(Authority(world.folder).file)
    world.options["server"] = world.enter(serving(world.folder / "searches.db"))


@faults.row("server", "server", "failed", "speaks TLS, and we do not", "FORMWRIGHT_CA=FILE")
def a_server_with_tls_where_none_is_wanted(world):
    served(world)
    del world.options["ca"]


@faults.row("server", "server", "failed", "do not trust: unable to get", "FORMWRIGHT_CA=FILE")
def a_server_of_another_authority(world):
    served(world)
    world.options["ca"] = str(Authority(world.folder, "other").file)


@faults.row("server", "server", "failed", "do not trust: certificate has expired", "certs")
def a_server_whose_certificate_has_expired(world):
    served(world, begins=-9, ends=-1)


@faults.row("server", "server certificate", "warning", "expires in 9 days", "formwright certs")
def a_server_whose_certificate_expires_soon(world):
    served(world, ends=10)


@faults.row("server", "server", "failed", "IP address mismatch", "a name of its certificate")
def a_server_with_another_name(world):
    served(world, hosts=["example.org"])


def of_clients_with_certificates(world):
    by = pair(world)
    files = (world.options["certificate"], world.options["key"], str(by.file))
    path = world.folder / "searches.db"
    world.options["server"] = world.enter(serving(path, tls=files))
    return by


@faults.row("server", "server", "failed", "does not take us", "FORMWRIGHT_CLIENT_CERTIFICATE=FILE")
def a_server_that_wants_certificates(world):
    of_clients_with_certificates(world)


@faults.row("server", "server", "failed", "does not take us", "FORMWRIGHT_CLIENT_KEY=FILE")
def a_server_that_wants_other_certificates(world):
    of_clients_with_certificates(world)
    certificate, key = Authority(world.folder, "other").pair("client")
    world.options |= {"client_certificate": certificate, "client_key": key}


def stranger(world, *, status=None):
    """A server with health alone."""
    made = grpc.server(world.enter(planted.threads()))
    servicer = health.HealthServicer()
    if status is not None:
        servicer.set(SERVICE.full_name, status)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, made)
    port = made.add_insecure_port("127.0.0.1:0")
    made.start()
    world.stack.callback(lambda: made.stop(None).wait())
    world.options["server"] = f"127.0.0.1:{port}"


@faults.row("server", "server", "failed", "says NOT_SERVING", "journalctl -u formwright")
def a_server_that_is_not_well(world):
    stranger(world, status=health_pb2.HealthCheckResponse.NOT_SERVING)


@faults.row("server", "server", "failed", "no answer from", "formwright serve")
def a_server_of_something_else(world):
    stranger(world)


# tokens


def give(world, scope=Scope.SUBMIT, days=None):
    """A token of the server in a file of ours; its id."""
    ends = datetime.now(UTC) + timedelta(days=days) if days else None
    create = lambda store: store.access.create("ann", scope, ends)  # noqa: E731
    text, record = world.store(world.options["database"], create)
    path = world.folder / "token"
    path.touch(mode=0o600)
    path.write_text(text)
    world.options["token_file"] = str(path)
    return record.id


@faults.row("token", "token", "failed", "wants one, and we have none", "formwright token create")
def no_token(world):
    served(world, tokens=True)


@faults.row("token", "token", "failed", "was revoked", "formwright token create")
def a_token_that_was_revoked(world):
    served(world, tokens=True)
    id = give(world)
    world.store(world.options["database"], lambda store: store.access.revoke(id))


@faults.row("token", "token", "failed", "does not take ours", "formwright token create")
def a_token_of_another_server(world):
    served(world, tokens=True)
    path = world.options["database"]
    world.options["database"] = str(world.folder / "other.db")
    give(world)
    world.options["database"] = path


@faults.row("token", "token", "warning", "9 days", "formwright token revoke")
def a_token_that_expires_soon(world):
    served(world, tokens=True)
    give(world, days=10)


@faults.row("secrets", "token file", "warning", "others may read your token", "chmod 600")
def a_token_that_all_may_read(world):
    world.options["database"] = str(world.folder / "searches.db")
    give(world)
    (world.folder / "token").chmod(0o644)


@faults.row("secrets", "token file", "failed", "cannot read the token in", "token create")
def no_token_in_its_place(world):
    world.options["token_file"] = str(world.folder / "nothing")


@faults.row("secrets", "token file", "failed", "holds no token", "formwright token create")
def a_file_without_a_token(world):
    (world.folder / "token").write_text("secret")
    (world.folder / "token").chmod(0o600)
    world.options["token_file"] = str(world.folder / "token")


@faults.row("secrets", "token", "failed", "FORMWRIGHT_TOKEN holds no token", "unset")
def a_variable_without_a_token(world):
    world.patch.setenv("FORMWRIGHT_TOKEN", "secret")


@pytest.mark.parametrize(("plant", "check", "name", "status", "says", "remedy"), faults)
def test_a_fault_is_found(world, plant, check, name, status, says, remedy):
    planted.assert_found(world, plant, check, name, status, says, remedy)


def test_a_server_where_all_is_well(world):
    """With a certificate and tokens: nothing is said of anything that could be planted above."""
    served(world, tokens=True)
    give(world, days=90)
    host, port = world.options["server"].split(":")
    world.options |= {"host": host, "port": int(port), "tokens": "always"}
    found = list(checkup(world.look()))

    planted_ones = {name for _, _, name, *_ in (row.values for row in faults)}
    assert [each for each in found if each.name in planted_ones and each.status != "ok"] == []
    said = {each.name: each.said for each in found}
    assert said["server"].endswith("is SERVING by TLS and knows every call")
    assert said["token"].startswith(f"{world.options['server']} takes ours")
    assert "good for 364 days" in said["certificate"]
    secret = (world.folder / "token").read_text()
    assert not [each for each in found if secret in each.said + each.remedy]
    assert [each for each in found if (each.status == "ok") != (each.remedy == "")] == []


def test_a_client_with_a_certificate(world):
    certificate, key = of_clients_with_certificates(world).pair("client")
    world.options |= {"client_certificate": certificate, "client_key": key}
    assert {each.status for each in world.findings("server")} == {"ok"}
    assert {each.status for each in world.findings("client certificate")} == {"ok"}


def test_what_hangs_is_left():
    held = threading.Event()

    def hangs(look):
        yield planted.finding()
        held.wait(60)

    found = examined(Check("slow", 0.1, hangs), Look())
    held.set()
    assert [each.name for each in found] == ["anything", "slow"]
    assert "no end within" in found[1].said
    assert found[1].remedy


def test_a_check_that_breaks_hides_nothing():
    def breaks(look):
        yield planted.finding()
        raise KeyError("what")

    found = examined(Check("broken", 5, breaks), Look())
    assert [each.name for each in found] == ["anything", "broken"]
    assert "KeyError" in found[1].said


def test_every_check_has_a_name_of_its_own_and_a_limit():
    assert len({row.name for row in CHECKS}) == len(CHECKS)
    assert all(0 < row.limit_s <= 60 for row in CHECKS)
