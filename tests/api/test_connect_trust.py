"""Which servers a client trusts, how long it waits, and its errors: certificates, timeouts and bad arguments."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import socket
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import moqt_trio as moqt
from moqt_trio.testing import session_pair
from moqt_trio.transport.quic.settings import ClientSettings, ServerIdentity, ServerSettings
from moqt_trio.url import printable_url
from tests.transport.quic_pair import connect_quic, serve_quic
from tests.transport.webtransport.serving import serving as serving_webtransport

if TYPE_CHECKING:
    from moqt_trio.transport.webtransport.server import WebTransportRequest

SCHEMES = pytest.mark.parametrize("scheme", ["https", "moqt"])
CERTIFICATE = moqt.development_certificate()


async def hold(request: moqt.SessionRequest) -> None:
    async with request.accept() as session:
        await session.wait_closed()


async def outcome(certificate: moqt.Certificate, scheme: str, host: str = "127.0.0.1", **options) -> Exception | None:
    """Connect to a server that shows a certificate; return what that raises, None when a session came about."""
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(moqt.serve, hold, host, 0, certificate=certificate))
        result: Exception | None = None
        with trio.fail_after(5):
            try:
                async with moqt.connect(f"{scheme}://{host}:{listener.port}/", **options) as session:
                    assert session.closed is None
            except moqt.MoqtError as error:
                result = error
        assert listener.statistics().sessions_accepted == (result is None)
        nursery.cancel_scope.cancel()
    return result


def aged(days: float, lifetime: int = 5) -> moqt.Certificate:
    """A certificate that was made so many days ago."""
    return moqt.development_certificate(days=lifetime, now=dt.datetime.now(dt.UTC) - dt.timedelta(days=days))


@SCHEMES
async def test_verified_by_default(scheme):
    """Without an argument that says otherwise, a self-signed certificate is refused."""
    error = await outcome(CERTIFICATE, scheme)
    assert isinstance(error, moqt.CertificateInvalid)
    assert "127.0.0.1" in str(error)


@SCHEMES
async def test_fingerprint(scheme):
    """The right fingerprint is trusted in each notation, alone or among others; another one is refused."""
    other = moqt.development_certificate().fingerprint
    assert await outcome(CERTIFICATE, scheme, fingerprint=CERTIFICATE.fingerprint) is None
    assert await outcome(CERTIFICATE, scheme, fingerprint=CERTIFICATE.fingerprint_text.upper()) is None
    assert await outcome(CERTIFICATE, scheme, fingerprint=[other, CERTIFICATE.fingerprint]) is None
    assert isinstance(await outcome(CERTIFICATE, scheme, fingerprint=other), moqt.CertificateInvalid)


@SCHEMES
async def test_authorities(scheme, tmp_path):
    """A certificate in `cafile` is trusted for its names and its days only."""

    def saved(certificate: moqt.Certificate) -> str:
        path = tmp_path / f"{certificate.fingerprint.hex()}.pem"
        path.write_bytes(certificate.certificate_pem())
        return str(path)

    assert await outcome(CERTIFICATE, scheme, cafile=saved(CERTIFICATE)) is None
    elsewhere = moqt.development_certificate(["elsewhere.example"])
    for certificate, why in ((elsewhere, "name"), (aged(9), "expired"), (aged(-3), "not yet valid")):
        error = await outcome(certificate, scheme, cafile=saved(certificate))
        assert isinstance(error, moqt.CertificateInvalid), why


DAMAGED = b"-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIU\n-----END CERTIFICATE-----\n"
CUT_OFF = b"-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIU\n"


def with_serial_zero() -> bytes:
    """An authority of the kind that old bundles have: cryptography warns when it loads one."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "old")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
    der = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    body = base64.encodebytes(der.replace(b"\xa0\x03\x02\x01\x02\x02\x01\x01", b"\xa0\x03\x02\x01\x02\x02\x01\x00", 1))
    return b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"


@SCHEMES
@pytest.mark.parametrize(
    "others",
    [with_serial_zero(), DAMAGED, CUT_OFF, with_serial_zero() + DAMAGED + CUT_OFF, b"\xef\xbb\xbf", b"# a comment\r\n"],
    ids=["serial zero", "damaged", "cut off", "all of them", "byte order mark", "comment"],
)
async def test_bundles(scheme, others, tmp_path):
    """What else is in a file of authorities spoils nothing, and makes no warning, which here would be an error."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(others + CERTIFICATE.certificate_pem())
    assert await outcome(CERTIFICATE, scheme, cafile=str(bundle)) is None


@pytest.mark.parametrize("content", [b"", DAMAGED, CUT_OFF, b"no PEM"])
@pytest.mark.parametrize("variable", [True, False])
async def test_a_bundle_without_a_certificate(content, variable, tmp_path, monkeypatch):
    """A file without a usable certificate is refused by its name, wherever it is named."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(content)
    if variable:
        monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    with pytest.raises(moqt.CertificateUnusable, match=r"bundle\.pem"):
        async with moqt.connect("moqt://127.0.0.1:1/", **{} if variable else {"cafile": str(bundle)}):
            pytest.fail("connected")


@SCHEMES
async def test_ssl_cert_file(scheme, tmp_path, monkeypatch):
    """SSL_CERT_FILE takes the place of the usual authorities, and of nothing that the caller names."""
    other = moqt.development_certificate()
    bundle, wrong = tmp_path / "bundle.pem", tmp_path / "wrong.pem"
    bundle.write_bytes(CERTIFICATE.certificate_pem())
    wrong.write_bytes(other.certificate_pem())
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    assert await outcome(CERTIFICATE, scheme) is None
    assert isinstance(await outcome(CERTIFICATE, scheme, cafile=str(wrong)), moqt.CertificateInvalid)
    assert isinstance(await outcome(CERTIFICATE, scheme, fingerprint=other.fingerprint), moqt.CertificateInvalid)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    assert await outcome(CERTIFICATE, scheme, fingerprint=CERTIFICATE.fingerprint) is None
    assert await outcome(CERTIFICATE, scheme, verify=False) is None
    monkeypatch.setenv("SSL_CERT_FILE", "")
    assert isinstance(await outcome(CERTIFICATE, scheme), moqt.CertificateInvalid)


@SCHEMES
@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
async def test_curves(scheme, curve, tmp_path):
    """A server serves with a key on each curve of TLS 1.3, verified by an authority or pinned."""
    key = ec.generate_private_key(curve())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "curve")])
    now = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
    certificate = moqt.Certificate(builder.add_extension(names, False).sign(key, hashes.SHA256()), key)
    path = tmp_path / "authority.pem"
    path.write_bytes(certificate.certificate_pem())
    assert await outcome(certificate, scheme, cafile=str(path)) is None
    assert await outcome(certificate, scheme, fingerprint=certificate.fingerprint) is None


@SCHEMES
async def test_verification_switched_off(scheme):
    """`verify=False` takes any certificate, even an expired one for another name."""
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=99)
    certificate = moqt.development_certificate(["elsewhere.example"], now=long_ago)
    assert await outcome(certificate, scheme, verify=False) is None


# -- no server, and no answer ----------------------------------------------------------------------------------


def unused_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@SCHEMES
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_no_server(scheme, host):
    """Where no server listens the error is prompt, and names the address."""
    port = unused_port()
    with trio.fail_after(2), pytest.raises(moqt.HandshakeFailed, match=rf"{host}:{port}"):
        async with moqt.connect(f"{scheme}://{host}:{port}/"):
            pass


@SCHEMES
async def test_a_black_hole(scheme):
    """A peer that never answers costs `Limits.connect_timeout`, no more and no less, and nothing is left."""
    before = trio.lowlevel.current_statistics().tasks_living
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        began = trio.current_time()
        with trio.fail_after(2), pytest.raises(moqt.ConnectTimeout, match=rf"{port}.*0\.2 s"):
            async with moqt.connect(f"{scheme}://127.0.0.1:{port}/", limits=moqt.Limits(connect_timeout=0.2)):
                pass
        assert trio.current_time() - began >= 0.2
    assert trio.lowlevel.current_statistics().tasks_living == before


@pytest.mark.parametrize(("scheme", "alpn"), [("https", "h3"), ("moqt", "moq-lite-06")])
async def test_a_server_that_falls_silent_after_the_handshake(scheme, alpn):
    """A QUIC server without HTTP/3, or one that never sends its SETUP, is a ConnectTimeout too."""
    identity = ServerIdentity(CERTIFICATE.certificate, CERTIFICATE.chain, CERTIFICATE.private_key)
    settings = ServerSettings(alpns=(alpn,), identity=lambda: identity)

    async def silent(connection: object) -> None:
        await trio.sleep_forever()

    limits = moqt.Limits(connect_timeout=0.3, setup_timeout=0.2)
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(serve_quic, silent, "127.0.0.1", 0, settings)
        url = f"{scheme}://127.0.0.1:{listener.port}/"
        with trio.fail_after(2), pytest.raises(moqt.ConnectTimeout):
            async with moqt.connect(url, fingerprint=CERTIFICATE.fingerprint, limits=limits):
                pass
        nursery.cancel_scope.cancel()


async def test_a_client_that_sends_no_setup():
    """The server waits for `Limits.setup_timeout`, then closes that connection with CONTROL_MESSAGE_TIMEOUT."""
    called: list[moqt.SessionRequest] = []

    async def handler(request: moqt.SessionRequest) -> None:
        called.append(request)

    limits = moqt.Limits(setup_timeout=0.2)
    settings = ClientSettings(alpns=("moq-lite-06",), server_name="localhost", verify=False)
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(moqt.serve, handler, "127.0.0.1", 0, limits=limits))
        async with connect_quic("127.0.0.1", listener.port, settings) as connection:
            with trio.fail_after(2):
                error = await connection.wait_closed()
        nursery.cancel_scope.cancel()
    assert isinstance(error, moqt.SessionClosed)
    assert error.remote_code == moqt.SessionCode.CONTROL_MESSAGE_TIMEOUT
    assert called == []


async def test_a_webtransport_server_that_chooses_no_version():
    """A server that accepts the session but names no version shares none with us."""

    async def accept(request: WebTransportRequest) -> None:
        await request.accept(None).wait_closed()

    async with serving_webtransport(accept) as served:
        url = f"https://127.0.0.1:{served.port}/"
        with trio.fail_after(5), pytest.raises(moqt.VersionUnsupported, match="chose none"):
            async with moqt.connect(url, verify=False, versions=["moq-lite-06", "moq-lite-03"]):
                pass


# -- bad arguments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("http://localhost:4443/", "https://"),
        ("localhost:4443/echo", "moqt://"),
        ("moqt:///echo", "names no host"),
        ("https://localhost:99999/", "99999"),
        ("https://localhost:0/", "1 to 65535"),
        ("moqt://user@localhost/", "user name"),
        ("https://localhost/#part", "fragment"),
        ("https://[::1/", "not a URL"),
        ("", "https://"),
    ],
)
async def test_bad_urls(url, remedy):
    """An invalid URL is refused before anything is sent; the message has the value, but for what may be a credential,
    and what to write."""
    with pytest.raises(ValueError, match=r".") as caught:
        async with moqt.connect(url):
            pass
    assert remedy in str(caught.value)
    assert repr(printable_url(url)) in str(caught.value)


async def test_bad_arguments():
    """Unknown versions and invalid fingerprints are refused before anything is sent."""
    for options, words in (
        ({"versions": ["moq-lite-99"]}, "moq-lite-99"),
        ({"versions": []}, "version"),
        ({"fingerprint": b"short"}, "32 bytes"),
        ({"fingerprint": "nonsense"}, "nonsense"),
        ({"fingerprint": []}, "empty"),
        ({"fingerprint": bytes(32), "verify": False}, "verify"),
    ):
        with pytest.raises(ValueError, match=words):
            async with moqt.connect("moqt://localhost/", **options):
                pass
    with pytest.raises(ValueError, match="moq-lite-99"):
        await moqt.serve(hold, versions=["moq-lite-99"])


def test_routers():
    """A route starts with a slash and has no query; the default is one of the routes."""
    router = moqt.Router({"/a": hold, "/b": hold}, default="/b")
    assert router.find("/a") is hold
    assert router.find("/c") is None
    assert repr(router) == "Router(['/a', '/b'], default='/b')"
    for path in ("a", "", "/a?x=1"):
        with pytest.raises(ValueError, match="starts with '/'"):
            moqt.Router({path: hold})
    with pytest.raises(ValueError, match="'/c' is not among the routes"):
        moqt.Router({"/a": hold}, default="/c")


@pytest.mark.parametrize("argument", [{"priority": 256}, {"priority": -1}, {"max_age": -1.0}, {"end_frame": 3}])
async def test_bad_subscriptions(argument):
    """Values that no version can carry are refused where they are given."""
    async with session_pair() as (client, _):
        with pytest.raises(ValueError, match=next(iter(argument))):
            client.subscribe("b", "t", **argument)
