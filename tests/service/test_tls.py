"""Who does not speak the same hears why: clients and servers with and without TLS, certificates of
all kinds, and addresses that other machines reach."""

import asyncio
import shutil
import socket
import ssl
from pathlib import Path

import pytest

from formwright.service import AsyncClient, Client, Trust
from formwright.service.access import Scope
from formwright.service.certs import authority, issue
from formwright.service.client.mismatch import mismatch
from formwright.service.errors import SettingError, SetupError, Unauthenticated, Unavailable
from formwright.service.exposure import Exposure, exposure
from formwright.service.store import open_store
from formwright.service.tls import server_credentials

from .servers import serving

LIMIT_S = 60.0


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """The look at what a server speaks has its time on a machine that is busy, too."""
    monkeypatch.setattr("formwright.service.client.mismatch.PATIENCE_S", 30.0)


def ask(address, **trust):
    """One call; how many searches there are."""
    with Client(address, trust=Trust(**trust), timeout_s=LIMIT_S) as client:
        return len(list(client.searches()))


def ask_awaiting(address, **trust):
    """The same by `AsyncClient`."""

    async def asked():
        async with AsyncClient(address, trust=Trust(**trust), timeout_s=LIMIT_S) as client:
            return len([search async for search in client.searches()])

    return asyncio.run(asked())


BOTH = pytest.mark.parametrize("asks", [ask, ask_awaiting])


@pytest.fixture(scope="module")
def secure(tmp_path_factory, certificates):
    """The address of a server with TLS and tokens, and a token."""
    path = tmp_path_factory.mktemp("secure") / "s.db"
    store = open_store(str(path))
    token, _ = store.access.create("alice", Scope.READ)
    store.close()
    with serving(path, tokens=True, tls=certificates.server) as address:
        yield address, token


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("plain") / "s.db") as address:
        yield address


@BOTH
def test_who_fits_is_answered(secure, plain, certificates, asks):
    address, token = secure

    assert asks(address, ca=certificates.ca, token=token) == 0
    assert asks(plain) == 0


@BOTH
def test_a_client_without_tls_is_told_that_the_server_has_it(secure, asks):
    with pytest.raises(Unavailable, match=r"it speaks TLS; name who signed .*--ca"):
        asks(secure[0])


@BOTH
def test_a_client_with_tls_is_told_that_the_server_has_none(plain, certificates, asks):
    with pytest.raises(Unavailable, match="it does not speak TLS"):
        asks(plain, ca=certificates.ca)


def test_a_stream_says_it_too(secure):
    with (
        Client(secure[0], trust=Trust(), patience_s=0.0) as client,
        pytest.raises(Unavailable, match="it speaks TLS"),
    ):
        next(client.watch("a" * 32))


def test_a_certificate_of_somebody_else_is_not_trusted(secure, tmp_path):
    authority(tmp_path)

    with pytest.raises(Unavailable, match="its certificate is not trusted"):
        ask(secure[0], ca=str(tmp_path / "ca.pem"))


def test_a_certificate_for_another_host_is_not_trusted(tmp_path, certificates):
    with (
        serving(tmp_path / "s.db", tls=certificates.elsewhere) as address,
        pytest.raises(Unavailable, match=r"not trusted: .*mismatch"),
    ):
        ask(address, ca=certificates.ca)


def test_a_certificate_that_has_expired_is_not_trusted(tmp_path, monkeypatch):
    from datetime import timedelta

    from formwright.service import certs

    monkeypatch.setattr(certs, "SKEW", timedelta(days=3))
    real = certs._builder

    def old(name, key, issuer, days):
        made = real(name, key, issuer, days)
        past = made._not_valid_before + timedelta(days=1)
        made._not_valid_after = past if name == "server" else made._not_valid_after
        return made

    monkeypatch.setattr(certs, "_builder", old)
    by, _ = authority(tmp_path)
    files = tuple(map(str, issue(tmp_path, by, "server", "server", ("127.0.0.1",), 1)))
    with (
        serving(tmp_path / "s.db", tls=files) as address,
        pytest.raises(Unavailable, match=r"not trusted: .*expired"),
    ):
        ask(address, ca=str(tmp_path / "ca.pem"))


def test_a_server_may_ask_for_certificates_of_clients(tmp_path, certificates):
    tls = (*certificates.server, certificates.ca)
    certificate, key = certificates.client
    known = {"client_certificate": certificate, "client_key": key}
    with serving(tmp_path / "s.db", tls=tls) as address:
        assert ask(address, ca=certificates.ca, **known) == 0
        with pytest.raises(Unavailable, match="it wants a certificate of its clients"):
            ask(address, ca=certificates.ca)
        other, _ = authority(tmp_path)
        stranger = tuple(map(str, issue(tmp_path, other, "client", "stranger", (), 1)))
        with pytest.raises(Unavailable, match=f"it does not trust {stranger[0]}"):
            ask(address, ca=certificates.ca, **dict(zip(known, stranger, strict=True)))


def test_a_server_asks_for_tokens_behind_tls_too(secure, certificates):
    with pytest.raises(Unauthenticated, match="wants a token"):
        ask(secure[0], ca=certificates.ca)


def test_nobody_there_is_no_question_of_tls():
    assert mismatch("127.0.0.1:1", Trust()) == ""
    assert mismatch("unix:/nowhere", Trust()) == ""


def test_a_certificate_that_is_renewed_needs_no_restart(tmp_path):
    by, _ = authority(tmp_path)
    files = issue(tmp_path, by, "server", "server", ("127.0.0.1",), 30)
    with serving(tmp_path / "s.db", tls=tuple(map(str, files))) as address:
        host, port = address.split(":")
        before = ssl.get_server_certificate((host, int(port)))
        issue(tmp_path, by, "server", "server", ("127.0.0.1",), 30)
        after = ssl.get_server_certificate((host, int(port)))
        files[1].write_text("not a key")  # what cannot be used is left alone
        still = ssl.get_server_certificate((host, int(port)))

    assert before != after == still


# what a server may be asked to do: host, certificate, key, clients' authority, tokens
@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (("127.0.0.1", "", "", "", "auto"), Exposure(tls=False, tokens=False)),
        (("localhost", "", "", "", "always"), Exposure(tls=False, tokens=True)),
        (("::1", "c", "k", "", "auto"), Exposure(tls=True, tokens=False)),
        (("127.8.9.10", "c", "k", "a", "always"), Exposure(tls=True, tokens=True)),
        (("0.0.0.0", "c", "k", "", "auto"), Exposure(tls=True, tokens=True)),
        (("::", "c", "k", "", "auto"), Exposure(tls=True, tokens=True)),
        (("example.org", "c", "k", "a", "auto"), Exposure(tls=True, tokens=True)),
    ],
)
def test_what_an_address_asks_for(given, wanted):
    assert exposure(*given) == wanted


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("0.0.0.0", "", "", "", "auto"), "TLS and tokens only"),
        (("::", "", "", "", "always"), "TLS and tokens only"),
        (("10.0.0.1", "", "", "", "auto"), "TLS and tokens only"),
        (("", "", "", "", "auto"), "TLS and tokens only"),
        (("127.0.0.1.example.org", "", "", "", "auto"), "TLS and tokens only"),
        (("127.0.0.1", "c", "", "", "auto"), "there is no --key"),
        (("127.0.0.1", "", "k", "", "auto"), "there is no --certificate"),
        (("127.0.0.1", "", "", "a", "auto"), "needs --certificate"),
    ],
)
def test_what_would_stand_open_is_refused(given, said):
    with pytest.raises(SetupError, match=said):
        exposure(*given)


def test_files_that_do_not_fit_are_refused_with_the_reason(tmp_path, certificates):
    certificate, key = certificates.server
    other = certificates.elsewhere[1]
    text = tmp_path / "text.pem"
    text.write_text("hello")
    closed = tmp_path / "none.pem"

    for given, said in [
        ((certificate, other), "the key belongs to another certificate"),
        ((certificate, str(text)), "not a PEM file"),
        ((str(text), key), "not a PEM file"),
        ((certificate, str(closed)), f"cannot read {closed}: No such file"),
        ((certificate, key, str(closed)), f"cannot read {closed}: No such file"),
    ]:
        with pytest.raises(SetupError, match=said):
            server_credentials(*given)


def test_an_encrypted_key_asks_nobody_for_its_password(tmp_path, certificates):
    from cryptography.hazmat.primitives import serialization

    certificate, key = certificates.server
    plain = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    closed = tmp_path / "closed.pem"
    closed.write_bytes(
        plain.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(SetupError, match="the key is encrypted"):
        server_credentials(certificate, str(closed))


def test_an_authority_signs_again_and_keeps_its_keys_to_itself(tmp_path):
    by, new = authority(tmp_path)
    again, old = authority(tmp_path)
    files = issue(tmp_path, again, "client", "one", (), 1)

    assert new
    assert not old
    assert by.certificate == again.certificate
    for path in (tmp_path / "ca-key.pem", files[1]):
        assert path.stat().st_mode & 0o077 == 0
    shutil.copy(files[1], tmp_path / "ca-key.pem")
    with pytest.raises(ValueError, match="is not the key of"):
        authority(tmp_path)


@pytest.mark.parametrize(
    ("server", "given", "secure"),
    [
        ("127.0.0.1:1", {}, False),
        ("[::1]:1", {}, False),
        ("unix:/a", {}, False),
        ("127.0.0.1:1", {"ca": "x"}, True),
        ("10.0.0.1:1", {}, True),
        ("[2001:db8::1]:1", {}, True),
        ("localhost.example.org:1", {}, True),
    ],
)
def test_other_machines_are_called_with_tls_only(server, given, secure):
    assert Trust(**given).is_secure(server) is secure


def test_what_settings_say_of_tls_is_for_the_server_that_they_name(monkeypatch, tmp_path):
    for name, value in [
        ("SERVER", "127.0.0.1:7"),
        ("CA", "here.pem"),
        ("TOKEN", "fw_00112233aabb_" + "x" * 43),
    ]:
        monkeypatch.setenv(f"FORMWRIGHT_{name}", value)

    assert Trust.by_settings("127.0.0.1:7").ca == "here.pem"
    assert Trust.by_settings("127.0.0.1:8").ca == ""
    assert Trust.by_settings("elsewhere:8").ca == "here.pem"
    assert Trust.by_settings("127.0.0.1:8", ca="other.pem").ca == "other.pem"
    assert "x" * 8 not in repr(Trust.by_settings("127.0.0.1:7"))


@pytest.mark.parametrize(
    ("name", "said"), [("TOKEN", "not a token"), ("TOKEN_FILE", "cannot read")]
)
def test_a_token_that_is_none_is_said_without_it(monkeypatch, name, said):
    monkeypatch.setenv(f"FORMWRIGHT_{name}", "something-else")

    with pytest.raises(SettingError, match=said) as caught:
        Trust.by_settings("127.0.0.1:1")
    assert name == "TOKEN_FILE" or "something-else" not in str(caught.value)


def test_no_proxy_reads_what_is_for_this_machine(plain, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0.0)
        there = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        for name in ("grpc_proxy", "https_proxy", "http_proxy"):
            monkeypatch.setenv(name, there)

        assert ask(plain, token="fw_00112233aabb_" + "x" * 43) == 0
        with pytest.raises(BlockingIOError):
            proxy.accept()


@pytest.mark.parametrize("said", ['server = "evil.test"', 'ca = "evil.pem"'])
def test_no_folder_takes_a_token(monkeypatch, tmp_path, said):
    """Who happens to be in a folder of somebody else sends its server nothing."""
    (tmp_path / "formwright.toml").write_text(f"[client]\n{said}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORMWRIGHT_TOKEN", "fw_00112233aabb_" + "x" * 43)
    server = "evil.test:50551" if "server" in said else "good.test:50551"

    with pytest.raises(SettingError, match=r"formwright.toml in this folder says .* no token"):
        Trust.by_settings(server)
    assert Trust.by_settings("other.test:50551", ca="").token  # which somebody has named
    monkeypatch.setenv("FORMWRIGHT_CONFIG", str(tmp_path / "formwright.toml"))
    assert Trust.by_settings(server).token  # and so has the file been
    monkeypatch.delenv("FORMWRIGHT_CONFIG")
    monkeypatch.delenv("FORMWRIGHT_TOKEN")
    assert not Trust.by_settings(server).token
