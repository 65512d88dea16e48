"""Namespaces: announces this side's broadcasts by requests of its own, PUBLISH_NAMESPACE, in the IETF drafts.

| | to a peer that asked for them | to a peer that did not |
|---|---|---|
| drafts 14 and 15 | by a request each | as a client, by a request each |
| from 16 on | as a reply on the stream of its list (`announce.py`) | as a client, by a request each |

A client announces unasked because a relay need not ask. Each such request holds a stream from draft 17 on, so there are
few of them: a peer that wants to know of more has to ask. And a peer that asks at all mostly does so at once: the first
requests wait for that.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from ...errors import LocalProtocolError, SessionClosed
from ...loggers import Logger
from ...path import BroadcastPath
from ...protocol.events import Event, RequestRefused
from ...protocol.ietf.core import IetfCore
from ...protocol.paths import is_hidden
from ...tasks import Wakeup, defer_interrupts
from ..stream import ControlStream

if TYPE_CHECKING:
    from ...model.origin import Origin, PublishedBroadcast
    from ...protocol.ietf.publish_namespace import PublishNamespaceRequester
    from ...transport.stream import BidiStream
    from ..context import SessionContext

logger = Logger(__name__)

_MAX_UNASKED = 64
"""Broadcasts that are announced to a peer that did not ask: their requests hold streams that others need."""
_LEAST_RTT = 0.005
"""The least round trip, in seconds: the measured one is 0 at first, and a process needs time to ask."""


@defer_interrupts
class Namespaces:
    """The requests by which one session announces its broadcasts.

    Args:
        context: The session's.
        origin: What it publishes.
    """

    def __init__(self, context: SessionContext, origin: Origin) -> None:
        core = context.core
        self._context = context
        self._origin = origin
        self._core = core if isinstance(core, IetfCore) else None
        self._by_requests = self._core is not None and self._core.answers_by_requests
        # By the prefix, and whether hidden paths are wanted, too.
        self._asked: Counter[tuple[BroadcastPath, bool]] = Counter()
        self._unasked = 0
        # None for one that is refused.
        self._made: dict[BroadcastPath, _Announcement | None] = {}
        self._due: dict[BroadcastPath, None] = {}
        self._wakeup = Wakeup()

    def start(self) -> None:
        """Start announcing, in a version that has such requests."""
        if self._core is None or not (self._by_requests or self._context.core.is_client):
            return
        everything = BroadcastPath()
        self._due.update(dict.fromkeys(self._origin.below(everything)))
        self._origin.watch(everything, self._note)
        self._context.start(self._run)

    def ask(self, prefix: BroadcastPath, *, hidden: bool) -> None:
        """Called when the peer asked for what is below a prefix."""
        if self._core is None:
            return
        self._asked[prefix, hidden] += 1
        if self._by_requests:
            self._due.update(dict.fromkeys(self._origin.below(prefix)))
            self._wakeup.set()

    def unask(self, prefix: BroadcastPath, *, hidden: bool) -> None:
        """Called when the peer no longer does."""
        if self._core is None:
            return
        self._asked[prefix, hidden] -= 1
        # Those that are not positive are left out.
        self._asked += Counter()
        if self._by_requests:
            for path in [path for path in self._made if prefix.covers(path) and not self._is_wanted(path)]:
                self._withdraw(path)

    def _note(self, publication: PublishedBroadcast, track: str | None) -> None:
        path = publication.path
        if track is not None:
            return
        if self._origin.get(path) is None:
            self._withdraw(path)
        elif path not in self._made:
            self._due[path] = None
            self._wakeup.set()

    def _is_asked(self, path: BroadcastPath) -> bool:
        return any(
            prefix.covers(path) and (hidden or not is_hidden(prefix.suffix_of(path).parts))
            for prefix, hidden in self._asked
        )

    def _is_wanted(self, path: BroadcastPath) -> bool:
        if self._origin.get(path) is None:
            return False
        if self._is_asked(path):
            return self._by_requests
        core = self._core
        assert core is not None
        return core.is_client and (core.shows_hidden or not is_hidden(path.parts)) and self._unasked < _MAX_UNASKED

    def _withdraw(self, path: BroadcastPath) -> None:
        self._due.pop(path, None)
        made = self._made.pop(path, None)
        if made is not None:
            self._unasked -= made.unasked
            made.cancel()

    async def _run(self) -> None:
        context = self._context
        try:
            with suppress(SessionClosed):
                await context.setup_received.wait()
                await trio.sleep(2 * max(context.connection.statistics().rtt, _LEAST_RTT))
                while True:
                    while self._due:
                        path = next(iter(self._due))
                        if path in self._made or not self._is_wanted(path):
                            del self._due[path]
                        else:
                            await self._announce(path)
                    await self._wakeup.wait()
        finally:
            self._origin.unwatch(BroadcastPath(), self._note)

    async def _announce(self, path: BroadcastPath) -> None:
        core, context = self._core, self._context
        assert core is not None
        try:
            machine = core.publish_namespace(path)
        except LocalProtocolError as error:
            logger.info("a broadcast cannot be announced in %s: %s", context.dialect.name, error)
            self._made[path] = None
            return
        stream = await context.open_request()
        unasked = not self._is_asked(path)
        if path not in self._due or not self._is_wanted(path):
            # It went while the peer allowed no further request.
            stream.reset(0)
            stream.stop(0)
            machine.release()
            return
        made = self._made[path] = _Announcement(context, stream, machine, self, path, unasked=unasked)
        self._unasked += unasked
        stream.write(machine.opening)
        stream.handler = made

    def refused(self, path: BroadcastPath) -> None:
        """Called when the peer refuses a request, or takes its acceptance back: it is not asked again."""
        made = self._made.get(path)
        if made is not None:
            self._unasked -= made.unasked
            self._made[path] = None


class _Announcement(ControlStream):
    """One request."""

    def __init__(
        self,
        context: SessionContext,
        stream: BidiStream,
        machine: PublishNamespaceRequester,
        namespaces: Namespaces,
        path: BroadcastPath,
        *,
        unasked: bool,
    ) -> None:
        super().__init__(context, stream, machine)
        self.unasked = unasked
        self._namespaces = namespaces
        self._path = path
        context.map_codes(stream, "announce")

    def handle(self, event: Event) -> None:
        if isinstance(event, RequestRefused):
            logger.info("the peer does not want the announcement of %s", self._path)
            self._namespaces.refused(self._path)
            self.cancel()
