"""A certificate with its key: loading one, making a short-lived one for development, naming it by its SHA-256.

Nothing here waits for more than a small file. `store.py` says where certificates are kept.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..errors import CertificateUnusable, printable
from .pem import PrivateKey, certificate_to_pem, key_to_pem, read_certificates, read_key

if TYPE_CHECKING:
    import os

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
"""The names that a development certificate covers by default."""

MAX_DEVELOPMENT_DAYS = 14
"""Days that a certificate may be valid in all: browsers refuse to pin one that is valid for longer."""

_CLOCK_SKEW = dt.timedelta(hours=1)
_DNS_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")


def utc_now() -> dt.datetime:
    """Return the wall clock's time."""
    return dt.datetime.now(dt.UTC)


@attrs.frozen(repr=False)
class Certificate:
    """A certificate with its private key, as a server shows it, and a client that is asked for one.

    Attributes:
        certificate: The server's or the client's own certificate.
        private_key: The key that belongs to it.
        chain: The certificates between it and the authority, nearest first; empty for a self-signed one.
    """

    certificate: x509.Certificate
    private_key: PrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    @classmethod
    def load(cls, certfile: str | os.PathLike[str], keyfile: str | os.PathLike[str]) -> Certificate:
        """Return a certificate from two PEM files. Whether it has expired is not checked: see `days_left`.

        Args:
            certfile: The server's or the client's own certificate first, then its chain.
            keyfile: The private key, not encrypted. May be the same file.

        Raises:
            CertificateUnusable: A file cannot be read or holds something else, or the key belongs to another
                certificate.
        """
        certificates = read_certificates(Path(certfile))
        key = read_key(Path(keyfile))
        if key.public_key() != certificates[0].public_key():
            raise CertificateUnusable(
                f"the key in {printable(str(keyfile))} does not belong to the first certificate in "
                f"{printable(str(certfile))}: name the pair that was made together, the server's certificate first"
            )
        return cls(certificates[0], key, tuple(certificates[1:]))

    @property
    def fingerprint(self) -> bytes:
        """The SHA-256 of the certificate in DER: what a client pins. 32 bytes."""
        return self.certificate.fingerprint(hashes.SHA256())

    @property
    def fingerprint_text(self) -> str:
        """The fingerprint in pairs of digits: `ab:cd:…`."""
        return self.fingerprint.hex(":")

    @property
    def not_after(self) -> dt.datetime:
        """When the certificate expires, in UTC."""
        return self.certificate.not_valid_after_utc

    @property
    def hosts(self) -> tuple[str, ...]:
        """The DNS names and IP addresses that the certificate is for."""
        return hosts_of(self.certificate)

    def days_left(self, now: dt.datetime | None = None) -> float:
        """Return the days until the certificate expires; below zero once it has.

        Args:
            now: An aware time; the clock's when left out.
        """
        return (self.not_after - (now or utc_now())) / dt.timedelta(days=1)

    def certificate_pem(self) -> bytes:
        """Return the certificate and its chain in PEM."""
        return b"".join(certificate_to_pem(certificate) for certificate in (self.certificate, *self.chain))

    def private_key_pem(self, password: str | None = None) -> bytes:
        """Return the private key in PEM (PKCS #8), encrypted with a password, or not encrypted where it is None."""
        return key_to_pem(self.private_key, password)

    def __repr__(self) -> str:
        hosts = ", ".join(self.hosts)
        return f"<Certificate for {hosts} until {self.not_after:%Y-%m-%d %H:%M} UTC, {self.fingerprint_text}>"


CertificateSource: TypeAlias = Callable[[], Certificate]
"""Return the certificate to show. A server calls it for each connection that begins, in the task that reads the socket,
and a client for each attempt to connect: it must not block. `Listener.fingerprint` calls it, too, in the thread that
asks."""


@attrs.frozen
class ClientCertificate:
    """The certificate that a client has shown, and proved to have the key of: `SessionRequest.certificate`.

    An authority that `serve(client_cafile=…)` names has signed it, and it was valid when the connection began. It
    admits nothing by itself.

    Attributes:
        subject: Whom the authority gave it to, as in RFC 4514: `"CN=edge-7,O=Example"`.
        hosts: The DNS names and IP addresses that it is for; often none.
        fingerprint: The SHA-256 of the certificate in hexadecimal, as `Listener.fingerprint` has a server's.
        not_after: When it expires, in UTC. The session does not end by that.
        issuer: The authority that signed it, written as the subject is.
        der: The certificate itself.
    """

    subject: str
    hosts: tuple[str, ...]
    fingerprint: str
    not_after: dt.datetime
    issuer: str
    der: bytes = attrs.field(repr=False)

    @property
    def name(self) -> str:
        """What to call the client: the first DNS name, else the subject's common name, else the fingerprint."""
        certificate = x509.load_der_x509_certificate(self.der)
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        names = [host for host in self.hosts if not _is_address(host)] + [str(item.value) for item in common]
        return next(filter(None, names), self.fingerprint)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def client_certificate(der: bytes | None) -> ClientCertificate | None:
    """Return what a verified certificate says; None for None."""
    if der is None:
        return None
    certificate = x509.load_der_x509_certificate(der)
    return ClientCertificate(
        subject=certificate.subject.rfc4514_string(),
        hosts=hosts_of(certificate),
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        not_after=certificate.not_valid_after_utc,
        issuer=certificate.issuer.rfc4514_string(),
        der=der,
    )


def development_certificate(
    hosts: Sequence[str] = LOCAL_HOSTS, *, days: float = 13, now: dt.datetime | None = None
) -> Certificate:
    """Return a new self-signed ECDSA P-256 certificate of the kind that browsers let a page pin.

    Args:
        hosts: The DNS names and IP addresses that it is for.
        days: How long it is valid in all, at most 14. It starts an hour ago, for clocks that run late.
        now: An aware time; the clock's when left out.

    Raises:
        ValueError: More than 14 days or none, no host, or something that is neither a DNS name nor an IP address.
    """
    if not 0 < days <= MAX_DEVELOPMENT_DAYS:
        raise ValueError(f"a development certificate is valid for 1 to {MAX_DEVELOPMENT_DAYS} days, not {days}")
    if not hosts:
        raise ValueError("a certificate needs at least one host")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "moqt_trio development")])
    start = (now or utc_now()).astimezone(dt.UTC).replace(microsecond=0) - _CLOCK_SKEW
    # Both ends of the validity belong to it (RFC 5280, section 4.1.2.5): a second less keeps 14 days to 14 days.
    end = start + dt.timedelta(days=days) - dt.timedelta(seconds=1)
    signatures_only = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(signatures_only, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    return Certificate(builder.sign(key, hashes.SHA256()), key)


def hosts_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the DNS names and IP addresses that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = (str(address) for address in names.get_values_for_type(x509.IPAddress))
    return (*names.get_values_for_type(x509.DNSName), *addresses)


def parse_fingerprint(text: str) -> bytes:
    """Return the 32 bytes of a SHA-256 fingerprint.

    Args:
        text: 64 hexadecimal digits in either case, or 32 pairs of them with colons between.

    Raises:
        ValueError: It is something else.
    """
    compact = text.strip()
    if re.fullmatch(r"[0-9A-Fa-f]{64}|[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){31}", compact) is None:
        raise ValueError(
            "a fingerprint is the SHA-256 of a certificate: 64 hexadecimal digits, or 32 pairs with colons between, "
            f"not {printable(text)!r}"
        )
    return bytes.fromhex(compact.replace(":", ""))


def general_name(host: str) -> x509.DNSName | x509.IPAddress:
    """Return a host in the form that certificates have.

    Raises:
        ValueError: It is neither a DNS name in ASCII nor an IP address.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if _DNS_NAME.fullmatch(host) is None:
        raise ValueError(f"a host is a DNS name in ASCII or an IP address without brackets, not {printable(host)!r}")
    return x509.DNSName(host.lower())
