"""Frame: a payload with its timestamp; one type from the decoder to the application."""

from __future__ import annotations


class Frame(bytes):
    """A frame's payload: `bytes` in every respect, with the frame's timestamp beside it.

    Attributes:
        timestamp: In units of the track's timescale; None where the wire version carries none.
    """

    timestamp: int | None

    def __new__(cls, payload: bytes | bytearray, timestamp: int | None = None) -> Frame:
        frame = super().__new__(cls, payload)
        frame.timestamp = timestamp
        return frame

    def __reduce__(self) -> tuple[type[Frame], tuple[bytes, int | None]]:
        return type(self), (bytes(self), self.timestamp)

    @property
    def payload(self) -> bytes:
        """The bytes themselves."""
        return self

    def __repr__(self) -> str:
        return f"Frame({super().__repr__()}, timestamp={self.timestamp})"
