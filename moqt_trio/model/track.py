"""A track, as the application that publishes it sees it. What is written on it is in its `TrackState`."""

from __future__ import annotations

from typing import Literal

import trio

from ..codes import StreamCode
from ..limits import Limits
from .group import GroupWriter
from .track_state import AGE_BOUND, MAX_SEQUENCE, TrackState

Delivery = Literal["live", "reliable"]

MAX_DATAGRAM_PAYLOAD = 1200 - 3 * 8
"""A datagram's body has at most 1200 bytes, of which three varints take up to eight each (moq-lite-06, 6.4)."""


class Track:
    """A named series of groups. Make one with `Broadcast.track`.

    Two ways of delivery. `"live"`: writing never waits; a subscriber that falls behind loses its oldest groups, is
    told so, and always gets the newest. `"reliable"`: writing waits until the slowest subscriber is within the
    bound, and nobody loses anything. Either way memory is bounded in bytes.

    Attributes:
        name: The track's name within its broadcast.
        priority: 0 … 255, higher goes first; decides between subscriptions of equal priority.
        delivery: `"live"` or `"reliable"`.
        max_age: Seconds that a group is kept after a newer one has come.
        timescale: Timestamp units per second.

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
        limits: Limits | None = None,
    ) -> None:
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
        self._log = TrackState(
            name, limits=limits, reliable=delivery == "reliable", max_age=max_age, timescale=timescale
        )

    def __repr__(self) -> str:
        log = self._log
        state = "finished" if log.final is not None else "aborted" if log.aborted is not None else "open"
        return f"<Track {self.name!r} {state}, next group {log.next}, {log.subscribers} subscribers>"

    def open_group(self, sequence: int | None = None) -> GroupWriter:
        """Open a group.

        Args:
            sequence: Its number; None takes the next one.

        Returns:
            A writer to be used as an async context manager.

        Raises:
            ValueError: The number was used, or is out of range.
            trio.ClosedResourceError: The track has ended.
        """
        return GroupWriter(self._log, self._log.open(sequence))

    async def write(self, payload: bytes, timestamp: int | None = None) -> int:
        """Write a group of one frame.

        Returns:
            The group's sequence.

        Raises: what `open_group` and `GroupWriter.send` raise.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        log = self._log
        if log.reliable:
            await log.wait_room()
        sequence = log.write(payload, timestamp)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return sequence

    def write_nowait(self, payload: bytes, timestamp: int | None = None) -> int:
        """Write a group of one frame without waiting.

        Raises: `trio.WouldBlock` when the track is reliable and a subscriber is behind the bound.
        """
        log = self._log
        if log.reliable and not log.has_room():
            raise trio.WouldBlock
        return log.write(payload, timestamp)

    def send_datagram(self, payload: bytes, timestamp: int | None = None) -> int:
        """Send a group of one frame as a datagram: not repeated when lost, and not kept.

        A subscriber whose connection cannot carry it that way gets it on a stream.

        Returns:
            The group's sequence.

        Raises:
            ValueError: The payload is longer than 1176 bytes.
            trio.ClosedResourceError: The track has ended.
            trio.WouldBlock: The track is reliable and a subscriber is behind the bound.
        """
        if len(payload) > MAX_DATAGRAM_PAYLOAD:
            raise ValueError(
                f"a datagram's payload has at most {MAX_DATAGRAM_PAYLOAD} bytes, not {len(payload)}; use a group"
            )
        return self._log.write_datagram(payload, timestamp)

    def finish(self) -> None:
        """End the track: no group after the last one will come. Groups that are open may still be written."""
        self._log.finish()

    def abort(self, *, code: int = StreamCode.CANCELLED) -> None:
        """Give the whole track up: every subscription is reset with the code."""
        self._log.abort(code)

    @property
    def ended(self) -> bool:
        """True once the track was finished or given up."""
        return self._log.ended

    @property
    def subscribers(self) -> int:
        """How many subscriptions read this track now, on all sessions."""
        return self._log.subscribers

    @property
    def latest(self) -> int | None:
        """The highest sequence that was opened; None before the first."""
        return self._log.next - 1 if self._log.next else None

    async def wait_subscribed(self) -> None:
        """Wait until somebody subscribes; return at once while somebody does."""
        await self._log.wait_subscribed()

    async def wait_unsubscribed(self) -> None:
        """Wait until nobody is subscribed."""
        await self._log.wait_unsubscribed()


def state_of(track: Track) -> TrackState:
    """Return what is written on a track, for those who serve it to subscribers."""
    return track._log
