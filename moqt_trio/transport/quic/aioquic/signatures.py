"""ECDSA with P-521 in aioquic's handshake, which verifies it and neither offers nor signs it.

`tests/transport/test_aioquic_contract.py` fails when the private names that are used move.

Spec: RFC 8446, section 4.2.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioquic.tls import SignatureAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from aioquic.tls import Context

_P521 = SignatureAlgorithm.ECDSA_SECP521R1_SHA512


def allow_p521(tls: Context) -> None:
    """Let a client accept a server's P-521 key, and a server sign with it."""
    tls._signature_algorithms.append(_P521)
    key = tls.certificate_private_key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP521R1):
        tls._signature_algorithms_for_private_key = lambda: [_P521]  # type: ignore[method-assign]
