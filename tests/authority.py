"""An authority that signs certificates of clients, good ones and others, for tests."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

import moqt_trio as moqt

if TYPE_CHECKING:
    from pathlib import Path

    from moqt_trio.certificates.pem import PrivateKey

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
ON_CLIENTS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
ON_SERVERS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])


def name_of(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def key_usage(*, signatures: bool) -> x509.KeyUsage:
    return x509.KeyUsage(signatures, False, not signatures, False, False, False, False, False, False)


class Authority:
    """A key and its certificate; `issue` signs with them."""

    def __init__(
        self,
        name: str = "authority",
        above: Authority | None = None,
        *,
        is_authority: bool = True,
        starts: float = 0,
        ends: float = 10,
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = name_of(name)
        self.above = above
        signer = above or self
        builder = builder_of(self.name, signer.name, self.key.public_key(), starts, ends)
        builder = builder.add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        self.certificate = builder.sign(signer.key, hashes.SHA256())

    def issue(
        self,
        name: str = "edge-7",
        *extensions: x509.ExtensionType,
        starts: float = -1,
        ends: float = 5,
        key: PrivateKey | None = None,
        shown_chain: bool = True,
    ) -> moqt.Certificate:
        """Return a certificate that is valid in these days from now, for clients unless extensions say otherwise."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        builder = builder_of(name_of(name), self.name, key.public_key(), starts, ends)
        for extension in extensions or (ON_CLIENTS,):
            builder = builder.add_extension(extension, critical=False)
        chain, authority = [], self
        while shown_chain and authority.above is not None:
            chain.append(authority.certificate)
            authority = authority.above
        return moqt.Certificate(builder.sign(self.key, hashes.SHA256()), key, tuple(chain))

    def save(self, directory: Path) -> str:
        """Write the authority's certificate to a file, and return its name."""
        path = directory / f"{id(self)}.pem"
        path.write_bytes(moqt.Certificate(self.certificate, self.key).certificate_pem())
        return str(path)


def self_signed(*extensions: x509.ExtensionType) -> moqt.Certificate:
    """Return a certificate that is its own authority."""
    key = ed25519.Ed25519PrivateKey.generate()
    builder = builder_of(name_of("alone"), name_of("alone"), key.public_key(), -1, 5)
    for extension in extensions or (ON_CLIENTS,):
        builder = builder.add_extension(extension, critical=False)
    return moqt.Certificate(builder.sign(key, None), key)


def builder_of(subject, issuer, public_key, starts: float, ends: float) -> x509.CertificateBuilder:
    days = dt.timedelta(days=1)
    return x509.CertificateBuilder(
        issuer, subject, public_key, x509.random_serial_number(), NOW + starts * days, NOW + ends * days
    )
