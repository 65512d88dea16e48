"""Certificates that must not be trusted, shown to clients of both transports; each failure is `CertificateInvalid`."""

from __future__ import annotations

import datetime as dt
from functools import partial

import attrs
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import moqt_trio as moqt

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
SCHEMES = pytest.mark.parametrize("scheme", ["https", "moqt"])


@attrs.frozen
class Authority:
    """An authority of certificates, made for a test."""

    name: x509.Name
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, name: str) -> Authority:
        """Return an authority that signed itself."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, subject, key.public_key(), NOW - 100 * DAY, NOW + 100 * DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        return cls(subject, key, builder.sign(key, hashes.SHA256()))

    def sign(self, host: str, begins: dt.datetime, ends: dt.datetime) -> moqt.Certificate:
        """Return a certificate for a host."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        builder = _builder(subject, self.name, key.public_key(), begins, ends).add_extension(names, critical=False)
        return moqt.Certificate(builder.sign(self.key, hashes.SHA256()), key)


def _builder(subject, issuer, public_key, begins, ends) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )


TRUSTED = Authority.make("trusted")
UNKNOWN = Authority.make("unknown")
GOOD = TRUSTED.sign("localhost", NOW - DAY, NOW + DAY)
UNTRUSTED = {
    "expired": TRUSTED.sign("localhost", NOW - 2 * DAY, NOW - DAY),
    "not yet valid": TRUSTED.sign("localhost", NOW + DAY, NOW + 2 * DAY),
    "another name": TRUSTED.sign("elsewhere.example", NOW - DAY, NOW + DAY),
    "an authority that is not known": UNKNOWN.sign("localhost", NOW - DAY, NOW + DAY),
    "self-signed": moqt.development_certificate(),
}


@pytest.fixture
def cafile(tmp_path):
    """A file with the authority that is trusted."""
    path = tmp_path / "authority.pem"
    path.write_bytes(moqt.Certificate(TRUSTED.certificate, TRUSTED.key).certificate_pem())
    return str(path)


async def failure_of(certificate: moqt.Certificate, scheme: str, **options: object) -> moqt.MoqtError | None:
    """Connect to a server that shows a certificate; return what that raises, None where a session came about."""
    handled = 0

    async def handler(request: moqt.SessionRequest) -> None:
        nonlocal handled
        handled += 1
        async with request.accept() as session:
            await session.wait_closed()

    failure = None
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(moqt.serve, handler, "localhost", 0, certificate=certificate))
        with trio.fail_after(5):
            try:
                async with moqt.connect(f"{scheme}://localhost:{listener.port}/", **options) as session:
                    assert session.closed is None
            except moqt.MoqtError as error:
                failure = error
        assert handled == listener.statistics().sessions_accepted == (failure is None)
        nursery.cancel_scope.cancel()
    return failure


@SCHEMES
async def test_a_certificate_of_a_trusted_authority(scheme, cafile):
    """A certificate for the host, of these days, from an authority that is trusted, is good."""
    assert await failure_of(GOOD, scheme, cafile=cafile) is None


@SCHEMES
@pytest.mark.parametrize("fault", UNTRUSTED)
async def test_refused(scheme, fault, cafile):
    """A client refuses it by default, naming the host, and no handler is called."""
    error = await failure_of(UNTRUSTED[fault], scheme, cafile=cafile)
    assert isinstance(error, moqt.CertificateInvalid)
    assert "localhost" in str(error)


@SCHEMES
async def test_refused_without_an_authority(scheme):
    """With the authorities of the machine alone a certificate of another one is refused."""
    assert isinstance(await failure_of(GOOD, scheme), moqt.CertificateInvalid)


@SCHEMES
async def test_pinned(scheme):
    """A certificate without an authority is accepted when its fingerprint is pinned, and another one is not."""
    certificate = UNTRUSTED["self-signed"]
    assert await failure_of(certificate, scheme, fingerprint=certificate.fingerprint) is None
    assert isinstance(await failure_of(certificate, scheme, fingerprint=GOOD.fingerprint), moqt.CertificateInvalid)
