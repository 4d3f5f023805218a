"""A look at what a port speaks: what it hears, and what it must not tell."""

import socket
import ssl
import threading
from contextlib import contextmanager

import pytest

from formwright.service.certs import authority, issue
from formwright.service.client.mismatch import mismatch
from formwright.service.client.trust import Trust
from formwright.service.handshake import Speaks, listen
from formwright.service.tls import server_context

LIMIT_S = 60


@contextmanager
def speaking(context):
    """Yields a port, and the certificates that those who came have shown, or what went wrong."""
    seen = []

    def serve():
        while True:
            try:
                raw, _ = listening.accept()
            except OSError:
                return
            with raw:
                raw.settimeout(LIMIT_S)
                try:
                    with context.wrap_socket(raw, server_side=True) as wrapped:
                        seen.append(wrapped.getpeercert(binary_form=True))
                        wrapped.sendall(b"x")  # as gRPC, which speaks first
                except OSError as error:
                    seen.append(getattr(error, "reason", "gone"))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1], seen
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(LIMIT_S)


def server_of(pair, ca=None, need=ssl.CERT_OPTIONAL):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    if ca:
        context.load_verify_locations(ca)
        context.verify_mode = need
    return context


def test_only_who_is_trusted_is_shown_our_certificate(certificates, tmp_path):
    by, _ = authority(tmp_path)
    strangers = issue(tmp_path, by, "server", "server", ["127.0.0.1"], 2)
    with speaking(server_of(strangers, certificates.ca)) as (port, seen):
        heard = listen("127.0.0.1", port, LIMIT_S, certificates.ca, certificates.client)
        assert heard.speaks is Speaks.TLS
        assert heard.distrust
        assert "BEGIN CERTIFICATE" in heard.certificate
    assert not [each for each in seen if isinstance(each, bytes)]
    with speaking(server_of(certificates.server, certificates.ca)) as (port, seen):
        heard = listen("127.0.0.1", port, LIMIT_S, certificates.ca, certificates.client)
        assert (heard.distrust, heard.refused, heard.why) == ("", "", "")
    assert len([each for each in seen if isinstance(each, bytes)]) == 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
def test_who_wants_a_certificate_is_told_from_who_speaks_otherwise(certificates, version):
    wants = server_of(certificates.server, certificates.ca, ssl.CERT_REQUIRED)
    wants.maximum_version = version
    trust = Trust(ca=certificates.ca)
    with speaking(wants) as (port, _):
        assert "wants a certificate" in mismatch(f"127.0.0.1:{port}", trust)
        certificate, key = certificates.client
        mine = Trust(ca=certificates.ca, client_certificate=certificate, client_key=key)
        assert mismatch(f"127.0.0.1:{port}", mine) == ""


def test_no_shared_cipher_is_not_about_certificates(certificates):
    other = server_of(certificates.server)
    other.maximum_version = ssl.TLSVersion.TLSv1_2
    other.set_ciphers("AES128-GCM-SHA256")  # for keys of RSA, and there are none
    with speaking(other) as (port, _):
        certificate, key = certificates.client
        mine = Trust(ca=certificates.ca, client_certificate=certificate, client_key=key)
        said = mismatch(f"127.0.0.1:{port}", mine)
    assert said.startswith("it speaks TLS, and not as we do: ")
    assert "certificate" not in said


def test_where_clients_show_certificates_each_is_looked_at_anew(certificates):
    """A session that is taken up again would bring none; who signs them may be another by then."""
    ours = ssl.create_default_context(cafile=certificates.ca)
    ours.load_cert_chain(*certificates.client)
    context = server_context(*certificates.server, certificates.ca)
    with speaking(context) as (port, seen):

        def connect(session):
            raw = socket.create_connection(("127.0.0.1", port), LIMIT_S)
            with ours.wrap_socket(raw, server_hostname="127.0.0.1", session=session) as wrapped:
                assert wrapped.recv(1) == b"x"
                wrapped.recv(1)  # the end, behind any ticket
                return wrapped.session, wrapped.session_reused

        session, _ = connect(None)
        assert connect(session)[1] is False
    assert [type(each) for each in seen] == [bytes, bytes]
