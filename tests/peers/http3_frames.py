"""HTTP/3 by hand: the frames that a peer writes."""

from __future__ import annotations

import pylsqpack
from aioquic.h3.connection import encode_frame

_HEADERS = 0x1


def headers_frame(*fields: tuple[bytes, bytes]) -> bytes:
    """Return a HEADERS frame (RFC 9114, section 7.2.2) whose fields need no dynamic table."""
    _, block = pylsqpack.Encoder().encode(0, list(fields))
    return encode_frame(_HEADERS, block)
