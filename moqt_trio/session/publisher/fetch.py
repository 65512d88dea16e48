"""FetchServer: answers one fetch with the frames of one group, on the stream of the request."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import trio

from ...codes import StreamCode, describe_stream_code
from ...errors import LocalProtocolError, SessionClosed, StreamReset
from ...loggers import Logger
from ...model.broadcast import fetch_group
from ...model.cursor import GroupRange
from ...model.track import state_of
from ...protocol.events import Event, FetchRequested
from ...tasks import defer_interrupts
from ...wire.messages import FetchUpdate
from .group import GroupServer

if TYPE_CHECKING:
    from ...model.track import Track
    from ...path import BroadcastPath
    from ...protocol.fetch import FetchResponder
    from ...wire.messages import Fetch
    from .request import Found

logger = Logger(__name__)


@defer_interrupts
class FetchServer(GroupServer):
    """Serves one fetch, by the priority of the request."""

    codes = "fetch"
    machine: FetchResponder

    def handle(self, event: Event) -> None:
        match event:
            case FetchRequested():
                self._start(event.path, event.request)
            case FetchUpdate():
                self._priority = event.priority
                self.serving.scheduler.priority_changed(self)
            case _:
                super().handle(event)

    def _start(self, path: BroadcastPath, request: Fetch) -> None:
        self._priority = request.priority
        self.find(path, request.track, partial(self._answer, request))

    def _answer(self, request: Fetch, found: Found | None) -> None:
        track = None if found is None else found[1]
        if found is not None and track is not None and not _may_serve(track, request):
            track = fetch_group(found[0].broadcast, request.track, request.group)
        if track is None:
            self.cancel(StreamCode.NOT_FOUND)
            return
        group = request.group
        wanted = GroupRange(group, group, request.start_frame, request.end_frame)
        self._read(track, wanted, priority=self._priority, max_age=math.inf, replay=False)
        self.context.start(self._run)

    async def _run(self) -> None:
        """Serve until the group was written or dropped, or the request or the session has ended."""
        code: int = StreamCode.CANCELLED
        cursor = self._cursor
        try:
            with self.scope:
                await trio.lowlevel.checkpoint_if_cancelled()
                while cursor.aborted is not None or not cursor.done:
                    if cursor.aborted is not None:
                        # What was written is not all of the group.
                        code = cursor.aborted
                        return
                    if cursor.dropped:
                        sequence, code = cursor.dropped[0]
                        logger.debug("fetched group %d was dropped: %s", sequence, describe_stream_code(code))
                        return
                    self._pump()
                    if not cursor.done:
                        await self.wakeup.wait()
                self.machine.finish()
                self.stream.finish()
                self.serving.rate.give_back()
        except (StreamReset, SessionClosed, trio.ClosedResourceError):
            pass
        finally:
            self._track_state.detach(cursor)
            self.serving.scheduler.release(self)
            if not self.stream.send_ended:
                self.cancel(code)
            self.machine.release()
            self.ended.set()

    def _pump(self) -> None:
        cursor = self._cursor
        for entry in cursor.ready(newest_first=False):
            if not entry.has_frames and not entry.finished:
                continue
            allowance = self.serving.scheduler.allowance(self)
            if allowance == 0 and entry.has_frames:
                cursor.requeue(entry)
                return
            try:
                _, finished = self._write_frames(entry, self.stream, self.machine.frames, allowance, fin=False)
            except LocalProtocolError as error:
                # A timestamp that the version cannot carry: only this fetch is reset.
                logger.warning("fetched group %d cannot be sent: %s", entry.group.sequence, error)
                cursor.drop_taken(entry.group.sequence, StreamCode.INTERNAL_ERROR)
                return
            if not finished and entry.has_frames:
                cursor.requeue(entry)


def _may_serve(track: Track, request: Fetch) -> bool:
    """Return whether a track keeps the group and has the first frame wanted, or may still get that frame.

    A group whose frames can't be counted, because it has gaps or several subgroups, is not served.
    """
    parts = state_of(track).parts(request.group)
    group = parts[0] if len(parts) == 1 else None
    if group is None or request.start_frame < group.first or group.key != request.group or group.sparse:
        return False
    return not group.complete or request.start_frame < max(group.length, 1)
