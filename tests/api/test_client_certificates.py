"""Certificates of clients: which ones a server takes, what its handler learns, and what a client is told."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

import moqt_trio as moqt
from moqt_trio.certificates.pem import certificate_to_pem
from tests.authority import NOW, ON_CLIENTS, ON_SERVERS, Authority, key_usage, self_signed

SCHEMES = pytest.mark.parametrize("scheme", ["https", "moqt"])
SERVER = moqt.development_certificate()
AUTHORITY = Authority()


class Served:
    """A server that records whom its handler was called for."""

    def __init__(self, listener: moqt.Listener, seen: list[moqt.ClientCertificate | None]) -> None:
        self.listener = listener
        self.seen = seen

    async def connect(self, scheme: str, certificate: object = None, **options: object) -> None:
        """Open a session and close it."""
        url = f"{scheme}://127.0.0.1:{self.listener.port}/"
        options = {"fingerprint": SERVER.fingerprint, **options}
        with trio.fail_after(5):
            async with moqt.connect(url, client_certificate=certificate, **options) as session:
                assert session.closed is None

    async def refusal(self, scheme: str, certificate: object = None, **options: object) -> str:
        """Return what a client is told that gets no session."""
        seen = list(self.seen)
        with pytest.raises(moqt.HandshakeFailed) as caught:
            await self.connect(scheme, certificate, **options)
        assert self.seen == seen
        return str(caught.value)


@asynccontextmanager
async def serving(cafile: object, *, leaves: bool = False, **options: object) -> AsyncIterator[Served]:
    """Run a server that asks clients for a certificate of an authority; it ends its sessions if it `leaves`."""
    seen: list[moqt.ClientCertificate | None] = []

    async def handler(request: moqt.SessionRequest) -> None:
        seen.append(request.certificate)
        async with request.accept() as session:
            if not leaves:
                await session.wait_closed()

    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, handler, "127.0.0.1", 0, certificate=SERVER, client_cafile=cafile, **options)
        yield Served(await nursery.start(serve), seen)
        nursery.cancel_scope.cancel()


@pytest.fixture
def cafile(tmp_path):
    """The file of the authority that the servers trust."""
    return AUTHORITY.save(tmp_path)


@SCHEMES
async def test_the_handler_has_the_certificate(scheme, cafile):
    """What the client showed is a fact of the request: whom it names, who signed it, until when, and its bytes."""
    names = x509.SubjectAlternativeName([x509.DNSName("edge-7.example")])
    shown = AUTHORITY.issue("edge-7", ON_CLIENTS, names)
    async with serving(cafile) as served:
        await served.connect(scheme, shown)
    (certificate,) = served.seen
    assert certificate is not None
    assert certificate.subject == "CN=edge-7,O=Example"
    assert certificate.issuer == "CN=authority,O=Example"
    assert (certificate.hosts, certificate.name) == (("edge-7.example",), "edge-7.example")
    assert certificate.fingerprint == shown.fingerprint.hex()
    assert certificate.not_after == shown.not_after
    assert x509.load_der_x509_certificate(certificate.der) == shown.certificate
    assert "der" not in repr(certificate)


@SCHEMES
@pytest.mark.parametrize("version", [None, "moq-lite-03", "moq-lite-06", "moqt-16"])
async def test_versions(scheme, version, cafile):
    """Every version has the certificate, and the failure, which is known before the block is entered."""
    versions = None if version is None else [version]
    async with serving(cafile) as served:
        await served.connect(scheme, AUTHORITY.issue(), versions=versions)
        text = await served.refusal(scheme, Authority().issue(), versions=versions)
        assert "does not accept this client's certificate" in text
        assert [certificate is None for certificate in served.seen] == [False]


@SCHEMES
async def test_a_client_without_one(scheme, cafile):
    """A client that has none gets its session, and the request says so, unless the server requires one."""
    async with serving(cafile) as served:
        await served.connect(scheme)
        assert served.seen == [None]
    async with serving(cafile, require_client_certificate=True) as served:
        text = await served.refusal(scheme)
        assert "requires a certificate of its clients" in text
        assert "client_certificate=" in text
        await served.connect(scheme, AUTHORITY.issue())
        assert len(served.seen) == 1


@SCHEMES
async def test_a_server_that_does_not_ask(scheme):
    """A certificate that no one asks for is not shown."""
    async with serving(None) as served:
        await served.connect(scheme, AUTHORITY.issue())
    assert served.seen == [None]


MIDDLE = Authority("middle", AUTHORITY)
OLD = Authority("old", AUTHORITY, starts=-3, ends=-1)
NO_AUTHORITY = Authority("no authority", AUTHORITY, is_authority=False)
DEEP = AUTHORITY
for depth in range(8):
    DEEP = Authority(f"depth {depth}", DEEP)

REFUSED = {
    "another authority": (lambda: Authority("another").issue(), "local issuer"),
    "another authority of the same name": (lambda: Authority().issue(), "signature failure"),
    "self-signed": (self_signed, "self-signed"),
    "expired": (lambda: AUTHORITY.issue(starts=-3, ends=-1), "no longer valid"),
    "not yet valid": (lambda: AUTHORITY.issue(starts=1, ends=3), "not valid yet"),
    "with an expired one between": (lambda: OLD.issue(), "has expired"),
    "for servers": (lambda: AUTHORITY.issue("edge", ON_SERVERS), "not for clients"),
    "not for signatures": (lambda: AUTHORITY.issue("edge", key_usage(signatures=False)), "not for signatures"),
    "without the one between": (lambda: MIDDLE.issue(shown_chain=False), "local issuer"),
    "signed by what is no authority": (lambda: NO_AUTHORITY.issue(), "invalid CA"),
    "long chain": (lambda: DEEP.issue(), "a chain of 9 certificates is longer than 8"),
    "key of another": (
        lambda: moqt.Certificate(AUTHORITY.issue().certificate, ec.generate_private_key(ec.SECP256R1())),
        "does not have the key of its certificate",
    ),
}  # fmt: skip


@SCHEMES
@pytest.mark.parametrize("why", REFUSED)
async def test_refused_certificates(scheme, why, cafile, caplog):
    """The handshake fails with the reason, on that connection alone, and is one line in the server's log."""
    make, text = REFUSED[why]
    async with serving(cafile) as served:
        caplog.set_level(logging.INFO, "moqt_trio")
        message = await served.refusal(scheme, make())
        lines = [record.getMessage() for record in caplog.records if "refused the handshake" in record.getMessage()]
        assert len(lines) == 1
        assert "127.0.0.1" in lines[0]
        for where in (message, lines[0]):
            assert text in where
        await served.connect(scheme, AUTHORITY.issue())
    assert [certificate is None for certificate in served.seen] == [False]
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


@SCHEMES
async def test_chains(scheme, tmp_path):
    """A chain reaches the authority by what the client shows; a certificate in the file is its own authority."""
    alone = self_signed()
    path = tmp_path / "clients.pem"
    path.write_bytes(certificate_to_pem(AUTHORITY.certificate).replace(b"\n", b"\r\n") + alone.certificate_pem())
    async with serving(path) as served:
        await served.connect(scheme, MIDDLE.issue("by the middle"))
        await served.connect(scheme, alone)
        longest = DEEP.above
        assert longest is not None
        await served.connect(scheme, longest.issue("eight in all"))
    subjects = [certificate.subject for certificate in served.seen if certificate is not None]
    assert subjects == ["CN=by the middle,O=Example", "CN=alone,O=Example", "CN=eight in all,O=Example"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: ec.generate_private_key(ec.SECP521R1()),
        lambda: rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate,
    ],
    ids=["P-256", "P-384", "P-521", "RSA", "Ed25519"],
)
async def test_keys(make, cafile):
    """A client signs with a key of each kind that a server signs with."""
    async with serving(cafile) as served:
        await served.connect("moqt", AUTHORITY.issue(key=make()))
    assert [certificate is None for certificate in served.seen] == [False]


async def test_a_source(cafile):
    """A function is called for each connection: what it returns then is shown."""
    certificates = [AUTHORITY.issue("first"), AUTHORITY.issue("second")]
    remaining = iter(certificates)
    async with serving(cafile) as served:
        for _ in certificates:
            await served.connect("moqt", lambda: next(remaining))
    subjects = [certificate.subject for certificate in served.seen if certificate is not None]
    assert subjects == ["CN=first,O=Example", "CN=second,O=Example"]


async def test_files(cafile, tmp_path):
    """`CertificateFiles` are shown as they were loaded last."""
    pair = tmp_path / "client.pem"

    def write(certificate: moqt.Certificate) -> None:
        pair.write_bytes(certificate.certificate_pem() + certificate.private_key_pem())

    write(AUTHORITY.issue("old"))
    files = moqt.CertificateFiles(pair, pair)
    async with serving(cafile) as served:
        await served.connect("moqt", files)
        write(AUTHORITY.issue("new"))
        files.reload()
        await served.connect("moqt", files)
    subjects = [certificate.subject for certificate in served.seen if certificate is not None]
    assert subjects == ["CN=old,O=Example", "CN=new,O=Example"]


async def test_stay_connected(cafile):
    """`stay_connected` shows it on each session."""
    sessions = 0

    async def handler(session: moqt.Session) -> str | None:
        nonlocal sessions
        sessions += 1
        await session.wait_closed()
        return "done" if sessions == 2 else None

    async with serving(cafile, leaves=True, require_client_certificate=True) as served:
        url = f"moqt://127.0.0.1:{served.listener.port}/"
        options = {"fingerprint": SERVER.fingerprint, "client_certificate": AUTHORITY.issue()}
        with trio.fail_after(10):
            retry = moqt.Backoff(initial=0.01)
            assert await moqt.stay_connected(url, handler, retry=retry, **options) == "done"
    assert [certificate is None for certificate in served.seen] == [False, False]


async def test_bad_arguments(tmp_path, cafile):
    """What is no certificate, and no file of authorities, is refused at once, with a remedy."""
    with pytest.raises(TypeError, match=r"Certificate\.load"):
        async with moqt.connect("moqt://localhost/", client_certificate="client.pem"):  # type: ignore[arg-type]
            pass
    with pytest.raises(TypeError, match="returns a Certificate"):
        async with moqt.connect("moqt://localhost/", client_certificate=lambda: "client.pem"):  # type: ignore[arg-type,return-value]
            pass
    long = moqt.Certificate(AUTHORITY.issue().certificate, AUTHORITY.key, (AUTHORITY.certificate,) * 40)
    with pytest.raises(moqt.CertificateUnusable, match="leave out"):
        async with moqt.connect("moqt://localhost/", client_certificate=long):
            pass

    async def handler(request: moqt.SessionRequest) -> None:
        await request.reject()

    with pytest.raises(ValueError, match="client_cafile"):
        await moqt.serve(handler, port=0, require_client_certificate=True)
    with pytest.raises(TypeError, match="client_cafile"):
        await moqt.serve(handler, port=0, client_cafile=b"")  # type: ignore[arg-type]
    empty = tmp_path / "empty.pem"
    empty.write_bytes(b"")
    with pytest.raises(moqt.CertificateUnusable, match=r"empty\.pem"):
        await moqt.serve(handler, port=0, client_cafile=empty)


def test_a_value():
    """It is compared by what it says, and made of what the certificate says."""
    shown = AUTHORITY.issue()
    values = dict(
        subject="CN=a", hosts=(), fingerprint=shown.certificate.fingerprint(hashes.SHA256()).hex(), not_after=NOW,
        issuer="CN=b", der=b"",
    )  # fmt: skip
    assert moqt.ClientCertificate(**values) == moqt.ClientCertificate(**values)
