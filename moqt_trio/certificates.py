"""Certificates: loading them, making short-lived ones for development, and naming them by their SHA-256.

Two machines never share a development certificate. On one machine the server of an account keeps its
certificates in a store, and a client of the same account trusts exactly what lies there: see
`DevelopmentCertificates`. Who is allowed to ask the store (clients that connect to a loopback address) is decided
by the client, not here. This file knows nothing of QUIC, of TLS handshakes or of tasks; it blocks only for small files.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .errors import printable
from .pem import (
    CertificateUnusable,
    PrivateKey,
    certificate_to_pem,
    key_to_pem,
    read_certificates,
    read_key,
    unusable,
    write_whole,
)

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
"""The names that a development certificate covers unless told otherwise."""

MAX_DEVELOPMENT_DAYS = 14
"""Browsers refuse to pin a certificate that is valid for longer."""

RENEW_BEFORE_DAYS = 2
"""A development certificate with less than this left is replaced."""

_CLOCK_SKEW = dt.timedelta(hours=1)
_DNS_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_STORED_NAME = re.compile(r"[0-9a-f]{64}\.pem")


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@attrs.frozen(repr=False)
class Certificate:
    """A certificate with its private key: what a server shows, and proves to own.

    Attributes:
        certificate: The server's own certificate.
        private_key: The key that belongs to it.
        chain: The certificates between it and the authority, nearest first; empty for a self-signed one.
    """

    certificate: x509.Certificate
    private_key: PrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    @classmethod
    def load(cls, certfile: str | os.PathLike[str], keyfile: str | os.PathLike[str]) -> Certificate:
        """Returns a certificate from two PEM files. Whether it has expired is not looked at: see `days_left`.

        Args:
            certfile: The server's certificate first, then its chain.
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
        """The fingerprint as people write it: `ab:cd:…`."""
        return self.fingerprint.hex(":")

    @property
    def not_after(self) -> dt.datetime:
        """When the certificate expires, in UTC."""
        return self.certificate.not_valid_after_utc

    @property
    def hosts(self) -> tuple[str, ...]:
        """The DNS names and IP addresses that the certificate is for."""
        try:
            names = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return ()
        addresses = (str(address) for address in names.get_values_for_type(x509.IPAddress))
        return (*names.get_values_for_type(x509.DNSName), *addresses)

    def days_left(self, now: dt.datetime | None = None) -> float:
        """Returns the days until the certificate expires; below zero once it has.

        Args:
            now: An aware time; the clock's when left out.
        """
        return (self.not_after - (now or _utc_now())) / dt.timedelta(days=1)

    def certificate_pem(self) -> bytes:
        """Returns the certificate and its chain in PEM."""
        return b"".join(certificate_to_pem(certificate) for certificate in (self.certificate, *self.chain))

    def private_key_pem(self) -> bytes:
        """Returns the private key in PEM (PKCS #8), not encrypted."""
        return key_to_pem(self.private_key)

    def __repr__(self) -> str:
        hosts = ", ".join(self.hosts)
        return f"<Certificate for {hosts} until {self.not_after:%Y-%m-%d %H:%M} UTC, {self.fingerprint_text}>"


def development_certificate(
    hosts: Sequence[str] = LOCAL_HOSTS, *, days: float = 13, now: dt.datetime | None = None
) -> Certificate:
    """Returns a new self-signed ECDSA P-256 certificate of the kind that browsers let a page pin.

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
    start = (now or _utc_now()).astimezone(dt.UTC).replace(microsecond=0) - _CLOCK_SKEW
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
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(signatures_only, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    return Certificate(builder.sign(key, hashes.SHA256()), key)


def parse_fingerprint(text: str) -> bytes:
    """Returns the 32 bytes of a SHA-256 fingerprint.

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


class DevelopmentCertificates:
    """The development certificates of this account on this machine, kept in a directory.

    A server takes `current()`; it is made when there is none and renewed when less than two days are left. A client
    on the same account pins `fingerprints()` for `localhost`. Only the account itself can write there: the directory
    has mode 0700, a key 0600, and a directory that somebody else owns or can write to is refused. Files are written
    whole or not at all, so that any number of servers and clients may use one store at once.

    Args:
        directory: Where the certificates are kept; `$XDG_STATE_HOME/moqt-trio`, or else
            `~/.local/state/moqt-trio`, when left out. It is made when the first certificate is.
        hosts: The names that `current()` has to cover.

    Raises:
        ValueError: A host is neither a DNS name nor an IP address.
        CertificateUnusable: The directory was left out, and the account has no home.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None, *, hosts: Sequence[str] = LOCAL_HOSTS) -> None:
        self.directory = Path(directory) if directory is not None else _default_directory()
        self.hosts = tuple(str(_general_name(host).value) for host in hosts)

    def __repr__(self) -> str:
        return f"<DevelopmentCertificates in {str(self.directory)!r} for {', '.join(self.hosts)}>"

    def current(self, now: dt.datetime | None = None) -> Certificate:
        """Returns the certificate to serve with: the stored one that lasts longest, or a new one.

        The one that it replaces stays in `fingerprints()` for as long as it is valid.

        Args:
            now: An aware time; the clock's when left out.

        Raises:
            CertificateUnusable: The directory cannot be used, or belongs to somebody else.
        """
        now = now or _utc_now()
        stored = [Certificate(certificate, key) for certificate, key in self._pairs(now)]
        fit = [
            certificate
            for certificate in stored
            if certificate.days_left(now) >= RENEW_BEFORE_DAYS and set(self.hosts) <= set(certificate.hosts)
        ]
        if fit:
            return max(fit, key=lambda certificate: (certificate.not_after, certificate.fingerprint))
        certificate = development_certificate(self.hosts, now=now)
        self._store(certificate)
        self._remove_outdated(now)
        return certificate

    def fingerprints(self, now: dt.datetime | None = None) -> tuple[bytes, ...]:
        """Returns the SHA-256 of every stored certificate that is valid now. No key is read.

        Args:
            now: An aware time; the clock's when left out.

        Raises:
            CertificateUnusable: The directory cannot be used, or belongs to somebody else.
        """
        now = now or _utc_now()
        return tuple(certificate.fingerprint(hashes.SHA256()) for _, certificate in self._valid(now))

    def _files(self) -> list[Path]:
        """Returns the certificate files; none when the directory does not exist."""
        try:
            self._refuse_foreign_directory()
            return sorted(path for path in self.directory.iterdir() if _STORED_NAME.fullmatch(path.name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise unusable("read", self.directory, error) from error

    def _refuse_foreign_directory(self) -> None:
        # Who can write here decides what this account's clients trust.
        status = self.directory.stat()
        if not stat.S_ISDIR(status.st_mode):
            raise CertificateUnusable(f"{printable(str(self.directory))} is not a directory: move it away")
        if os.name != "posix":
            return
        if status.st_uid != os.geteuid():
            raise CertificateUnusable(
                f"{printable(str(self.directory))} belongs to another account (user id {status.st_uid}): "
                "remove it, or set XDG_STATE_HOME to a directory of your own"
            )
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise CertificateUnusable(
                f"other accounts can write to {printable(str(self.directory))}: empty it and run chmod 700 on it"
            )

    def _valid(self, now: dt.datetime) -> Iterator[tuple[Path, x509.Certificate]]:
        for path in self._files():
            certificate = _stored_certificate(path)
            if certificate and certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
                yield path, certificate

    def _pairs(self, now: dt.datetime) -> Iterator[tuple[x509.Certificate, PrivateKey]]:
        for path, certificate in self._valid(now):
            try:
                key = read_key(path.with_suffix(".key"))
            except CertificateUnusable:
                continue
            if key.public_key() == certificate.public_key():
                yield certificate, key

    def _store(self, certificate: Certificate) -> None:
        path = self.directory / f"{certificate.fingerprint.hex()}.pem"
        try:
            self.directory.parent.mkdir(parents=True, exist_ok=True)
            self.directory.mkdir(mode=0o700, exist_ok=True)
            self._refuse_foreign_directory()
            # The key first: a certificate that can be seen has its key beside it.
            write_whole(path.with_suffix(".key"), certificate.private_key_pem())
            write_whole(path, certificate.certificate_pem())
        except OSError as error:
            raise unusable("write", self.directory, error) from error

    def _remove_outdated(self, now: dt.datetime) -> None:
        """Removes what has expired or does not decode, and its keys."""
        for path in self._files():
            certificate = _stored_certificate(path)
            if certificate is None or certificate.not_valid_after_utc < now:
                path.unlink(missing_ok=True)
                path.with_suffix(".key").unlink(missing_ok=True)


def _default_directory() -> Path:
    # A relative path in an XDG variable counts as unset (XDG Base Directory Specification).
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():
        try:
            state = Path.home() / ".local" / "state"
        except RuntimeError as error:
            raise CertificateUnusable("this account has no home directory: set XDG_STATE_HOME") from error
    return state / "moqt-trio"


def _stored_certificate(path: Path) -> x509.Certificate | None:
    """Returns a certificate of the store; None when the file is gone, damaged, or not what its name says."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return None
    return certificate if certificate.fingerprint(hashes.SHA256()).hex() == path.stem else None


def _general_name(host: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if _DNS_NAME.fullmatch(host) is None:
        raise ValueError(f"a host is a DNS name in ASCII or an IP address without brackets, not {printable(host)!r}")
    return x509.DNSName(host.lower())
