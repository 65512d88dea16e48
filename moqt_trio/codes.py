"""Error codes: ints on the wire, with names here.

The session space and the stream space are disjoint: the same number means different things in each
(draft-lcurley-moq-lite-06, section 4.4). Codes of 64 and above belong to the application.
A code that has no name here stays a plain int.

Inside this library every code is one of moq-lite-06. A version that numbers its codes in another way has a `CodeTable`,
which translates where a code goes onto the wire and where it comes from there.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Literal, TypeAlias

import attrs


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


_SESSION_CODES = frozenset(int(code) for code in SessionCode)
_STREAM_CODES = frozenset(int(code) for code in StreamCode)

CodeSpace: TypeAlias = Literal["session", "announce", "subscribe", "fetch", "info", "group", "stream"]
"""Where a code stands: on the session, or on a stream of one kind; `"stream"` is one whose kind is unknown."""


@attrs.frozen
class CodeTable:
    """How one family of versions numbers its error codes.

    Attributes:
        numbers: For each space that has numbers of its own: from a code of this library to the one on the wire.
        fallback: For each of these spaces: what stands for a code of this library that has no number there.
        duplicates: The code for something that is there twice, in the spaces that have a number for that.
    """

    numbers: Mapping[CodeSpace, Mapping[int, int]] = attrs.field(factory=dict)
    fallback: Mapping[CodeSpace, int] = attrs.field(factory=dict)
    duplicates: Mapping[CodeSpace, int] = attrs.field(factory=dict)

    def to_wire(self, space: CodeSpace, code: int) -> int:
        """Return the number that goes onto the wire; a code that this library has no name for stays what it is."""
        numbers = self.numbers.get(space)
        if numbers is None:
            return code
        known = _SESSION_CODES if space == "session" else _STREAM_CODES
        return numbers.get(code, self.fallback[space] if code in known else code)

    def from_wire(self, space: CodeSpace, number: int) -> int:
        """Return the code of this library that a number stands for, or the number itself when it stands for none."""
        numbers = self.numbers.get(space, {})
        return next((code for code, found in numbers.items() if found == number), number)


MOQ_LITE = CodeTable()
"""The numbers of moq-lite-06, which its peers use in every version of moq-lite."""


def describe_session_code(code: int) -> str:
    """Return a session code for a text or a log, with its name where it has one: `0x2 (UNAUTHORIZED)`."""
    if 400 <= code < 600:
        return f"{code:#x} (refused with status {code})"
    return f"{code:#x} ({SessionCode(code).name})" if code in _SESSION_CODES else f"{code:#x}"


def describe_stream_code(code: int) -> str:
    """Return a stream code for a text or a log, with its name where it has one: `0x33 (NOT_FOUND)`."""
    return f"{code:#x} ({StreamCode(code).name})" if code in _STREAM_CODES else f"{code:#x}"
