"""Header fields of WebTransport: which subprotocols are offered, which one was chosen.

Reads untrusted fields with a structured-fields library; what does not parse counts as absent, as RFC 9651 asks.

Spec: draft-ietf-webtrans-http3, section 3.3; RFC 9651.
"""

from __future__ import annotations

from collections.abc import Sequence

import http_sf

Headers = list[tuple[bytes, bytes]]
"""Field lines in wire order, pseudo-fields first, names in lower case."""

AVAILABLE_PROTOCOLS = b"wt-available-protocols"
PROTOCOL = b"wt-protocol"


def field(headers: Headers, name: bytes) -> bytes | None:
    """Returns the value of the first line with this name, or None."""
    return next((value for key, value in headers if key == name), None)


def text(headers: Headers, name: bytes) -> str | None:
    """Returns a field as text, or None when it is absent. A byte outside ASCII is shown escaped."""
    value = field(headers, name)
    return None if value is None else value.decode("ascii", "backslashreplace")


def encode_protocols(protocols: Sequence[str]) -> bytes:
    """Returns the value of wt-available-protocols. Raises ValueError for a name outside printable ASCII."""
    return http_sf.ser(list(protocols)).encode("ascii")


def encode_protocol(protocol: str) -> bytes:
    """Returns the value of wt-protocol. Raises ValueError for a name outside printable ASCII."""
    return http_sf.ser(protocol).encode("ascii")


def offered_protocols_untrusted(headers: Headers) -> tuple[str, ...]:
    """Returns the offered subprotocols, best first; () when the field is absent or does not parse."""
    value = b", ".join(value for key, value in headers if key == AVAILABLE_PROTOCOLS)
    try:
        members = http_sf.parse(value, tltype="list")
    except ValueError:
        return ()
    names: list[str] = []
    for member in members if isinstance(members, list) else ():
        name = member[0] if isinstance(member, tuple) else member
        # One member of another type spoils the whole field.
        if type(name) is not str:
            return ()
        names.append(name)
    return tuple(names)


def chosen_protocol_untrusted(headers: Headers) -> str | None:
    """Returns the subprotocol that the server chose; None when it chose none or the field does not parse."""
    value = field(headers, PROTOCOL)
    if value is None:
        return None
    try:
        parsed = http_sf.parse(value, tltype="item")
    except ValueError:
        return None
    name = parsed[0] if isinstance(parsed, tuple) else parsed
    return name if type(name) is str else None
