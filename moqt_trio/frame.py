"""One payload of a group, as the application sees it."""

from __future__ import annotations


class Frame(bytes):
    """A frame's payload: `bytes` in every respect, with the frame's timestamp beside it.

    Attributes:
        timestamp: In units of the track's timescale; None where the wire version carries none.
    """

    timestamp: int | None

    def __new__(cls, payload: bytes, timestamp: int | None = None) -> Frame:
        frame = super().__new__(cls, payload)
        frame.timestamp = timestamp
        return frame

    @property
    def payload(self) -> bytes:
        """The bytes themselves; for code that treats wire frames and these alike."""
        return self

    def __repr__(self) -> str:
        return f"Frame({super().__repr__()}, timestamp={self.timestamp})"
