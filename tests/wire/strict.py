"""Frames that are equal only with the same timestamps, and a decoder fed for its result."""

from __future__ import annotations

import moqt_trio


class Frame(moqt_trio.Frame):
    """A frame that also compares its timestamp; `wire_size` is the bytes that it took on the stream."""

    wire_size = 0

    def __eq__(self, other):
        return bytes(self) == bytes(other) and self.timestamp == other.timestamp

    __hash__ = None


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
