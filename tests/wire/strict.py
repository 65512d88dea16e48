"""Frames that are equal only with the same timestamps, and a decoder fed for its result."""

from __future__ import annotations

import moqt_trio


class Frame(moqt_trio.Frame):
    """A frame that also compares its timestamp; `wire_size` is the bytes that it took on the stream."""

    wire_size = 0

    def __eq__(self, other):
        return bytes(self) == bytes(other) and self.timestamp == getattr(other, "timestamp", self.timestamp)

    __hash__ = None


def encoder_at(dialect, previous):
    """Return an encoder that has written a frame with this timestamp, by steps that a varint holds."""
    encoder = dialect.frame_encoder()
    for step in (previous // 3, previous // 3 * 2, previous):
        encoder.encode([Frame(b"", step)])
    return encoder


def encode(dialect, frames, previous=0):
    """Return the bytes of some frames, the first one's timestamp counted from one before."""
    return encoder_at(dialect, previous).encode(frames)


def feed(decoder, data):
    """Return the frames that some bytes complete."""
    frames, sizes = [], []
    decoder.feed_untrusted(data, frames, sizes)
    assert len(frames) == len(sizes)
    result = []
    for frame, size in zip(frames, sizes, strict=True):
        result.append(Frame(frame, frame.timestamp))
        result[-1].wire_size = size
    return result


def pull_varint(buffer):
    """Take a varint out of a buffer and return its number; None, and take nothing, when it is not complete."""
    found = buffer.peek_varint()
    if found is None:
        return None
    number, end = found
    buffer.skip(end)
    return number
