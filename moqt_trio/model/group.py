"""Group: an append-only list of frames; GroupWriter: what the application writes it with."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, ClassVar, Protocol

import attrs
import trio

from ..block import Block, NotOnTrio
from ..codes import describe_stream_code
from ..errors import printable
from ..tasks import defer_interrupts
from .packed import PackedFrames, properties_size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from ..frame import Frame, Properties
    from .keys import GroupKey


@attrs.define
class GroupTraits:
    """What a group of moq-transport may have, and one of moq-lite has not.

    Attributes:
        subgroup: Its id where it is one of several subgroups; None for the only one of its group, and for a datagram.
        ends_group: True when its last frame is the last one of the group.
        priority: 0 … 255, higher goes first; None for the track's.
        rank: By how much that is above the track's.
        headless: True when its source has frames before the first one here.
        next_id: The least object id of the next frame; None while each frame's is its index.
        property_bytes: Bytes of the properties of all frames so far.
        first_id: The object id after that of the last frame that was trimmed, where ids are stored; 0 for none.
    """

    subgroup: int | None = None
    ends_group: bool = True
    priority: int | None = None
    rank: int = 0
    headless: bool = False
    next_id: int | None = None
    property_bytes: int = 0
    first_id: int = 0


class Group:
    """A published group, written by one `GroupWriter` and read by any number of cursors.

    Attributes:
        sequence: Its number in the track.
        key: What the track keeps it by: its sequence, unless it is a further part of a group.
        traits: What groups of moq-lite have not; None for a group that has nothing of it.
        frames: The newest frames that are kept, in order: all of them, unless the group is long.
        packed: The frames before those, in runs, in order.
        first: The index of the first frame that is kept; frames before it were trimmed to bound memory.
        tail: The index of the first one in `frames`.
        size: Bytes of the kept frames, with what the packed ones take beside their payloads.
        complete: True once it has all of its frames.
        aborted: The code that it was reset with, or None.
        datagram: True for a group of one frame that is sent as a datagram where the session has datagrams.
        born: When it was opened, on trio's clock.
        RUN: Frames of one run.
        LONG: Frames that are kept as objects before the first run of them is packed. Groups of video are shorter.
    """

    RUN: ClassVar[int] = 256
    LONG: ClassVar[int] = 512

    __slots__ = (
        "aborted",
        "born",
        "complete",
        "datagram",
        "first",
        "frames",
        "key",
        "packed",
        "sequence",
        "size",
        "tail",
        "traits",
    )

    def __init__(self, sequence: int, born: float, *, datagram: bool = False) -> None:
        self.sequence = sequence
        self.key: GroupKey = sequence
        self.traits: GroupTraits | None = None
        self.frames: list[Frame] = []
        self.packed: deque[PackedFrames] | None = None
        self.first = 0
        self.tail = 0
        self.size = 0
        self.complete = False
        self.aborted: int | None = None
        self.datagram = datagram
        self.born = born

    @property
    def length(self) -> int:
        """The number of frames written so far, trimmed ones included."""
        return self.tail + len(self.frames)

    @property
    def kept(self) -> int:
        """The number of frames that are kept."""
        return self.tail + len(self.frames) - self.first

    @property
    def ended(self) -> bool:
        """True once the group is complete or was reset."""
        return self.complete or self.aborted is not None

    @property
    def sparse(self) -> bool:
        """True when the object id of a frame is not its index."""
        return self.traits is not None and self.traits.next_id is not None

    @property
    def next_id(self) -> int:
        """The least object id that the next frame may have."""
        traits = self.traits
        return self.length if traits is None or traits.next_id is None else traits.next_id

    @property
    def first_id(self) -> int:
        """The object id from which on nothing is missing: the one after that of the last trimmed frame, or 0."""
        return self.first if self.traits is None else self.traits.first_id or self.first

    def id_at(self, position: int) -> int:
        """Return the object id of a frame that is kept."""
        number = self.frame(position).object_id
        return position if number is None else number

    def position_of(self, object_id: int) -> int:
        """Return the index of the first kept frame with an object id or a higher one; the length when there is none."""
        if not self.sparse:
            return object_id
        low, high = self.first, self.length
        while low < high:
            middle = (low + high) // 2
            if self.id_at(middle) < object_id:
                low = middle + 1
            else:
                high = middle
        return low

    def size_of(self, frames: Sequence[Frame]) -> int:
        """Return the bytes of some frames, with those of their properties."""
        size = sum(map(len, frames))
        if self.traits is not None and self.traits.property_bytes:
            size += sum(properties_size(frame.properties) for frame in frames if frame.properties)
        return size

    @property
    def first_timestamp(self) -> int | None:
        """The timestamp of the oldest frame that is kept."""
        if self.packed:
            return self.packed[0].first_timestamp
        return self.frames[0].timestamp if self.frames else None

    @property
    def last_timestamp(self) -> int | None:
        """The timestamp of the newest frame."""
        return self.frames[-1].timestamp if self.frames else None

    def run(self, position: int) -> tuple[PackedFrames | list[Frame], int]:
        """Return the frames among which one is kept, and the index of the first of them."""
        if position >= self.tail or not self.packed:
            return self.frames, self.tail
        run = self.packed[(position - self.packed[0].first) // self.RUN]
        return run, run.first

    def frame(self, position: int) -> Frame:
        """Return a frame that is kept."""
        frames, first = self.run(position)
        return frames[position - first]

    def bytes_between(self, start: int, stop: int) -> int:
        """Return the bytes of kept frames, with their properties, from `start` up to `stop`, exclusive."""
        if self.traits is not None and self.traits.property_bytes:
            kept = range(max(start, self.first), min(stop, self.length))
            return sum(frame_size(self.frame(index)) for index in kept)
        total = 0
        for run in self.packed or ():
            total += run.bytes_between(max(start - run.first, 0), min(stop - run.first, self.RUN))
        return total + sum(map(len, self.frames[max(start - self.tail, 0) : max(stop - self.tail, 0)]))

    def pack(self) -> None:
        """Pack the first run of `frames`."""
        frames = self.frames[: self.RUN]
        run = PackedFrames(self.tail, frames)
        if self.packed is None:
            self.packed = deque()
        self.packed.append(run)
        del self.frames[: self.RUN]
        self.tail += self.RUN
        self.size += run.size - self.size_of(frames)

    def __repr__(self) -> str:
        state = "complete" if self.complete else "open"
        if not self.complete and self.aborted is not None:
            state = f"aborted {describe_stream_code(self.aborted)}"
        name = str(self.sequence) if self.key == self.sequence else f"{self.sequence} {self.key!r}"
        return f"<Group {name} {state}, {self.length} frames, {self.size} bytes kept>"


def frame_size(frame: Frame) -> int:
    """Return the bytes of a frame with those of its properties."""
    return len(frame) + properties_size(frame.properties)


class GroupHome(Protocol):
    """The track of a group, as its writer uses it."""

    @property
    def name(self) -> str:
        """The track's name."""
        ...

    @property
    def aborted(self) -> int | None:
        """The code that the track was aborted with; None while it was not."""
        ...

    @property
    def reliable(self) -> bool:
        """True when writing waits for slow subscribers."""
        ...

    def has_room(self) -> bool:
        """Return whether every subscriber is within the bound."""
        ...

    async def wait_room(self) -> None:
        """Wait until `has_room`."""

    def append(self, group: Group, payload: bytes, timestamp: int | None) -> None:
        """Add a frame, and call every cursor."""

    def append_object(
        self, group: Group, payload: bytes, timestamp: int | None, object_id: int | None, properties: Properties
    ) -> None:
        """Add a frame that has an object id or properties, and call every cursor."""

    def complete(self, group: Group) -> None:
        """End the group cleanly."""

    def abort_group(self, group: Group, code: int) -> None:
        """Reset the group."""


def _unfinished(track: GroupHome, group: Group) -> str:
    return (
        f"group {group.sequence} of track {printable(track.name)!r} was dropped before its end, for which its "
        "subscribers wait; write: async with track.open_group() as group:"
    )


@defer_interrupts
class GroupWriter(Block):
    """Writes one group. Use it as `async with track.open_group() as group`.

    Leaving the block cleanly finishes the group. An exception or a cancellation resets it for every subscriber.
    """

    def __init__(self, track: GroupHome, group: Group) -> None:
        self._track = track
        self._group = group
        self._busy = False
        self._expect_entry(lambda: "" if group.ended or track.aborted is not None else _unfinished(track, group))

    @property
    def sequence(self) -> int:
        """The group's number in its track."""
        return self._group.sequence

    @property
    def subgroup(self) -> int:
        """The subgroup's id; 0 for the only one of its group."""
        traits = self._group.traits
        return 0 if traits is None or traits.subgroup is None else traits.subgroup

    async def send(
        self,
        payload: bytes,
        timestamp: int | None = None,
        *,
        object_id: int | None = None,
        properties: Properties = (),
    ) -> None:
        """Append a frame.

        On a reliable track this waits until the slowest subscriber is within the bound; on a live track it only
        lets other tasks run. If it is cancelled, nothing of the frame was written.

        Args:
            payload: The frame's bytes; may be empty.
            timestamp: In units of the track's timescale, at least 0. None for the time
                since the first frame of the track that was written without a timestamp.
            object_id: The frame's number in its group, above that of the frame before; None for the next one, from 0
                on. Only moq-transport carries numbers: for a subscriber of another version, a group that has a gap, or
                does not begin at 0, is dropped with INTERNAL_ERROR, and reported.
            properties: What moq-transport carries beside a payload, as `(type, value)`: a number for
                an even type, bytes for an odd one. A timestamp among them (type 0x10) is that of the frame, unless
                there is an argument for it. A subscriber of another version gets the frame without them.

        Raises:
            trio.ClosedResourceError: The group has ended, or its track was aborted.
            trio.BusyResourceError: Another task is sending on this group.
            ValueError: The payload is longer than `Limits.max_frame`, the timestamp is out of range, the object id is
                not above the one before, or a property is out of range.
        """
        if self._busy:
            raise trio.BusyResourceError("another task is sending on this group")
        self._busy = True
        try:
            # A cancellation is raised before the frame is appended, never after it.
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._track.reliable:
                await self._track.wait_room()
            if object_id is None and not properties:
                self._track.append(self._group, payload, timestamp)
            else:
                self._track.append_object(self._group, payload, timestamp, object_id, properties)
            await trio.lowlevel.cancel_shielded_checkpoint()
        finally:
            self._busy = False

    def send_nowait(
        self,
        payload: bytes,
        timestamp: int | None = None,
        *,
        object_id: int | None = None,
        properties: Properties = (),
    ) -> None:
        """Append a frame without waiting. The arguments are those of `send`.

        Raises:
            trio.WouldBlock: The track is reliable and its slowest subscriber is not within the bound.
            trio.ClosedResourceError: The group has ended, or its track was aborted.
            ValueError: As for `send`.
        """
        if self._track.reliable and not self._track.has_room():
            raise trio.WouldBlock
        if object_id is None and not properties:
            self._track.append(self._group, payload, timestamp)
        else:
            self._track.append_object(self._group, payload, timestamp, object_id, properties)

    def finish(self) -> None:
        """Complete the group. Does nothing once it has ended."""
        self._entered()
        self._track.complete(self._group)

    def reset(self, code: int = 1) -> None:
        """Reset the group for every subscriber. Does nothing once it has ended.

        Args:
            code: A stream error code; `StreamCode.CANCELLED` by default, 64 and above are the application's.
        """
        self._entered()
        self._track.abort_group(self._group, code)

    async def __aenter__(self) -> GroupWriter:
        self._entered()
        try:
            await trio.lowlevel.checkpoint()
        except BaseException:
            self.reset()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.reset()

    def __repr__(self) -> str:
        return f"<GroupWriter {self._track.name!r} {self._group!r}>"


def mark_headless(writer: GroupWriter) -> None:
    """Record that the source of a group has frames before the first one here."""
    group = writer._group
    group.traits = group.traits or GroupTraits()
    group.traits.headless = True


def new_group(sequence: int) -> Group:
    """Return a group that is opened now."""
    try:
        return Group(sequence, trio.current_time())
    except RuntimeError:
        raise NotOnTrio from None


def copy_group(group: Group) -> Group:
    """Return a copy of a complete group without traits: what leaves the cache of one track stays in that of another."""
    copy = new_group(group.sequence)
    copy.frames = list(group.frames)
    copy.packed = None if group.packed is None else deque(group.packed)
    copy.first, copy.tail, copy.size = group.first, group.tail, group.size
    copy.complete = True
    return copy


def whole_group(sequence: int, frame: Frame, *, datagram: bool = False) -> Group:
    """Return a group that has one frame, and all of it."""
    try:
        group = Group(sequence, trio.current_time(), datagram=datagram)
    except RuntimeError:
        raise NotOnTrio from None
    group.frames.append(frame)
    group.size = len(frame)
    group.complete = True
    return group
