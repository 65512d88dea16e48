"""Capsules of the CONNECT stream: bytes to values and back. No clock, no I/O.

Only CLOSE_WEBTRANSPORT_SESSION and DRAIN_WEBTRANSPORT_SESSION are read. Every other capsule, of any length, is
skipped without being buffered: Chromium opens with one of a reserved type.

Spec: RFC 9297 section 3.2; draft-ietf-webtrans-http3, sections 4.7 and 6.
"""

from __future__ import annotations

import attrs

from ... import varint
from ...errors import Malformed
from ..connection import MAX_CLOSE_REASON, cut_reason
from ..http3.constants import H3Error

CLOSE = 0x2843
DRAIN = 0x78AE
_CODE_BYTES = 4


@attrs.frozen
class CloseSession:
    """The session has ended.

    Layout: code (32 bits), reason (UTF-8, at most `MAX_CLOSE_REASON` bytes).
    """

    code: int
    reason: str


@attrs.frozen
class DrainSession:
    """The sender asks its peer to end the session. Nothing else changes."""


def encode_close(code: int, reason: str) -> bytes:
    """Return a CLOSE_WEBTRANSPORT_SESSION capsule.

    Args:
        code: The largest of 32 bits takes the place of a larger one, as a close may not fail.
        reason: Cut at `MAX_CLOSE_REASON` bytes of UTF-8, between characters.
    """
    body = min(code, 0xFFFFFFFF).to_bytes(_CODE_BYTES, "big") + cut_reason(reason).encode()
    return varint.encode(CLOSE) + varint.encode(len(body)) + body


def encode_drain() -> bytes:
    """Return a DRAIN_WEBTRANSPORT_SESSION capsule."""
    return varint.encode(DRAIN) + varint.encode(0)


class CapsuleReader:
    """Reads capsules from bytes that arrive in any pieces. Buffers one capsule at most, of a kind that is read."""

    __slots__ = ("_buffer", "_skip", "_type", "_wanted")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0
        self._type = 0
        self._wanted: int | None = None

    @property
    def between_capsules(self) -> bool:
        """True when the bytes so far end with a capsule, so that the stream may end here."""
        return not self._buffer and not self._skip and self._wanted is None

    def receive_untrusted(self, data: bytes) -> list[CloseSession | DrainSession]:
        """Read bytes, and return the capsules that they complete.

        Raises:
            Malformed: A capsule has a length or a text that its type does not allow.
        """
        found: list[CloseSession | DrainSession] = []
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        self._buffer += memoryview(data)[skipped:]
        while self._next(found):
            pass
        return found

    def _next(self, found: list[CloseSession | DrainSession]) -> bool:
        buffer = self._buffer
        if self._wanted is None:
            kind = varint.decode(buffer)
            length = varint.decode(buffer, kind[1]) if kind is not None else None
            if kind is None or length is None:
                return False
            self._type, size = kind[0], length[0]
            del buffer[: length[1]]
            if self._type == CLOSE:
                if not _CODE_BYTES <= size <= _CODE_BYTES + MAX_CLOSE_REASON:
                    raise Malformed(f"a close capsule of {size} bytes", code=H3Error.MESSAGE_ERROR)
                self._wanted = size
            elif self._type == DRAIN:
                if size:
                    raise Malformed(f"a drain capsule of {size} bytes", code=H3Error.MESSAGE_ERROR)
                found.append(DrainSession())
            else:
                here = min(size, len(buffer))
                del buffer[:here]
                self._skip = size - here
            return bool(buffer)
        if len(buffer) < self._wanted:
            return False
        body = bytes(buffer[: self._wanted])
        del buffer[: self._wanted]
        self._wanted = None
        try:
            reason = body[_CODE_BYTES:].decode()
        except UnicodeDecodeError as error:
            raise Malformed("the reason of a close capsule is not UTF-8", code=H3Error.MESSAGE_ERROR) from error
        found.append(CloseSession(int.from_bytes(body[:_CODE_BYTES], "big"), reason))
        return bool(buffer)
