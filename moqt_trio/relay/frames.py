"""Frames as they are taken from a source into a track: their timestamps, and what the source says of the track.

Apart from any session: `pull.py` has the streams, and `fetching.py` single groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from ..frame import Frame
    from ..model.group import GroupWriter
    from ..session.subscriber.track import TrackProperties

_DEFAULT_TIMESCALE = 1000


def timescale_of(properties: TrackProperties | None) -> int:
    """Return the timestamp units per second of a track; that of a version which does not say is fixed."""
    return _DEFAULT_TIMESCALE if properties is None else properties.timescale


def are_alike(one: TrackProperties, other: TrackProperties) -> bool:
    """Return whether two sources may have the same track.

    How long groups are kept is no property of the content: each relay on the way has its own.
    """
    return attrs.evolve(one, max_age=other.max_age) == other


def convert(timestamp: int | None, scale: tuple[int, int]) -> int | None:
    """Return a timestamp in the units wanted; the scale has how many are wanted and given in a second."""
    wanted, given = scale
    return timestamp if timestamp is None or wanted == given else timestamp * wanted // given


async def append(writer: GroupWriter, frame: Frame, timestamp: int | None) -> None:
    """Append a received frame to a group, with what moq-transport carries beside it."""
    if frame.object_id is None:
        await writer.send(frame, timestamp)
    else:
        await writer.send(frame, timestamp, object_id=frame.object_id, properties=frame.properties)
