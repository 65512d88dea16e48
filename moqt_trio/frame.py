"""Frame: a payload with its timestamp; one type from the decoder to the application."""

from __future__ import annotations

from typing import Final, TypeAlias

Properties: TypeAlias = "tuple[tuple[int, int | bytes], ...]"
"""What moq-transport carries beside a payload: types and values, in the order of the wire."""

TIMESTAMP_PROPERTY: Final = 0x10
"""The property that is a frame's timestamp, in units of the track's timescale."""


class Frame(bytes):
    """A frame's payload: `bytes` in every respect, with the frame's timestamp beside it.

    Attributes:
        timestamp: In units of the track's timescale; None where the wire version carries none.
        object_id: Its number in its group, where the version numbers frames (moq-transport). None
            elsewhere, where the frames of a group are numbered as they come.
        group: The sequence of its group, where frames of several groups come on one stream; None elsewhere.
        properties: What moq-transport carries beside a payload, as `(type, value)` in the order of the wire: a number
            for an even type, bytes for an odd one.
    """

    timestamp: int | None
    object_id: int | None = None
    group: int | None = None
    properties: Properties = ()

    def __new__(cls, payload: bytes | bytearray, timestamp: int | None = None) -> Frame:
        frame = super().__new__(cls, payload)
        frame.timestamp = timestamp
        return frame

    def __reduce__(self) -> tuple[type[Frame], tuple[bytes, int | None], dict[str, object]]:
        return type(self), (bytes(self), self.timestamp), vars(self)

    @property
    def payload(self) -> bytes:
        """The bytes themselves."""
        return self

    def __repr__(self) -> str:
        return f"Frame({super().__repr__()}, timestamp={self.timestamp})"
