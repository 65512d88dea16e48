"""TLS for HTTP over TCP, with the certificate that QUIC shows. Knows nothing of sockets."""

from __future__ import annotations

import secrets
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..certificates import Certificate


def server_context(certificate: Certificate, *, alpns: Sequence[str], ciphers: str) -> ssl.SSLContext:
    """Returns a server's TLS settings.

    Args:
        certificate: What is shown.
        alpns: The application protocols, best first.
        ciphers: Those of TLS 1.2, as OpenSSL spells them.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Both are demanded by HTTP/2 (RFC 9113, section 9.2.1).
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(ciphers)
    context.set_alpn_protocols(list(alpns))
    # The ssl module loads keys from files only: what lies there for a moment is encrypted, and the password is not.
    password = secrets.token_bytes(32)
    key = certificate.private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password.hex().encode()),
    )
    with tempfile.TemporaryDirectory(prefix="moqt-trio-") as directory:
        path = Path(directory, "server.pem")
        path.write_bytes(certificate.certificate_pem() + key)
        context.load_cert_chain(path, password=password.hex())
    return context
