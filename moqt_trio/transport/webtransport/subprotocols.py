"""The subprotocols of a WebTransport session: which the client offers, and which one the server chose.

They are structured fields, and the peer's are untrusted: what does not parse counts as absent, as RFC 9651 asks.

Spec: draft-ietf-webtrans-http3, section 3.3; RFC 9651.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import http_sf

from ..http3.fields import field

if TYPE_CHECKING:
    from ..http3.fields import Headers

AVAILABLE_PROTOCOLS: Final = b"wt-available-protocols"
"""The field of a request that offers subprotocols: a list of strings, best first."""

PROTOCOL: Final = b"wt-protocol"
"""The field of a response that names the chosen subprotocol: one string."""


def encode_protocols(protocols: Sequence[str]) -> bytes:
    """Return the value of wt-available-protocols. Raises ValueError for a name outside printable ASCII."""
    return http_sf.ser(list(protocols)).encode("ascii")


def encode_protocol(protocol: str) -> bytes:
    """Return the value of wt-protocol. Raises ValueError for a name outside printable ASCII."""
    return http_sf.ser(protocol).encode("ascii")


def offered_protocols_untrusted(headers: Headers) -> tuple[str, ...]:
    """Return the offered subprotocols, best first; () when the field is absent or does not parse."""
    value = b", ".join(value for key, value in headers if key == AVAILABLE_PROTOCOLS)
    try:
        members = http_sf.parse(value, tltype="list")
    except ValueError:
        return ()
    names: list[str] = []
    for member in members if isinstance(members, list) else ():
        name = member[0] if isinstance(member, tuple) else member
        # One member of another type invalidates the whole field.
        if type(name) is not str:
            return ()
        names.append(name)
    return tuple(names)


def chosen_protocol_untrusted(headers: Headers) -> str | None:
    """Return the subprotocol that the server chose; None when it chose none or the field does not parse."""
    value = field(headers, PROTOCOL)
    if value is None:
        return None
    try:
        parsed = http_sf.parse(value, tltype="item")
    except ValueError:
        return None
    name = parsed[0] if isinstance(parsed, tuple) else parsed
    return name if type(name) is str else None
