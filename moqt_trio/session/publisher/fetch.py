"""Serving one fetch: the frames of one group, on the stream that asked for them.

It takes its turn with the session's subscriptions, by the priority of the request.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from ...codes import StreamCode
from ...errors import LocalProtocolError, SessionClosed, StreamReset
from ...model.cursor import GroupCursor, GroupRange
from ...model.track import state_of
from ...tasks import Wakeup
from ..context import SessionContext, give_up, logger
from .subscribe import CHUNK

if TYPE_CHECKING:
    from ...model.track import Track
    from ...protocol.fetch import FetchResponder
    from ...transport.abc import BidiStream
    from ...wire.messages import Fetch


class FetchServer:
    """Serves one fetch.

    Attributes:
        wakeup: Set whenever there may be something to do.
    """

    def __init__(
        self,
        context: SessionContext,
        stream: BidiStream,
        machine: FetchResponder,
        request: Fetch,
        track: Track,
        scope: trio.CancelScope,
    ) -> None:
        self.wakeup = Wakeup()
        self._context = context
        self._stream = stream
        self._machine = machine
        self._request = request
        self._priority = request.priority
        self._track = track
        self._scope = scope
        wanted = GroupRange(request.group, request.group, request.start_frame, request.end_frame)
        self._log = state_of(track)
        self._cursor = self._log.cursor(self.wakeup.set, range=wanted, max_age=math.inf)

    def update(self, priority: int) -> None:
        """Takes a FETCH_UPDATE."""
        self._priority = priority

    @property
    def urgency(self) -> tuple[int, int]:
        """The request's priority, then the publisher's; see `scheduling.Sender`."""
        return self._priority, self._track.priority

    def resume(self) -> None:
        """Goes on at once: the scheduler has picked this fetch."""
        if self._stream.send_ended or self._scope.cancel_called:
            return
        # The task meets the same error, and ends for it.
        with suppress(StreamReset, SessionClosed, trio.ClosedResourceError):
            self._pump()
        self.wakeup.set()

    async def run(self) -> None:
        """Serves until the group was written, is lost or is not there, or the peer or the session gave up."""
        code: int = StreamCode.CANCELLED
        cursor = self._cursor
        try:
            with self._scope:
                if self._missing():
                    code = StreamCode.NOT_FOUND
                    return
                self._log.attach(cursor, replay=False)
                while not (cursor.done or cursor.aborted is not None):
                    for sequence, reason in cursor.take_dropped():
                        logger.debug("fetched group %d was lost: %#x", sequence, reason)
                        code = reason
                        return
                    self._pump()
                    if not cursor.done:
                        await self.wakeup.wait()
                self._machine.finish()
                self._stream.finish()
        except (StreamReset, SessionClosed, trio.ClosedResourceError):
            pass
        finally:
            self._log.detach(cursor)
            self._context.scheduler.leave(self)
            if not self._stream.send_ended:
                give_up(self._stream, code)

    def _missing(self) -> bool:
        request = self._request
        group = self._log.group(request.group)
        if group is None or request.start_frame < group.first:
            return True
        return group.complete and request.start_frame >= max(group.length, 1)

    def _pump(self) -> None:
        for entry in self._cursor.news(newest_first=False):
            self._write(entry)

    def _write(self, entry: GroupCursor) -> None:
        cursor = self._cursor
        while entry.has_frames:
            if not self._stream.writable or not self._context.scheduler.may_send(self):
                cursor.again(entry)
                return
            try:
                data = self._machine.frames(cursor.take(entry, CHUNK))
            except LocalProtocolError as error:
                # A timestamp that the version can't spell: this fetch is given up, and nothing else.
                logger.warning("fetched group %d cannot be sent: %s", entry.group.sequence, error)
                cursor.remove(entry.group.sequence)
                cursor.lose(entry.group.sequence, StreamCode.INTERNAL_ERROR)
                self.wakeup.set()
                return
            self._stream.write(data)
        if entry.finished:
            cursor.remove(entry.group.sequence)
