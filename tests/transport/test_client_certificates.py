"""A client's messages of TLS that answer a request for a certificate: right, wrong, too long, and garbage.

The client is aioquic's own, with a TLS context that sends what a test says after the server's Finished. Nothing touches
a network.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.tls import (
    CLIENT_CONTEXT_STRING,
    AlertDescription,
    Certificate,
    CertificateVerify,
    Context,
    Direction,
    Epoch,
    Finished,
    SignatureAlgorithm,
    State,
    pull_finished,
    push_certificate,
    push_certificate_verify,
    push_finished,
)
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from moqt_trio.certificates.pem import certificate_to_pem
from moqt_trio.limits import Limits
from moqt_trio.transport.quic.aioquic.packets import AioquicFactory
from moqt_trio.transport.quic.settings import ServerIdentity
from tests.authority import Authority
from tests.transport.engine_pair import CLIENT, SERVER, Handler
from tests.transport.quic_pair import ALPN, client_settings, server_settings

if TYPE_CHECKING:
    from moqt_trio.transport.quic.engine import Engine, Termination

AUTHORITY = Authority()
PEM = certificate_to_pem(AUTHORITY.certificate)
GOOD = AUTHORITY.issue()
DER = GOOD.certificate.public_bytes(Encoding.DER)

Script = Callable[["ScriptedContext"], Iterator[bytes]]


class ScriptedContext(Context):
    """Sends the messages of a script, and then its Finished."""

    script: Script

    def _client_handle_finished(self, input_buf, output_buf):
        pull_finished(input_buf)
        schedule = self.key_schedule
        assert schedule is not None
        schedule.update_hash(input_buf.data)
        schedule.extract(None)
        self._setup_traffic_protection(Direction.DECRYPT, Epoch.ONE_RTT, b"s ap traffic")
        key = schedule.derive_secret(b"c ap traffic")
        for message in self.script():
            output_buf.push_bytes(message)
            schedule.update_hash(message)
        assert self._enc_key is not None
        push_finished(output_buf, Finished(verify_data=schedule.finished_verify_data(self._enc_key)))
        self._enc_key = key
        self.update_traffic_key_cb(Direction.ENCRYPT, Epoch.ONE_RTT, schedule.cipher_suite, key)
        self._set_state(State.CLIENT_POST_HANDSHAKE)


def message(push: Callable[..., None], value: object) -> bytes:
    buffer = Buffer(capacity=1 << 20)
    push(buffer, value)
    return buffer.data


def certificate(*chain: bytes, context: bytes = b"") -> bytes:
    return message(push_certificate, Certificate(context, [(der, b"") for der in chain]))


def verify(tls: ScriptedContext, key: ec.EllipticCurvePrivateKey, text: bytes = CLIENT_CONTEXT_STRING) -> bytes:
    assert tls.key_schedule is not None
    signature = key.sign(tls.key_schedule.certificate_verify_data(text), ec.ECDSA(hashes.SHA256()))
    return message(push_certificate_verify, CertificateVerify(SignatureAlgorithm.ECDSA_SECP256R1_SHA256, signature))


def handshake(script: Script, limits: Limits | None = None, *, required: bool = False) -> tuple[Engine, QuicConnection]:
    """Run a handshake with a server that asks for a certificate, until it is over."""
    configuration = QuicConfiguration(alpn_protocols=[ALPN], verify_mode=ssl.CERT_NONE, server_name="localhost")
    client = QuicConnection(configuration=configuration)
    client.connect(SERVER, 0.0)
    client.tls.__class__ = ScriptedContext
    client.tls.script = script.__get__(client.tls)  # type: ignore[attr-defined]
    client._crypto_buffers[Epoch.HANDSHAKE] = Buffer(capacity=1 << 20)
    factory, now = AioquicFactory(), 0.0
    first = client.datagrams_to_send(now)
    header = factory.parse_header_untrusted(first[0][0])
    assert header is not None
    settings = server_settings(limits, client_authorities=PEM, require_client_certificate=required)
    server = factory.server(settings, Handler(), header, None)
    for data, _ in first:
        server.receive_datagram_untrusted(data, CLIENT, now)
    for _ in range(400):
        server.handle_timeout(now)
        server.deliver_events()
        for data, _ in server.datagrams_to_send(now):
            client.receive_datagram(data, SERVER, now)
        timer = client.get_timer()
        if timer is not None and timer <= now:
            client.handle_timer(now)
        for data, _ in client.datagrams_to_send(now):
            server.receive_datagram_untrusted(data, CLIENT, now)
        if server.termination is not None:
            break
        now += 0.002
    server.deliver_events()
    return server, client


def refused(script: Script, limits: Limits | None = None, *, required: bool = False) -> tuple[AlertDescription, str]:
    """Return the alert with which a handshake fails on both sides."""
    server, client = handshake(script, limits, required=required)
    end: Termination | None = server.termination
    assert end is not None
    assert not end.by_peer
    assert server.client_certificate is None
    for data, _ in server.datagrams_to_send(1.0):
        client.receive_datagram(data, SERVER, 1.0)
    assert client._close_event is not None
    assert client._close_event.error_code == end.code
    return AlertDescription(end.code - 0x100), end.reason


def good(tls: ScriptedContext) -> Iterator[bytes]:
    yield certificate(DER)
    assert isinstance(GOOD.private_key, ec.EllipticCurvePrivateKey)
    yield verify(tls, GOOD.private_key)


def none(tls: ScriptedContext) -> Iterator[bytes]:
    yield certificate()


def test_accepted():
    """The certificate is known once the handshake is complete; an empty message is one of a client without any."""
    server, _ = handshake(good)
    assert server.termination is None
    assert server.client_certificate == DER
    server, _ = handshake(none)
    assert server.termination is None
    assert server.client_certificate is None


def test_no_certificate():
    """A server that requires a certificate says so to a client that sends an empty message."""
    alert, text = refused(none, required=True)
    assert alert is AlertDescription.certificate_required
    assert "requires a certificate" in text


def only(*messages: bytes) -> Script:
    return lambda tls: iter(messages)


def another_key(tls: ScriptedContext) -> Iterator[bytes]:
    yield certificate(DER)
    yield verify(tls, ec.generate_private_key(ec.SECP256R1()))


def a_servers_words(tls: ScriptedContext) -> Iterator[bytes]:
    yield certificate(DER)
    assert isinstance(GOOD.private_key, ec.EllipticCurvePrivateKey)
    yield verify(tls, GOOD.private_key, b"TLS 1.3, server CertificateVerify")


def too_early(tls: ScriptedContext) -> Iterator[bytes]:
    assert isinstance(GOOD.private_key, ec.EllipticCurvePrivateKey)
    yield verify(tls, GOOD.private_key)
    yield certificate(DER)


def garbage_signature(tls: ScriptedContext) -> Iterator[bytes]:
    yield certificate(DER)
    yield message(push_certificate_verify, CertificateVerify(SignatureAlgorithm.ECDSA_SECP256R1_SHA256, bytes(70)))


def unknown_algorithm(tls: ScriptedContext) -> Iterator[bytes]:
    yield certificate(DER)
    yield message(push_certificate_verify, CertificateVerify(SignatureAlgorithm.RSA_PSS_RSAE_SHA256, bytes(256)))


STRANGER = Authority("stranger").issue().certificate.public_bytes(Encoding.DER)
EXPIRED = AUTHORITY.issue(starts=-3, ends=-1).certificate.public_bytes(Encoding.DER)
BROKEN = DER[:60] + bytes(20) + DER[80:]

WRONG = {
    "nothing at all": (only(), AlertDescription.unexpected_message),
    "no proof": (only(certificate(DER)), AlertDescription.unexpected_message),
    "another key": (another_key, AlertDescription.decrypt_error),
    "a server's proof": (a_servers_words, AlertDescription.decrypt_error),
    "proof before certificate": (too_early, AlertDescription.unexpected_message),
    "garbage for a proof": (garbage_signature, AlertDescription.decrypt_error),
    "an algorithm of other keys": (unknown_algorithm, AlertDescription.decrypt_error),
    "a stranger's": (only(certificate(STRANGER)), AlertDescription.unknown_ca),
    "expired": (only(certificate(EXPIRED)), AlertDescription.certificate_expired),
    "an answer to another request": (only(certificate(DER, context=b"x")), AlertDescription.illegal_parameter),
    "garbage": (only(certificate(bytes(range(256)))), AlertDescription.bad_certificate),
    "broken inside": (only(certificate(BROKEN)), AlertDescription.bad_certificate),
    "an empty one": (only(certificate(b"")), AlertDescription.bad_certificate),
    "garbage in the chain": (only(certificate(DER, b"\x30\x80")), AlertDescription.bad_certificate),
    "cut off": (only(b"\x0b\x00\x00\x06" + certificate(DER)[4:10]), AlertDescription.decode_error),
    "a length too many": (only(b"\x0b\x00\x00\x05\x00\x00\x00\x01\x00"), AlertDescription.decode_error),
    "nine": (only(certificate(*[DER] * 9)), AlertDescription.bad_certificate),
    "a long one": (only(certificate(DER + bytes(70_000))), AlertDescription.decode_error),
    "the beginning of 16 MiB": (only(b"\x0b\xff\xff\xff" + bytes(1000)), AlertDescription.decode_error),
}


@pytest.mark.parametrize("what", WRONG)
def test_refused(what):
    """The handshake fails with the alert that TLS has for it, and the client is told."""
    script, expected = WRONG[what]
    alert, _ = refused(script)
    assert alert is expected


def test_every_truncation():
    """A certificate that is cut anywhere, or has one byte too many, ends the handshake with an alert."""
    for size in range(0, len(DER), 37):
        alert, _ = refused(only(certificate(DER[:size])))
        assert alert is AlertDescription.bad_certificate
    alert, _ = refused(only(certificate(DER + b"\0")))
    assert alert is AlertDescription.bad_certificate


def test_bounds():
    """Both bounds are those of the limits, and what is within them is taken."""
    limits = Limits(max_certificate_chain=1, max_handshake_message=4096)
    server, _ = handshake(good, limits)
    assert server.client_certificate == DER
    assert refused(only(certificate(DER, DER)), limits)[0] is AlertDescription.bad_certificate
    assert refused(only(certificate(DER + bytes(4096))), limits)[0] is AlertDescription.decode_error


def test_a_hello_without_an_end():
    """The bound is one for the first message, too, so that a client cannot have a server buffer 16 MiB of it."""
    server, _ = handshake(good, Limits(max_handshake_message=100))
    assert server.termination is not None
    assert server.termination.code - 0x100 == AlertDescription.decode_error
    assert "at most 100" in server.termination.reason


def test_a_certificate_is_not_shown_to_a_stranger():
    """A client whose pinned fingerprint does not fit has sent no certificate of its own."""
    factory, now = AioquicFactory(), 0.0
    identity = ServerIdentity(GOOD.certificate, (), GOOD.private_key)
    client = factory.client(client_settings(fingerprints=(bytes(32),), identity=identity), Handler())
    client.connect(SERVER, now)
    first = client.datagrams_to_send(now)
    header = factory.parse_header_untrusted(first[0][0])
    assert header is not None
    server = factory.server(server_settings(client_authorities=PEM), Handler(), header, None)
    for data, _ in first:
        server.receive_datagram_untrusted(data, CLIENT, now)
    for _ in range(40):
        server.deliver_events()
        for data, _ in server.datagrams_to_send(now):
            client.receive_datagram_untrusted(data, SERVER, now)
        client.deliver_events()
        tls = getattr(server, "_quic").tls  # noqa: B009
        assert tls.state in (State.SERVER_EXPECT_CLIENT_HELLO, State.SERVER_EXPECT_CERTIFICATE)
        if server.termination is not None:
            break
        for data, _ in client.datagrams_to_send(now):
            server.receive_datagram_untrusted(data, CLIENT, now)
        now += 0.002
    assert client.termination is not None
    assert "not a pinned one" in client.termination.reason
    assert server.termination is not None
    assert server.termination.by_peer
    assert server.termination.code == 0x100 + AlertDescription.bad_certificate
