"""Track: the application's side of a track. Its groups and its cursors are in its `TrackState`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import trio

from ..arguments import want, want_number, want_payload, want_seconds
from ..block import NotOnTrio, require_trio
from ..codes import StreamCode
from ..limits import MAX_DATAGRAM, Limits
from ..tasks import defer_interrupts
from .group import GroupTraits, GroupWriter
from .objects import check_track_properties
from .track_state import AGE_BOUND, MAX_SEQUENCE, TrackState

if TYPE_CHECKING:
    from ..frame import Properties

Delivery = Literal["live", "reliable"]

MAX_DATAGRAM_PAYLOAD = MAX_DATAGRAM - 3 * 8
"""Bytes of a datagram's payload: before it stand three varints, of up to eight bytes each."""


@defer_interrupts
class Track:
    """A named series of groups. Make one with `Broadcast.track`.

    There are two ways of delivery. `"live"`: writing never waits. The oldest groups are dropped for a subscriber that
    falls behind, and reported to it; it always gets the newest group. `"reliable"`: writing waits until the slowest
    subscriber is within the bound, and no group is dropped. Either way memory is bounded in bytes.

    Attributes:
        name: The track's name within its broadcast.
        priority: 0 … 255, higher goes first; decides between subscriptions of equal priority.
        delivery: `"live"` or `"reliable"`.
        max_age: Seconds that a group is kept after a newer one was opened, and the track after it has ended.
        timescale: Timestamp units per second.
        properties: What moq-transport says of a track beside these, as `(type, value)`: at most 61, of 32 KiB in all;
            types and numbers are below 2**62.

    Limits: `cache_bytes`, `cache_frames`, `cache_groups`, `live_backlog`, `live_backlog_groups`, `reliable_backlog`,
        `reliable_backlog_frames`, `reliable_backlog_groups`, `max_frame`.
    """

    def __init__(
        self,
        name: str,
        *,
        priority: int = 127,
        delivery: Delivery = "live",
        max_age: float = 5.0,
        timescale: int = 1000,
        properties: Properties = (),
        limits: Limits | None = None,
    ) -> None:
        want(name, str, "a track's name is a text")
        want_number("priority", priority)
        want_seconds("max_age", max_age)
        want_number("timescale", timescale)
        limits = limits or Limits()
        if len(name.encode()) > limits.max_track_name:
            raise ValueError(f"a track's name has at most {limits.max_track_name} bytes in UTF-8")
        if not 0 <= priority <= 255:
            raise ValueError(f"priority is 0 … 255, not {priority}")
        if delivery not in ("live", "reliable"):
            raise ValueError(f"delivery is 'live' or 'reliable', not {delivery!r}")
        if not 0 <= max_age < AGE_BOUND:
            raise ValueError(f"max_age is a number of seconds from 0 on and below 2**51, not {max_age}")
        if not 1 <= timescale <= MAX_SEQUENCE:
            raise ValueError(f"timescale is at least 1 unit per second, not {timescale}")
        self.name = name
        self.priority = priority
        self.delivery: Delivery = delivery
        self.max_age = max_age
        self.timescale = timescale
        self.properties = check_track_properties(properties)
        self._state = TrackState(
            name, limits=limits, reliable=delivery == "reliable", max_age=max_age, timescale=timescale
        )

    def __repr__(self) -> str:
        state = self._state
        how = "finished" if state.final is not None else "aborted" if state.aborted is not None else "open"
        return f"<Track {self.name!r} {how}, next group {state.next}, {state.subscribers} subscribers>"

    def open_group(
        self,
        sequence: int | None = None,
        *,
        subgroup: int | None = None,
        ends_group: bool | None = None,
        priority: int | None = None,
    ) -> GroupWriter:
        """Return the writer of a new group, or of one of its subgroups.

        The subgroups of a group are written and delivered beside each other, each as a group of the same sequence. The
        object ids of a group's frames differ in a valid track, also between subgroups, and each subgroup counts from 0
        on by itself: with several of them, give `send` an `object_id`. Of two frames with one id a fetch has one. Only
        moq-transport has them: a subscriber of another version gets subgroup 0, and not the others. So open that one
        first: before it is there, another one has its group dropped with INTERNAL_ERROR, and reported.

        Args:
            sequence: Its number; None takes the next one.
            subgroup: The number of one of several subgroups, 0 included; None for the only one of the group.
            ends_group: True when the last frame that is written here is the last one of the group; None is False for
                one of several subgroups, and True for the only one.
            priority: 0 … 255, higher goes first; decides between the groups of a subscription. None for the track's.

        Returns:
            A writer to be used as an async context manager.

        Raises:
            ValueError: The number was used, or a value is out of range. Of a group that has subgroups, a number that
                was used is that of the subgroup. One that was opened without subgroups has no others.
            trio.ClosedResourceError: The track has ended.
        """
        if subgroup is None and ends_group is None and priority is None:
            return GroupWriter(self._state, self._state.open(sequence))
        traits = self._traits(subgroup, subgroup is None if ends_group is None else ends_group, priority)
        return GroupWriter(self._state, self._state.open_part(sequence, traits))

    def _traits(self, subgroup: int | None, ends_group: bool, priority: int | None) -> GroupTraits:
        traits = GroupTraits(subgroup, ends_group)
        if priority is not None:
            want_number("priority", priority)
            if not 0 <= priority <= 255:
                raise ValueError(f"priority is 0 … 255, not {priority}")
            traits.rank = priority - self.priority
            traits.priority = priority if traits.rank else None
        return traits

    async def write(self, payload: bytes, timestamp: int | None = None) -> int:
        """Write a group of one frame, and return its sequence.

        Returns:
            The group's sequence.

        Raises: what `open_group` and `GroupWriter.send` raise.
        """
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
        except RuntimeError:
            raise NotOnTrio from None
        state = self._state
        if state.reliable:
            await state.wait_room()
        sequence = state.write(payload, timestamp)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return sequence

    def write_nowait(self, payload: bytes, timestamp: int | None = None) -> int:
        """Write a group of one frame without waiting, and return its sequence.

        Raises: `trio.WouldBlock` when the track is reliable and a subscriber is not within the bound.
        """
        state = self._state
        if state.reliable and not state.has_room():
            raise trio.WouldBlock
        return state.write(payload, timestamp)

    def send_datagram(
        self,
        payload: bytes,
        timestamp: int | None = None,
        *,
        sequence: int | None = None,
        object_id: int | None = None,
        properties: Properties = (),
        ends_group: bool | None = None,
        priority: int | None = None,
    ) -> int:
        """Send a frame as a datagram, which is not sent again when it is lost, and not kept. By itself it is a group.

        With `sequence` or `object_id`, several datagrams may belong to one group, beside what is written to it. Only
        moq-transport has such: a subscriber of another version gets none of them beside a group that was opened, and
        else the one with object id 0; of the others the group is reported as dropped with INTERNAL_ERROR. One whose
        version or connection has no datagrams gets it on a stream.

        Args:
            payload: The frame's bytes; may be empty.
            timestamp: As for `GroupWriter.send`.
            sequence: The group's number; None takes the next one.
            object_id: The frame's number in its group; None for 0.
            properties: As for `GroupWriter.send`.
            ends_group: True when it is the last frame of its group; None is False with `sequence` or `object_id`,
                and else True.
            priority: As for `open_group`.

        Returns:
            The group's sequence.

        Raises:
            ValueError: The payload is longer than 1176 bytes, or a value is out of range.
            trio.ClosedResourceError: The track has ended.
            trio.WouldBlock: The track is reliable and a subscriber is not within the bound.
        """
        want_payload(payload)
        if len(payload) > MAX_DATAGRAM_PAYLOAD:
            raise ValueError(
                f"a datagram's payload has at most {MAX_DATAGRAM_PAYLOAD} bytes, not {len(payload)}; use a group"
            )
        alone = sequence is None and object_id is None
        if alone and not properties and ends_group is None and priority is None:
            return self._state.write_datagram(payload, timestamp)
        traits = self._traits(None, alone if ends_group is None else ends_group, priority)
        return self._state.write_part_datagram(payload, timestamp, sequence, object_id or 0, properties, traits)

    def finish(self) -> None:
        """Finish the track: no new group can be opened. Groups that are open may still be written.

        What is kept can be read for another `max_age`. Then, and once nothing reads it, the track leaves its broadcast.
        """
        self._state.finish()

    def abort(self, *, code: int = StreamCode.CANCELLED) -> None:
        """Abort the track: every subscription is reset with the code."""
        self._state.abort(code)

    @property
    def ended(self) -> bool:
        """True once the track was finished or aborted."""
        return self._state.ended

    @property
    def subscribers(self) -> int:
        """How many subscriptions read this track now, on all sessions."""
        return self._state.subscribers

    @property
    def latest(self) -> int | None:
        """The highest sequence that was opened; None before the first."""
        return self._state.next - 1 if self._state.next else None

    async def wait_subscribed(self) -> None:
        """Wait until there is a subscription; return at once while there is one."""
        require_trio()
        await self._state.wait_subscribed()

    async def wait_unsubscribed(self) -> None:
        """Wait until there is no subscription."""
        require_trio()
        await self._state.wait_unsubscribed()


def state_of(track: Track) -> TrackState:
    """Return the state of a track, for the servers of its subscriptions and fetches."""
    return track._state
