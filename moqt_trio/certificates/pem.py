"""PEM files of certificates and keys: read with errors that name the remedy, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ..errors import CertificateUnusable, printable

if TYPE_CHECKING:
    from pathlib import Path

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
"""The kinds of key that the QUIC engine can sign a handshake with."""


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateUnusable(
            f"cannot read the {what} {printable(str(path))} ({error.strerror}): "
            "name a PEM file that this account may read"
        ) from error


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Return the certificates in a file, in its order.

    Raises:
        CertificateUnusable: The file cannot be read, or holds none.
    """
    data = _read(path, "certificate")
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise CertificateUnusable(
            f"{printable(str(path))} holds no certificate in PEM: it must contain -----BEGIN CERTIFICATE-----"
        ) from error


def read_key(path: Path) -> PrivateKey:
    """Return the private key in a file.

    Raises:
        CertificateUnusable: The file cannot be read, holds none, or one that is encrypted or of another kind.
    """
    data = _read(path, "private key")
    shown = printable(str(path))
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except TypeError as error:
        raise CertificateUnusable(
            f"the private key in {shown} is encrypted: decrypt it first, with openssl pkey -in {shown} -out plain.key"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateUnusable(
            f"{shown} holds no private key in PEM: it must contain -----BEGIN PRIVATE KEY-----"
        ) from error
    if not isinstance(key, PrivateKey):
        raise CertificateUnusable(f"the private key in {shown} is of a kind that TLS 1.3 does not use: use ECDSA P-256")
    return key


def certificate_to_pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate in PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_to_pem(key: PrivateKey, password: str | None = None) -> bytes:
    """Return a private key in PEM (PKCS #8), encrypted with a password, or not encrypted where it is None."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password.encode())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def write_whole(path: Path, data: bytes) -> None:
    """Put a file in place, readable by its owner only; a reader sees all of it or none."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".")  # with mode 0600
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def unusable(verb: str, path: Path, error: OSError) -> CertificateUnusable:
    """Return the exception for an operating system error on a path."""
    return CertificateUnusable(f"cannot {verb} {printable(str(path))}: {error.strerror}")
