"""PEM files of certificates and keys: read with errors that name the remedy, written whole or not at all."""

from __future__ import annotations

import os
import re
import ssl
import tempfile
import warnings
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ..errors import CertificateUnusable, printable
from ..loggers import Logger

if TYPE_CHECKING:
    from pathlib import Path

logger = Logger(__name__)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
"""The kinds of key that the QUIC engine can sign a handshake with."""

_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
"""The curves that TLS 1.3 signs with (RFC 8446, section 4.2.3), as far as the engine has them."""
_LEAST_RSA_BITS = 2048
"""Bits of the shortest RSA key that OpenSSL and browsers accept."""
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----(?:(?!-----BEGIN ).)*?-----END CERTIFICATE-----", re.DOTALL)
"""One certificate in PEM, however damaged the one before it is."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


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


def read_authorities(path: Path) -> bytes | None:
    """Check a file of authorities before it is used.

    Returns:
        None when OpenSSL takes the file as it is, whose opinion is the one that counts; else what is usable of it, in
        PEM. A bundle of many authorities is not spoiled by one that is damaged.

    Raises:
        CertificateUnusable: The file cannot be read, or holds no certificate.
    """
    data = _read(path, "authorities")
    try:
        if not data.startswith(_BYTE_ORDER_MARK):
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
            return None
    except ssl.SSLError:
        pass
    return b"\n".join(_usable_blocks(path, data)) + b"\n"


def read_client_authorities(path: Path) -> bytes:
    """Return the usable certificates of a file of authorities in PEM, each written as OpenSSL writes it.

    Raises:
        CertificateUnusable: The file cannot be read, or holds no certificate.
    """
    blocks = _usable_blocks(path, _read(path, "authorities"))
    return b"".join(certificate_to_pem(x509.load_pem_x509_certificate(block)) for block in blocks)


def _usable_blocks(path: Path, data: bytes) -> list[bytes]:
    blocks: list[bytes] = _BLOCK.findall(data)
    usable = [block for block in blocks if _is_usable(block)]
    if not usable:
        raise CertificateUnusable(
            f"{printable(str(path))} holds no certificate in PEM: it must contain -----BEGIN CERTIFICATE-----"
        )
    if len(usable) < len(blocks):
        logger.warning(
            "%s: %d of %d certificates cannot be used", printable(str(path)), len(blocks) - len(usable), len(blocks)
        )
    return usable


def _is_usable(block: bytes) -> bool:
    # The engine loads them once more in the handshake, where a warning would be the caller's surprise.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            x509.load_pem_x509_certificate(block)
        except (ValueError, Warning):
            return False
    return True


def read_key(path: Path) -> PrivateKey:
    """Return the private key in a file.

    Raises:
        CertificateUnusable: The file cannot be read, holds none, or one that is encrypted, or of a kind that no client
            accepts.
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
    if isinstance(key, ec.EllipticCurvePrivateKey) and not isinstance(key.curve, _CURVES):
        raise CertificateUnusable(
            f"the private key in {shown} is on the curve {key.curve.name}, which TLS 1.3 does not use: use ECDSA P-256"
        )
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < _LEAST_RSA_BITS:
        raise CertificateUnusable(
            f"the RSA key in {shown} has {key.key_size} bits, and clients refuse fewer than {_LEAST_RSA_BITS}: "
            "use ECDSA P-256"
        )
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


def unusable_store(verb: str, path: Path, error: OSError) -> CertificateUnusable:
    """Return the exception for an operating system error in the directory of development certificates."""
    return CertificateUnusable(
        f"{unusable(verb, path, error)}; set XDG_STATE_HOME to a directory that this account can write to, or give a "
        "certificate: serve(certificate=Certificate.load('cert.pem', 'key.pem'))"
    )
