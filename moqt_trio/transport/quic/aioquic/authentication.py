"""Who the peer is, in aioquic's handshake: pinned certificates, and those of clients.

aioquic 1.7 verifies a server's certificate by its authorities, and its client has what it takes to show one of its own.
Its server can ask for one by a private attribute; then it parses what it gets, and checks that the client has the key.
What is added here, in a class that takes the place of the TLS context's own:

1.  A server verifies the client's chain: its length, its usage, its dates and its authority. That comes before the
    check of the key: with a key of a stranger nothing is computed. Each failure has the alert that TLS gives it.
2.  A client checks the pinned fingerprint before it shows anything of its own.
3.  A message of the peer has a bound. aioquic buffers whatever length a message states, which is up to 16 MiB.

There is no resumption: neither side has tickets, so that a certificate always belongs to this very connection.

Tests: `tests/transport/test_client_certificates.py`, and `test_authentication` in `test_aioquic_contract.py`, which
fails when the private names that are used move.

Spec: RFC 8446, sections 4.3.2, 4.4.2, 4.4.3 and 6.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from aioquic.tls import (
    Alert,
    AlertBadCertificate,
    AlertCertificateExpired,
    AlertDecodeError,
    AlertDecryptError,
    AlertDescription,
    AlertIllegalParameter,
    AlertUnsupportedCertificate,
    Context,
    pull_certificate,
    verify_certificate,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from .signatures import allow_p521

if TYPE_CHECKING:
    from aioquic._buffer import Buffer
    from aioquic.tls import Certificate, Epoch

_HEADER = 4
"""Bytes before a message's body: its type and its length."""
_EXPIRED = frozenset({9, 10})
"""OpenSSL's numbers for a certificate of the chain that is not valid yet, or no more."""
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})
"""OpenSSL's numbers for a chain that ends at no authority that is trusted."""
_CLIENT_USAGES = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)


class _AlertUnknownAuthority(Alert):
    description = AlertDescription.unknown_ca


class _AlertCertificateRequired(Alert):
    description = AlertDescription.certificate_required


@attrs.frozen
class PeerChecks:
    """What a handshake demands of the peer.

    Attributes:
        max_message: Bytes of one message of TLS.
        max_chain: Certificates in a client's chain, its own among them.
        pinned: SHA-256 digests, of which the server's certificate must have one; none for no such check.
        authorities: Those that sign clients' certificates, in PEM; None does not ask for a certificate.
        required: True refuses clients that show none.
    """

    max_message: int
    max_chain: int
    pinned: tuple[bytes, ...] = ()
    authorities: bytes | None = None
    required: bool = False

    def apply(self, tls: Context) -> None:
        """Have a TLS context make these checks, and take P-521; call it before its first message."""
        allow_p521(tls)
        # A function in its place would refer to the context that it belongs to; see `endings.py`, 4.
        tls.__class__ = _CheckingContext
        assert isinstance(tls, _CheckingContext)
        tls.checks = self
        tls._request_client_certificate = self.authorities is not None


class _CheckingContext(Context):
    """aioquic's TLS context with the checks of this file."""

    checks: PeerChecks

    def handle_message(self, input_data: bytes, output_buf: dict[Epoch, Buffer]) -> None:
        super().handle_message(input_data, output_buf)
        # What is left is the beginning of a message.
        if len(self._receive_buffer) >= _HEADER:
            self._check_length(_HEADER + int.from_bytes(self._receive_buffer[1:_HEADER], "big"))

    def _handle_reassembled_message(
        self, message_type: int, input_buf: Buffer, output_buf: dict[Epoch, Buffer]
    ) -> None:
        self._check_length(input_buf.capacity)
        super()._handle_reassembled_message(message_type, input_buf, output_buf)

    def _check_length(self, size: int) -> None:
        if size > self.checks.max_message:
            raise AlertDecodeError(f"a message of TLS has {size} bytes, and at most {self.checks.max_message} are read")

    def _set_peer_certificate(self, certificate: Certificate) -> None:
        try:
            super()._set_peer_certificate(certificate)
        except Warning as warning:
            # Where warnings are errors, those of a certificate are the peer's.
            raise AlertBadCertificate("Certificate could not be parsed") from warning

    # -- a client --------------------------------------------------------------------------------------------

    def _client_handle_certificate_verify(self, input_buf: Buffer) -> None:
        super()._client_handle_certificate_verify(input_buf)
        pinned, certificate = self.checks.pinned, self._peer_certificate
        if pinned and certificate is not None:
            shown = certificate.fingerprint(hashes.SHA256())
            if shown not in pinned:
                raise AlertBadCertificate(f"the certificate's SHA-256 is {shown.hex()}, not a pinned one")

    # -- a server --------------------------------------------------------------------------------------------

    def _server_handle_certificate(self, input_buf: Buffer) -> None:
        message = pull_certificate(input_buf)
        if message.request_context:
            raise AlertIllegalParameter("Certificate answers another request")
        count = len(message.certificates)
        if not count and self.checks.required:
            raise _AlertCertificateRequired("this server requires a certificate of its clients")
        if count > self.checks.max_chain:
            raise AlertBadCertificate(f"a chain of {count} certificates is longer than {self.checks.max_chain}")
        input_buf.seek(0)
        super()._server_handle_certificate(input_buf)
        if self._peer_certificate is not None and self.checks.authorities is not None:
            _verify_client(self._peer_certificate, self._peer_certificate_chain, self.checks.authorities)

    def _server_handle_certificate_verify(self, input_buf: Buffer) -> None:
        try:
            super()._server_handle_certificate_verify(input_buf)
        except AlertDecryptError as error:
            if error.args:
                raise
            raise AlertDecryptError("the client does not have the key of its certificate") from error


def _verify_client(certificate: x509.Certificate, chain: list[x509.Certificate], authorities: bytes) -> None:
    """Raise an alert unless a client's chain is one that the authorities vouch for."""
    try:
        # What is read of a certificate later is parsed here; it would raise when it is asked for.
        _ = certificate.subject, certificate.issuer
        _check_usage(certificate.extensions)
        verify_certificate(certificate, chain, cadata=authorities)
    except AlertBadCertificate as error:
        raise _verification_alert(error) from error
    except Alert:
        raise
    except Exception as error:
        # Parsers of what a stranger sends, with exceptions of several libraries.
        raise AlertBadCertificate("the client's certificate could not be parsed") from error


def _check_usage(extensions: x509.Extensions) -> None:
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.ExtendedKeyUsage) and not any(usage in value for usage in _CLIENT_USAGES):
            raise AlertUnsupportedCertificate("the client's certificate is not for clients (extended key usage)")
        if isinstance(value, x509.KeyUsage) and not value.digital_signature:
            raise AlertUnsupportedCertificate("the client's certificate is not for signatures (key usage)")


def _verification_alert(error: AlertBadCertificate) -> Alert:
    """Return the alert for OpenSSL's reason, which aioquic keeps as the context of its own exception."""
    numbers = getattr(error.__context__, "errors", None) or [0]
    text = f"the client's certificate is not trusted: {error}"
    if numbers[0] in _EXPIRED:
        return AlertCertificateExpired(text)
    return _AlertUnknownAuthority(text) if numbers[0] in _UNKNOWN_AUTHORITY else AlertBadCertificate(text)
