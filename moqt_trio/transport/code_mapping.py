"""How the error code of a stream is written in RESET_STREAM and STOP_SENDING.

Over raw QUIC a code stands on the wire as it is. WebTransport shares the connection's error codes with HTTP/3, and puts
its 32-bit codes into a range that HTTP/3 reserves for them (draft-ietf-webtrans-http3, section 4.4 and its appendix).
A version of the protocol may number its codes in its own way on top of that: mappings can be stacked.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import attrs

_HTTP3_FIRST = 0x52E4A40FA8DB
_HTTP3_LAST = 0x52E5AC983162
_MAX_APPLICATION_CODE = 0xFFFFFFFF
_MAX_VARINT = (1 << 62) - 1

SESSION_GONE = 0x170D7B68
"""The codepoint with which WebTransport resets the streams of a session that has ended; it stands in no range."""


@attrs.frozen(eq=False)
class CodeMapping:
    """How stream error codes are written on the wire. Mappings are made once, and are the same object or different.

    Attributes:
        to_wire: From a stream code to the QUIC application error code.
        from_wire: From a QUIC application error code to the stream code.
    """

    to_wire: Callable[[int], int]
    from_wire: Callable[[int], int]

    # It is called for every stream, with the same few mappings.
    @lru_cache(maxsize=64)  # noqa: B019 - mappings live as long as the program
    def over(self, lower: CodeMapping) -> CodeMapping:
        """Return the mapping that applies this one and then `lower` on the way out, and the reverse on the way in."""
        return CodeMapping(
            lambda code: lower.to_wire(self.to_wire(code)),
            lambda codepoint: self.from_wire(lower.from_wire(codepoint)),
        )


def stream_code_to_http3(code: int) -> int:
    """Return the HTTP/3 codepoint that carries a WebTransport stream code.

    The range steps over every codepoint that HTTP/3 keeps for greasing.

    Raises:
        ValueError: The code is not in 0 … 2**32-1.
    """
    if not 0 <= code <= _MAX_APPLICATION_CODE:
        raise ValueError(f"a stream code must fit in 32 bits, not {code}")
    return _HTTP3_FIRST + code + code // 0x1E


def stream_code_from_http3(codepoint: int) -> int | None:
    """Return the WebTransport stream code that an HTTP/3 codepoint carries, or None when it carries none."""
    if not _HTTP3_FIRST <= codepoint <= _HTTP3_LAST or (codepoint - 0x21) % 0x1F == 0:
        return None
    shifted = codepoint - _HTTP3_FIRST
    return shifted - shifted // 0x1F


def _to_plain(code: int) -> int:
    # A reset may not fail: a code that no varint holds becomes the largest that one does.
    return min(code, _MAX_VARINT)


def _from_plain(codepoint: int) -> int:
    return codepoint


def _to_http3(code: int) -> int:
    # For the same reason, a code of more than 32 bits becomes the largest of the range.
    return stream_code_to_http3(min(code, _MAX_APPLICATION_CODE))


def _from_http3(codepoint: int) -> int:
    code = stream_code_from_http3(codepoint)
    return codepoint if code is None else code


PLAIN_CODES = CodeMapping(_to_plain, _from_plain)
"""Codes stand on the wire as they are."""

EITHER_CODES = CodeMapping(_to_plain, _from_http3)
"""Codes are written as they are, and read in either form: over raw QUIC some peers write WebTransport's."""

HTTP3_CODES = CodeMapping(_to_http3, _from_http3)
"""Codes stand in WebTransport's range; a codepoint outside the range stays as it is."""
