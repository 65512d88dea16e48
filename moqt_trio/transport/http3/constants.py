"""Numbers of HTTP/3 and WebTransport as they stand on the wire. No behaviour.

Spec: RFC 9114 section 8.1; RFC 9297; draft-ietf-webtrans-http3, sections 4, 6 and 9.
"""

from __future__ import annotations

import enum

from ..code_mapping import SESSION_GONE


class H3Error(enum.IntEnum):
    """Codes of HTTP/3 and of the WebTransport layer; they bypass the mapping of application codes."""

    NO_ERROR = 0x100
    GENERAL_PROTOCOL_ERROR = 0x101
    INTERNAL_ERROR = 0x102
    STREAM_CREATION_ERROR = 0x103
    EXCESSIVE_LOAD = 0x107
    ID_ERROR = 0x108
    REQUEST_REJECTED = 0x10B
    REQUEST_CANCELLED = 0x10C
    REQUEST_INCOMPLETE = 0x10D
    MESSAGE_ERROR = 0x10E
    WEBTRANSPORT_BUFFERED_STREAM_REJECTED = 0x3994BD84
    WEBTRANSPORT_SESSION_GONE = SESSION_GONE
    WEBTRANSPORT_ALPN_ERROR = 0x0817B3DD


UNI_WEBTRANSPORT = 0x54
"""Type of a unidirectional WebTransport stream; the session id follows."""
BIDI_WEBTRANSPORT = 0x41
"""Signal value that opens a bidirectional WebTransport stream; the session id follows."""
HTTP3_UNI_TYPES = frozenset({0x0, 0x1, 0x2, 0x3})
"""Control, push, QPACK encoder and QPACK decoder."""

SETTING_MAX_FIELD_SECTION_SIZE = 0x6
SETTING_ENABLE_CONNECT_PROTOCOL = 0x8
SETTING_H3_DATAGRAM = 0x33
WEBTRANSPORT_SETTINGS = (0x2B603742, 0xC671706A, 0x14E9CD29, 0x2C7CF000)
"""One per generation of drafts, oldest first. Clients of each generation need their own."""
NEWEST_WEBTRANSPORT_SETTING = WEBTRANSPORT_SETTINGS[-1]

CONNECT_PROTOCOLS = ("webtransport", "webtransport-h3")
"""Values of `:protocol` that request a session: that of the older drafts, and that of the newest."""
