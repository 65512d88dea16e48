"""Ageing: has the broadcasts of a session drop what has become too old, also when nothing is written.

A broadcast has no task. The session that published it first keeps it, and the next one when that session ends; so a
broadcast on a thousand sessions has one keeper. The task exists only while there is something that ages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ...model.broadcast import add_keeper, age_tracks, remove_keeper
from ...tasks import defer_interrupts

if TYPE_CHECKING:
    from ...model.broadcast import Broadcast
    from ..context import SessionContext

_INTERVAL = 1.0
"""Seconds between two looks: memory is freed up to so much later than `max_age` says."""


@defer_interrupts
class Ageing:
    """Looks after the broadcasts that a session publishes.

    Args:
        context: The session's.
    """

    def __init__(self, context: SessionContext) -> None:
        self._context = context
        # All that the session publishes, and those of them that have something that ages.
        self._added: dict[Broadcast, None] = {}
        self._broadcasts: dict[Broadcast, None] = {}
        self._scope: trio.CancelScope | None = None

    def add(self, broadcast: Broadcast) -> None:
        """Called when the session publishes a broadcast; again for a further path changes nothing."""
        self._added[broadcast] = None
        add_keeper(broadcast, self._keep)

    def remove(self, broadcast: Broadcast) -> None:
        """Called when the session publishes a broadcast no longer."""
        self._added.pop(broadcast, None)
        remove_keeper(broadcast, self._keep)
        self._broadcasts.pop(broadcast, None)
        if not self._broadcasts and self._scope is not None:
            self._scope.cancel()
            self._scope = None

    def connection_lost(self) -> None:
        """Called when the session has ended, which takes no tasks from then on; its publications may be left later."""
        for broadcast in tuple(self._added):
            self.remove(broadcast)

    def _keep(self, broadcast: Broadcast) -> None:
        """Called when a broadcast has something that ages."""
        self._broadcasts[broadcast] = None
        if self._scope is None:
            self._scope = trio.CancelScope()
            self._context.start(self._run, self._scope)

    async def _run(self, scope: trio.CancelScope) -> None:
        with scope:
            while self._broadcasts:
                await trio.sleep(_INTERVAL)
                now = trio.current_time()
                for broadcast in tuple(self._broadcasts):
                    if not age_tracks(broadcast, now):
                        self._broadcasts.pop(broadcast, None)
        if self._scope is scope:
            self._scope = None
