"""GroupFetch: one past group that is fetched from a source, for all who want it at that time.

The group is written in a track of its own, as it arrives: each fetch of a peer reads it there with a cursor. The
subscribers of the broadcast's track are not to get a past group. Once it is whole, that track keeps a copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..codes import StreamCode
from ..errors import LocalProtocolError, MoqtError, NotFound, StreamReset
from ..model.track import Track
from ..tasks import open_unwrapping_nursery
from .frames import append

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..limits import Limits
    from ..model.group import GroupWriter
    from ..path import BroadcastPath
    from .pull import PullSource


class GroupFetch:
    """A fetch of one group.

    Args:
        path: The broadcast's path on the origin.
        like: The track of the broadcast, for its name and properties.
        sequence: The group's number.
        limits: The bounds.
        ended: Called when nothing more will be written.

    Attributes:
        track: A track that has this group alone.
        sequence: As above.
    """

    def __init__(
        self,
        path: BroadcastPath,
        like: Track,
        sequence: int,
        limits: Limits,
        ended: Callable[[GroupFetch], None],
    ) -> None:
        self.sequence = sequence
        self.track = Track(like.name, priority=like.priority, timescale=like.timescale, limits=limits)
        self._path = path
        self._limits = limits
        self._ended = ended
        self._source: PullSource
        self._group: GroupWriter = self.track.open_group(sequence)

    def begin(self, source: PullSource) -> None:
        """Fetch from a source."""
        self._source = source
        source.start(self._run)

    async def _run(self) -> None:
        async with open_unwrapping_nursery() as watching:
            watching.start_soon(self._leave_unwanted, watching.cancel_scope)
            await self._copy()
            watching.cancel_scope.cancel()

    async def _copy(self) -> None:
        code: int = StreamCode.GOING_AWAY
        try:
            async with self._group:
                await self._fetch()
            code = 0
        except (NotFound, LocalProtocolError):
            # There is none, or the source's version has no fetch.
            code = StreamCode.NOT_FOUND
        except StreamReset as error:
            code = error.code
        except (MoqtError, ValueError, trio.ClosedResourceError):
            code = StreamCode.GOING_AWAY
        finally:
            self._ended(self)
            if code:
                self.track.abort(code=code)
            else:
                self.track.finish()

    async def _leave_unwanted(self, scope: trio.CancelScope) -> None:
        """End the fetch once all who wanted the group have left: its source may never end it."""
        await self.track.wait_unsubscribed()
        # From now on the group is fetched anew for those who want it.
        self._ended(self)
        scope.cancel()

    async def _fetch(self) -> None:
        source = self._source
        async with source.session.fetch(source.inside(self._path), self.track.name, self.sequence) as reader:
            async for frame in reader:
                # Its timestamp is in the track's units: those were taken from the publisher.
                await append(self._group, frame, frame.timestamp)
