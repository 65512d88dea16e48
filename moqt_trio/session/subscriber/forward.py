"""forward: writes what a subscription receives on a track, for a relay, a recorder or an echo.

Theory of operation. One task takes the groups in the order of their arrival and opens a group of the same sequence for
each; one task for each group copies its frames. So groups appear in the order in which they arrived, and one that
stays open delays no other. A group ends as the one that it copies: complete, or reset with the same code. The track
ends as the subscription ends, when that is the publisher's doing. How many groups are copied at a time is bounded by
the streams that the publisher may open.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from ...arguments import want
from ...codes import StreamCode
from ...errors import NotFound, SessionClosed, StreamReset
from ...model.group import mark_headless
from ...model.track import Track
from ...tasks import open_unwrapping_nursery
from .subscribe import Subscription

if TYPE_CHECKING:
    from ...model.group import GroupWriter
    from .group import GroupReader

_DEFAULT_TIMESCALE = 1000
"""Units per second of a track whose publisher does not say, in the versions that have timestamps all the same."""


@trio.lowlevel.enable_ki_protection
async def forward(subscription: Subscription, track: Track) -> None:
    """Write every group of a subscription on a track, until the subscription ends.

    Groups keep their sequences, their order of arrival and their ends: one that its publisher resets is reset with the
    same code. Timestamps are converted from the subscription's timescale to the track's. Of moq-transport the
    subgroups, object ids, properties and priorities stay what they are, and a datagram is sent as one. In the other
    versions a group that arrived as a datagram is written as a group. Two things of groups in several subgroups do not
    pass: an end of the group that is said by an object of its own, when the subgroup has begun; and, in a group in
    whose middle the subscription began, to which subgroup the frames before belong: they are written in subgroup 0.
    Subscribe with `start="next_group"` where that matters. A reliable track takes no group before it has a
    subscriber: until then they wait at their publisher.

    When the publisher finishes the track, this one is finished, and the call returns. When it resets the subscription
    or has no such track, this one is aborted with the same code, and the error is raised. When the session ends or the
    call is cancelled, the groups that are open are reset, and the track stays open: another subscription may continue
    it, from the next group on.

    Args:
        subscription: Inside its block. Ask for whole groups, without `start_frame` and `end_frame`.
        track: Where to write. Nothing else should write on it.

    Raises:
        NotFound: The publisher has no such broadcast or track.
        StreamReset: The publisher reset the subscription.
        RemoteProtocolError: The publisher broke the protocol on the subscription's stream.
        SessionClosed: The session of the subscription ended.
        LocalProtocolError: The subscription's block was not entered.
        trio.ClosedResourceError: This side left the subscription, or ended the track.
        trio.BusyResourceError: Another task iterates over the subscription.
        TypeError: The arguments are no subscription and no track.
    """
    want(subscription, Subscription, "forward takes a subscription and a track")
    want(track, Track, "forward takes a subscription and a track")
    properties = await subscription.track_properties()
    timescale = _DEFAULT_TIMESCALE if properties is None else properties.timescale
    scale = (track.timescale, timescale)
    parts = subscription._context.dialect.features.subgroups
    try:
        async with open_unwrapping_nursery() as nursery:
            async for group in subscription:
                if track.delivery == "reliable":
                    await track.wait_subscribed()
                if group.subgroup is None:
                    _copy_datagram(group, track, scale)
                    continue
                try:
                    copy = _open_copy(group, track) if parts else track.open_group(group.sequence)
                except ValueError:
                    # It was written before: by an earlier call, on a session that was lost since.
                    group.close()
                    continue
                nursery.start_soon(_copy_group, group, copy, scale)
    except StreamReset as error:
        track.abort(code=error.code)
        raise
    except NotFound:
        track.abort(code=StreamCode.NOT_FOUND)
        raise
    track.finish()


def _open_copy(group: GroupReader, track: Track) -> GroupWriter:
    """Open the copy of a subgroup."""
    copy = track.open_group(
        group.sequence, subgroup=group.subgroup, ends_group=group.ends_group, priority=group.priority
    )
    if not group._begins:
        mark_headless(copy)
    return copy


def _copy_datagram(group: GroupReader, track: Track, scale: tuple[int, int]) -> None:
    """Send a datagram of moq-transport on; it has its one frame. What does not go now is lost, as datagrams may be."""
    frame = group.receive_nowait()
    with suppress(ValueError, trio.WouldBlock):
        track.send_datagram(
            frame,
            _convert(frame.timestamp, scale),
            sequence=group.sequence,
            object_id=frame.object_id,
            properties=frame.properties,
            ends_group=group.ends_group,
            priority=group.priority,
        )


def _convert(timestamp: int | None, scale: tuple[int, int]) -> int | None:
    wanted, timescale = scale
    return timestamp if timestamp is None or timescale == wanted else timestamp * wanted // timescale


@trio.lowlevel.enable_ki_protection
async def _copy_group(group: GroupReader, copy: GroupWriter, scale: tuple[int, int]) -> None:
    """Copy the frames of a group, and end the copy as the group ends."""
    async with copy:
        try:
            async for frame in group:
                timestamp = _convert(frame.timestamp, scale)
                if frame.object_id is None:
                    await copy.send(frame, timestamp)
                else:
                    await copy.send(frame, timestamp, object_id=frame.object_id, properties=frame.properties)
        except StreamReset as error:
            copy.reset(error.code)
        except ValueError:
            # The track's bound for a frame is less than the session's.
            group.close(StreamCode.FRAME_TOO_LARGE)
            copy.reset(StreamCode.FRAME_TOO_LARGE)
        except (SessionClosed, trio.ClosedResourceError):
            # The subscription raises its own end, and so does the track.
            copy.reset()
