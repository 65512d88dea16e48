"""Frames: bytes with a timestamp beside them."""

from __future__ import annotations

from moqt_trio.frame import Frame


def test_a_frame_is_its_bytes():
    """A frame equals, hashes and measures like its payload, and carries its timestamp."""
    frame = Frame(b"hello", 7)
    assert frame == b"hello"
    assert frame.payload == b"hello"
    assert hash(frame) == hash(b"hello")
    assert len(frame) == 5
    assert isinstance(frame, bytes)
    assert frame.timestamp == 7


def test_a_frame_without_a_timestamp():
    """A frame of a wire version without timestamps has None."""
    assert Frame(b"").timestamp is None


def test_the_repr_shows_payload_and_timestamp():
    """repr() shows the payload and the timestamp."""
    assert repr(Frame(b"hi", 3)) == "Frame(b'hi', timestamp=3)"
