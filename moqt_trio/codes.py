"""Error codes: ints on the wire, names for people.

The session space and the stream space are disjoint: the same number means different things in each
(draft-lcurley-moq-lite-06, section 4.4). Codes of 64 and above belong to the application.
A code that has no name here stays a plain int.
"""

from __future__ import annotations

import enum


class SessionCode(enum.IntEnum):
    """Why a session ended (moq-lite-06, section 4.4.1)."""

    NO_ERROR = 0x0
    INTERNAL_ERROR = 0x1
    UNAUTHORIZED = 0x2
    PROTOCOL_VIOLATION = 0x3
    KEY_VALUE_FORMATTING_ERROR = 0x6
    GOAWAY_TIMEOUT = 0x10
    CONTROL_MESSAGE_TIMEOUT = 0x11
    VERSION_NEGOTIATION_FAILED = 0x15


class StreamCode(enum.IntEnum):
    """Why one stream was reset or refused (moq-lite-06, section 4.4.2)."""

    INTERNAL_ERROR = 0x0
    CANCELLED = 0x1
    DELIVERY_TIMEOUT = 0x2
    SESSION_CLOSED = 0x3
    GOING_AWAY = 0x4
    TOO_FAR_BEHIND = 0x5
    MALFORMED_TRACK = 0x12
    NO_CAPACITY = 0x30
    CONTROL_TIMEOUT = 0x31
    GROUP_TOO_LARGE = 0x32
    NOT_FOUND = 0x33
    OLD = 0x34
    EVICTED = 0x35
    UNROUTABLE = 0x36
    WRONG_SIZE = 0x37
    FRAME_TOO_LARGE = 0x38
    TIMESTAMP_MISMATCH = 0x39


APPLICATION_CODES_START = 64
"""The first code that belongs to the application, in both spaces."""


def session_code_name(code: int) -> str:
    """Returns a session code's name, or its number in hexadecimal when it has none."""
    try:
        return SessionCode(code).name
    except ValueError:
        return f"{code:#x}"


def stream_code_name(code: int) -> str:
    """Returns a stream code's name, or its number in hexadecimal when it has none."""
    try:
        return StreamCode(code).name
    except ValueError:
        return f"{code:#x}"


# WebTransport puts its 32-bit stream codes into a reserved range of HTTP/3's 62-bit space, stepping over
# every codepoint that HTTP/3 keeps for greasing (draft-ietf-webtrans-http3, section 4.4).
_HTTP3_FIRST = 0x52E4A40FA8DB
_HTTP3_LAST = 0x52E5AC983162
_MAX_APPLICATION_CODE = 0xFFFFFFFF


def stream_code_to_http3(code: int) -> int:
    """Returns the HTTP/3 codepoint that carries a WebTransport stream code.

    Raises:
        ValueError: The code is not in 0 … 2**32-1.
    """
    if not 0 <= code <= _MAX_APPLICATION_CODE:
        raise ValueError(f"a stream code must fit in 32 bits, not {code}")
    return _HTTP3_FIRST + code + code // 0x1E


def stream_code_from_http3(codepoint: int) -> int | None:
    """Returns the WebTransport stream code that an HTTP/3 codepoint carries, or None when it carries none."""
    if not _HTTP3_FIRST <= codepoint <= _HTTP3_LAST or (codepoint - 0x21) % 0x1F == 0:
        return None
    shifted = codepoint - _HTTP3_FIRST
    return shifted - shifted // 0x1F
