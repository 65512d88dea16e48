"""ReplyStream: the objects of the past that a fetch or a fill asked for, on a stream of their own.

Where the draft can mark what is unknown, nothing is waited for but the link, the peer's credit and the turn of the
other servers: what the track no longer keeps when it is due is marked, and so is the rest of a group that is still
written. Without such a mark, what is lost ends the stream, and a group that is still written is waited for.
"""

from __future__ import annotations

import math
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import trio

from ...codes import StreamCode
from ...errors import LocalProtocolError, SessionClosed, StreamReset, printable
from ...loggers import Logger
from ...model.cursor import GroupRange
from ...model.past import LAST, LostFrames, OpenGroup, Past, PastFrames, Place
from ...model.track import state_of
from ...tasks import Wakeup
from ...transport.interface import StreamHandler
from .scheduler import TURN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...frame import Frame
    from ...model.track import Track
    from ...protocol.ietf.events import PastRange
    from ...transport.send_stream import SendStream
    from .request import Serving

logger = Logger(__name__)


class ReplyMachine(Protocol):
    """What makes the bytes of a reply: `protocol.ietf.fetch.ReplySender`."""

    opening: bytes

    def opened(self) -> None:
        """Called when there is a stream for it."""

    def frames(
        self, group: int, first: int, frames: Sequence[Frame], subgroup: int = 0, priority: int | None = None
    ) -> bytes:
        """Return the bytes of some frames of a group."""
        ...

    def lost(self, group: int, last: int) -> bytes | None:
        """Return the bytes that say what is lost; None where they cannot be said."""
        ...


def resolve_range(wanted: PastRange, newest: Place) -> tuple[Place, Place] | None:
    """Return the first and the last frame of a range; None when it starts after the newest frame, or ends before."""
    back = wanted.start
    start = Place(max(newest.group - back, 0), 0) if isinstance(back, int) else Place(*back)
    end = newest
    if wanted.end is not None:
        group, frame = wanted.end
        end = min(newest, Place(group, LAST if frame is None else frame))
    return None if start > newest or start > end else (start, end)


class ReplyStream(StreamHandler):
    """Sends a range of the past.

    Args:
        serving: What the servers of the session share.
        machine: Makes the bytes.
        track: The track.
        past: What to send.
        priority: The subscriber's priority.

    Attributes:
        begun: Set once the stream is open.
    """

    def __init__(self, serving: Serving, machine: ReplyMachine, track: Track, past: Past, priority: int) -> None:
        self._serving = serving
        self._machine = machine
        self._track = track
        self._past = past
        self.priority = priority
        self.begun = trio.Event()
        self._stream: SendStream | None = None
        self._wakeup = Wakeup()
        # What is to be written next, and how much of its first part was.
        self._parts: deque[bytes] = deque((machine.opening,))
        self._written = 0
        # The group that is to go on or to end before anything else is written.
        self._awaited: OpenGroup | None = None
        self._over = False
        self._complete = False
        self._code: int = StreamCode.CANCELLED

    @property
    def send_priority(self) -> tuple[int, int]:
        """The subscriber's priority, then the publisher's; see `scheduler.Sender`."""
        return self.priority, self._track.priority

    async def run(self) -> bool:
        """Send all of it, and return whether that was done. Cancelled, it resets the stream.

        Raises:
            SessionClosed: The session ended.
        """
        serving = self._serving
        stream = self._stream = await serving.context.connection.open_uni()
        stream.handler = self
        self._machine.opened()
        self.begun.set()
        serving.context.map_codes(stream, "group")
        try:
            while not self._over:
                self._pump(stream)
                if self._over:
                    break
                if self._awaited is None:
                    await self._wakeup.wait()
                else:
                    await self._wait_for(self._awaited)
        except StreamReset:
            # The peer wants no more of it; the request itself goes on.
            return False
        finally:
            self._over = True
            serving.scheduler.release(self)
            if not stream.send_ended:
                stream.reset(self._code)
        return self._complete

    async def _wait_for(self, group: OpenGroup) -> None:
        """Wait until a group has gone on or ended, or the peer wants no more."""
        log = state_of(self._track)
        wanted = GroupRange(group.sequence, group.sequence, group.following)
        cursor = log.cursor(self._wakeup.set, range=wanted, max_age=math.inf, replay=True)
        log.attach(cursor)
        # What the cursor begins with is known.
        self._wakeup.clear()
        try:
            await self._wakeup.wait()
        finally:
            log.detach(cursor)

    def resume(self) -> None:
        """Called when the scheduler has picked this stream: write at once."""
        if self._over or self._stream is None:
            return
        # The task gets the same error, and ends with it.
        with suppress(StreamReset, SessionClosed, trio.ClosedResourceError):
            self._pump(self._stream)
        self._wakeup.set()

    def send_ready(self) -> None:
        self._wakeup.set()

    def stop_received(self, code: int) -> None:
        self._over = True
        self._wakeup.set()

    def _pump(self, stream: SendStream) -> None:
        """Write while the stream and the link have room."""
        while self._parts or self._take():
            room = stream.room
            if room <= 0:
                return
            allowance = self._serving.scheduler.allowance(self)
            if allowance == 0:
                return
            part, start = self._parts[0], self._written
            data = part[start : start + min(room, allowance, TURN)]
            stream.write(data)
            self._written += len(data)
            if self._written == len(part):
                self._parts.popleft()
                self._written = 0
        if not self._over and self._awaited is None:
            self._over = self._complete = True
            stream.finish()

    def _take(self) -> bool:
        """Take the next part; return False at the end, when the stream can't go on, and when a group is awaited."""
        self._awaited = None
        piece = self._past.take(TURN)
        try:
            return piece is not None and self._add(piece)
        except LocalProtocolError as error:
            logger.warning("past groups of track %s cannot be sent: %s", printable(self._track.name), error)
            self._over = True
            self._code = StreamCode.INTERNAL_ERROR
            return False

    def _add(self, piece: PastFrames | LostFrames | OpenGroup) -> bool:
        if isinstance(piece, OpenGroup):
            mark = self._machine.lost(piece.sequence, LAST)
            if mark is None:
                self._awaited = piece
                return False
            self._past.leave()
            self._parts.append(mark)
            return True
        if isinstance(piece, LostFrames):
            mark = self._machine.lost(piece.end.group, piece.end.frame)
            if mark is None:
                logger.info("frames of track %s up to %s are no longer kept", printable(self._track.name), piece.end)
                self._over, self._code = True, StreamCode.EVICTED
                return False
            self._parts.append(mark)
            return True
        data = self._machine.frames(piece.group, piece.first, piece.frames, piece.subgroup, piece.priority)
        last = piece.frames[-1]
        if len(last) > TURN:
            # A long frame is the track's, and not a copy for each reply.
            self._parts.extend((data[: len(data) - len(last)], last))
        else:
            self._parts.append(data)
        return True


def past_of(track: Track, wanted: PastRange, newest: Place | None) -> Past | None:
    """Return what a track keeps of a range; None when nothing of it was published."""
    places = None if newest is None else resolve_range(wanted, newest)
    return None if places is None else Past(state_of(track), *places, descending=wanted.descending)


def newest_of(track: Track) -> Place | None:
    """Return the newest frame of a track; None before the first one."""
    largest = state_of(track).largest
    return None if largest is None else Place(*largest)
