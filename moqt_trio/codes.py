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
    """The session is over, and nothing failed."""
    INTERNAL_ERROR = 0x1
    """This side failed: a handler's exception, for example."""
    UNAUTHORIZED = 0x2
    """The peer may not do what it asked for: a handler raised `Unauthorized`."""
    PROTOCOL_VIOLATION = 0x3
    """The peer broke the protocol, or exceeded a bound."""
    KEY_VALUE_FORMATTING_ERROR = 0x6
    """Parameters do not decode. This library does not send it by itself."""
    GOAWAY_TIMEOUT = 0x10
    """The peer stayed longer after a GOAWAY than that allows."""
    CONTROL_MESSAGE_TIMEOUT = 0x11
    """The SETUP, or the handshake, did not come in time."""
    VERSION_NEGOTIATION_FAILED = 0x15
    """The two sides share no version."""


class StreamCode(enum.IntEnum):
    """Why one stream was reset or refused (moq-lite-06, section 4.4.2)."""

    INTERNAL_ERROR = 0x0
    """This side failed, or was asked for what it cannot do."""
    CANCELLED = 0x1
    """It is no longer wanted, or its writer gave it up."""
    DELIVERY_TIMEOUT = 0x2
    """It could not be delivered in the time that its subscriber allows."""
    SESSION_CLOSED = 0x3
    """Its session ends."""
    GOING_AWAY = 0x4
    """Its session is about to end, after a GOAWAY."""
    TOO_FAR_BEHIND = 0x5
    """The subscriber is too slow: more waits for it than the bounds allow."""
    MALFORMED_TRACK = 0x12
    """Its bytes do not decode, or contradict what came before."""
    NO_CAPACITY = 0x30
    """The peer has too many requests or announcements open."""
    CONTROL_TIMEOUT = 0x31
    """An answer, or the type of a new stream, did not come in time."""
    GROUP_TOO_LARGE = 0x32
    """The group is too large. This library does not send it by itself."""
    NOT_FOUND = 0x33
    """There is no such broadcast, track or group."""
    OLD = 0x34
    """The group is older than the maximum age."""
    EVICTED = 0x35
    """The group is no longer in the cache."""
    UNROUTABLE = 0x36
    """The path is too long or too deep, or leads nowhere."""
    WRONG_SIZE = 0x37
    """A frame has another size than was said. This library does not send it by itself."""
    FRAME_TOO_LARGE = 0x38
    """A frame is longer than `Limits.max_frame`."""
    TIMESTAMP_MISMATCH = 0x39
    """Timestamps contradict each other. This library does not send it by itself."""


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
