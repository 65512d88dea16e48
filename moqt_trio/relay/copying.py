"""Copying: what is received of a group, appended to a group of a track, with timestamps in the units of that track."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..session.subscriber.group import GroupReader
from .frames import append, convert

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..model.group import GroupWriter

_AT_ONCE = 16
"""Frames of a group that are copied before other tasks run."""


def is_short_and_here(group: GroupReader) -> bool:
    """Return whether a group has few frames, and all of them have arrived, as most short ones have at once."""
    frames = group._frames
    # A group that was joined in its middle goes on behind these frames.
    return type(group) is GroupReader and frames.finished and len(frames) <= _AT_ONCE


def copy_here(
    group: GroupReader, writer: GroupWriter, first: int, scale: tuple[int, int], brought: Callable[[], object]
) -> None:
    """Append the frames of a group that is here, from a number on; `brought` is called after each.

    No other task runs meanwhile. So subscribers get the end of the group with its frames, by one step of theirs.
    """
    number = group.start_frame
    while True:
        try:
            frame = group.receive_nowait()
        except trio.EndOfChannel:
            return
        at = number if frame.object_id is None else frame.object_id
        number = at + 1
        if at >= first:
            timestamp = convert(frame.timestamp, scale)
            if frame.object_id is None:
                writer.send_nowait(frame, timestamp)
            else:
                writer.send_nowait(frame, timestamp, object_id=frame.object_id, properties=frame.properties)
            brought()


async def copy(
    group: GroupReader, writer: GroupWriter, first: int, scale: tuple[int, int], brought: Callable[[], object]
) -> None:
    """Append the frames of a group from a number on, as they arrive; `brought` is called after each."""
    number = group.start_frame
    async for frame in group:
        at = number if frame.object_id is None else frame.object_id
        number = at + 1
        if at >= first:
            await append(writer, frame, convert(frame.timestamp, scale))
            brought()
