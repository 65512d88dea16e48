"""The settings of a QUIC client and of a QUIC server. Values only."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from ...errors import VersionUnsupported
from ...limits import Limits
from .stateless_reset import RESET_KEY_BYTES
from .steering import IdShare

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes


def _reset_key(instance: object, attribute: attrs.Attribute[bytes], value: bytes) -> None:
    if len(value) < RESET_KEY_BYTES:
        raise ValueError(f"{attribute.name} must have at least {RESET_KEY_BYTES} bytes, not {len(value)}")


@attrs.frozen
class ServerIdentity:
    """How a server proves who it is.

    Attributes:
        certificate: The leaf certificate.
        chain: The certificates between the leaf and a root, leaf's issuer first.
        private_key: The leaf's key.
    """

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    private_key: CertificateIssuerPrivateKeyTypes = attrs.field(repr=False)


@attrs.frozen
class ClientSettings:
    """What a client offers and trusts.

    Attributes:
        alpns: The application protocols that are offered, best first.
        server_name: The name or address that the certificate must carry, also sent as SNI when it is a name.
        limits: The bounds of the connection.
        verify: False accepts every certificate.
        cafile: A PEM file of the authorities to trust.
        cadata: The authorities to trust in PEM. Without either, those that come with `certifi` are trusted.
        fingerprints: SHA-256 digests of certificates; when there are any, the server's leaf certificate must
            have one of them, and nothing else about it is looked at.
        offered: What errors say was offered, when that is better known by other names than those of `alpns`.
        web: True when HTTP/3 is wanted, for WebTransport.
    """

    alpns: tuple[str, ...]
    server_name: str
    limits: Limits = attrs.field(factory=Limits)
    verify: bool = True
    cafile: str | None = None
    cadata: bytes | None = None
    fingerprints: tuple[bytes, ...] = ()
    offered: tuple[str, ...] = ()
    web: bool = False

    def unsupported(self, target: str, reason: str) -> VersionUnsupported:
        """Return the error for a server that accepts none of `alpns`.

        Args:
            target: The server, for the message.
            reason: What the server said about it, printable; often empty.
        """
        theirs = f": {reason}" if reason else ""
        if self.web:
            text = f"{target} speaks no HTTP/3, which https:// URLs need; it may speak raw QUIC, at moqt://{target}"
            return VersionUnsupported(text + theirs, offered=self.offered)
        what, offered = ("versions", self.offered) if self.offered else ("protocols", self.alpns)
        return VersionUnsupported(
            f"{target} speaks none of the offered {what} ({', '.join(offered)}){theirs}", offered=offered
        )


@attrs.frozen
class ServerSettings:
    """What a server offers.

    Attributes:
        alpns: The application protocols that are accepted, best first.
        identity: Returns the certificate to show; called for each new connection, so that it can be renewed.
        limits: The bounds of each connection, and of the listener.
        reset_key: The secret behind the tokens of stateless resets; a random one ends with the process.
        offered: What a client is told that shares none of `alpns`, when that is better known by other names.
        ids: The connection ids to choose, where several processes serve the port; any, when left out.
    """

    alpns: tuple[str, ...]
    identity: Callable[[], ServerIdentity]
    limits: Limits = attrs.field(factory=Limits)
    reset_key: bytes = attrs.field(
        factory=lambda: os.urandom(RESET_KEY_BYTES), validator=_reset_key, repr=False, kw_only=True
    )
    offered: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    ids: IdShare = attrs.field(default=IdShare(), kw_only=True)
