"""Frames, the hot path of a stream: encoders and decoders.

    FRAME { [Timestamp Delta (zigzag varint)], Payload Length (varint), Payload (..) }

The delta is there in the versions that have timestamps; it counts from the frame before on the same stream, and
from 0 for the first. A decoder is fed with what follows the header of a stream.

Spec: draft-lcurley-moq-lite-06, FRAME.
"""

from __future__ import annotations

from collections.abc import Sequence

from .. import varint
from ..codes import StreamCode
from ..errors import LimitExceeded, LocalProtocolError, Malformed
from ..frame import Frame
from .dialect import ALL_FRAMES, FrameDecoder

_MAX = varint.MAX
_SHORT = tuple(bytes((value,)) for value in range(0x40))
"""The varints of one byte."""


def timestamp_delta(timestamp: int, previous_timestamp: int) -> bytes:
    """Return the bytes of a timestamp, counted from the one before.

    Raises:
        LocalProtocolError: The timestamp is not in 0 … 2**62-1, or 2**61 or more away from the one before.
    """
    if not 0 <= timestamp <= _MAX:
        raise LocalProtocolError(f"a timestamp is 0 to 2**62-1, not {timestamp}")
    return varint.encode(varint.zigzag(timestamp - previous_timestamp))


def encode_frame(payload: bytes) -> bytes:
    """Return a frame without a timestamp."""
    return varint.encode(len(payload)) + payload


def encode_timed_frame(payload: bytes, timestamp: int | None, previous_timestamp: int) -> bytes:
    """Return a frame with a timestamp; None stands for the timestamp before. Raises as `timestamp_delta` does."""
    delta = b"\x00" if timestamp is None else timestamp_delta(timestamp, previous_timestamp)
    return delta + varint.encode(len(payload)) + payload


class FrameEncoder:
    """Writes the frames of one group stream or fetch reply, each timestamp relative to the one before.

    Args:
        timed: True when a timestamp delta heads each frame.
    """

    __slots__ = ("_previous", "_timed")

    def __init__(self, *, timed: bool) -> None:
        self._timed = timed
        self._previous = 0

    def encode(self, frames: Sequence[Frame]) -> bytes:
        """Return the bytes of some frames, in order; a timestamp of None counts as the one before.

        Raises:
            LocalProtocolError: A timestamp is not in 0 … 2**62-1, or 2**61 or more away from the one before; the
                state is unchanged.
        """
        # Varints of one and two bytes are written in line: they are nearly all of them, and a call costs as much as a
        # small frame.
        parts: list[bytes] = []
        previous = self._previous
        for frame in frames:
            if self._timed:
                timestamp = frame.timestamp
                if timestamp is None or timestamp == previous:
                    parts.append(b"\x00")
                else:
                    delta = (timestamp - previous) << 1 if timestamp > previous else ((previous - timestamp) << 1) - 1
                    if delta < 0x4000 and 0 <= timestamp <= _MAX:
                        parts.append(_SHORT[delta] if delta < 0x40 else (delta | 0x4000).to_bytes(2, "big"))
                    else:
                        parts.append(timestamp_delta(timestamp, previous))
                    previous = timestamp
            size = len(frame)
            if size < 0x4000:
                parts.append(_SHORT[size] if size < 0x40 else (size | 0x4000).to_bytes(2, "big"))
            else:
                parts.append(varint.encode(size))
            parts.append(frame)
        self._previous = previous
        return b"".join(parts)


class StreamFrameDecoder(FrameDecoder):
    """Reads frames with or without timestamps.

    A frame that is complete in the bytes fed is copied once. A frame that arrives in pieces is collected in a buffer
    that grows with the bytes received, never with the length in its header. After an exception it is not usable.
    """

    __slots__ = ("_body", "_body_size", "_head", "_head_size", "_max_frame", "_timed", "_timestamp")

    def __init__(self, max_frame: int, *, timed: bool) -> None:
        """Make a decoder for one stream.

        Args:
            max_frame: The longest payload in bytes; `Limits.max_frame`.
            timed: True when a timestamp delta heads each frame.
        """
        self._max_frame = max_frame
        self._timed = timed
        self._timestamp = 0
        self._head = b""  # the first bytes of a header that is not complete
        self._body: bytearray | None = None  # the first bytes of a payload that is not complete
        self._body_size = 0
        self._head_size = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.pending_bytes} bytes pending>"

    @property
    def pending_bytes(self) -> int:
        """Bytes that were fed and belong to a frame that is not complete; 0 at a frame boundary."""
        if self._body is not None:
            return self._head_size + len(self._body)
        return len(self._head)

    def feed_untrusted(
        self, data: bytes, frames: list[Frame], sizes: list[int], start: int = 0, most: int = ALL_FRAMES
    ) -> int:
        """Read bytes, and append the frames that they complete; see `FrameDecoder`.

        Raises:
            Malformed: A timestamp is below 0 or above 2**62-1.
            LimitExceeded: A frame announces more than `max_frame` bytes; raised as soon as its length is there.
        """
        offset = start
        held = 0
        body = self._body
        if body is not None:
            offset += self._body_size - len(body)
            body += data[start:offset]
            if len(body) < self._body_size:
                return len(data)
            frames.append(Frame(body, self._timestamp if self._timed else None))
            sizes.append(self._head_size + self._body_size)
            self._body = None
            most -= 1
        elif self._head:
            held = len(self._head) - start
            data = self._head + data[start:]
            self._head = b""
            offset = 0
        if offset < len(data):
            offset = self._read_frames(data, offset, frames, sizes, most)
        return offset - held

    def _read_frames(self, data: bytes, offset: int, frames: list[Frame], sizes: list[int], most: int) -> int:
        # Varints of one and two bytes are read in line, and so is a frame made: a call costs as much as the rest of a
        # small frame.
        new = bytes.__new__
        decode, max_frame, timed, maximum = varint.decode, self._max_frame, self._timed, _MAX
        timestamp = self._timestamp
        shown = None
        end = len(data)
        start = offset
        while start < end:
            if most <= 0:
                self._timestamp = timestamp
                return start
            most -= 1
            offset = start
            previous = timestamp
            if timed:
                number = data[offset]
                if number < 0x40:
                    offset += 1
                elif number < 0x80 and offset + 1 < end:
                    number = (number & 0x3F) << 8 | data[offset + 1]
                    offset += 2
                else:
                    found = decode(data, offset)
                    if found is None:
                        break
                    number, offset = found
                shown = timestamp = previous - ((number + 1) >> 1) if number & 1 else previous + (number >> 1)
                if not 0 <= timestamp <= maximum:
                    text = f"FRAME: a timestamp of {timestamp}"
                    raise Malformed(text, code=StreamCode.MALFORMED_TRACK, scope="stream")
                if offset == end:
                    timestamp = previous
                    break
            size = data[offset]
            if size < 0x40:
                offset += 1
            elif size < 0x80 and offset + 1 < end:
                size = (size & 0x3F) << 8 | data[offset + 1]
                offset += 2
            else:
                found = decode(data, offset)
                if found is None:
                    timestamp = previous
                    break
                size, offset = found
            if size > max_frame:
                raise LimitExceeded("max_frame", size, code=StreamCode.FRAME_TOO_LARGE, scope="stream")
            stop = offset + size
            if stop > end:
                self._body = bytearray(data[offset:])
                self._body_size = size
                self._head_size = offset - start
                self._timestamp = timestamp
                return end
            frame = new(Frame, data[offset:stop])
            frame.timestamp = shown
            frames.append(frame)
            sizes.append(stop - start)
            start = stop
        self._timestamp = timestamp
        self._head = data[start:]
        return end
