"""Announcements: the peer's announcements below a prefix, as the application reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import attrs
import trio

from ...errors import SessionClosed
from ...path import BroadcastPath
from ...protocol.events import (
    Announced,
    AnnouncementsEnded,
    Event,
    InitialAnnouncementsDone,
    RequestRefused,
    TrackAnnounced,
    TrackUnannounced,
    Unannounced,
)
from ...protocol.ietf.namespaces import NamespaceRequester
from ...protocol.paths import is_hidden
from ...tasks import defer_interrupts
from ..setup import wait_setup
from .receive_queue import ReceiveQueue
from .request import Request, RequestControl

if TYPE_CHECKING:
    from ...codes import CodeSpace
    from ...errors import MoqtError
    from ..context import SessionContext


@attrs.frozen
class Announcement:
    """A broadcast of the peer that became available, changed or went away.

    Attributes:
        path: Its full path.
        active: True when it became available or changed, False when it went away.
        hops: Hop ids from its origin to the peer; 0 is an unknown hop. Empty where the version has none.
        cost: What subscribing costs, in the deployment's units; 0 where the version has none.
        cold_cost: The same without the discount that the peer gives because it has a copy cached already.
        updated: True when it was active before and only its route changed.
    """

    path: BroadcastPath
    active: bool
    hops: tuple[int, ...] = ()
    cost: int = 0
    cold_cost: int = 0
    updated: bool = False

    @property
    def publisher(self) -> int | None:
        """The hop id of its publisher, by which the same content is known on another route; None for an unknown one."""
        return self.hops[0] or None if self.hops else None


@defer_interrupts
class Announcements(Request[Announcement]):
    """The peer's announcements below a prefix. Use it as `async with session.announcements(prefix) as announcements`.

    Iterate over it for changes. The broadcasts that are active already come first. Iteration ends when the peer
    finishes the list; before that, every broadcast that was active is reported as unannounced.
    """

    _codes: ClassVar[CodeSpace] = "announce"
    _block = "list of announcements"
    _line = "session.announcements({}) as announcements"

    def __init__(self, context: SessionContext, prefix: BroadcastPath, *, hidden: bool = False) -> None:
        super().__init__(context, ReceiveQueue(self._block), str(prefix))
        self._prefix = prefix
        self._hidden = hidden
        self._active: dict[BroadcastPath, Announcement] = {}
        # Those that are on the list that was asked for; the peer may announce others by requests of its own.
        self._listed: set[BroadcastPath] = set()
        self._tracks: dict[BroadcastPath, set[str]] = {}
        # What the application has read. A reader that is too slow gets the difference from it.
        self._read: dict[BroadcastPath, Announcement] = {}
        self._most_unread = context.limits.max_queued_announcements
        self._initial = trio.Event()

    # -- from the stream -----------------------------------------------------------------------------------

    async def _open(self) -> None:
        core, namespaces = self._context.core, self._context.peer_namespaces
        if self._hidden:
            # It says whether the peer knows what it is asked for.
            await wait_setup(self._context)
        machine = core.request_announcements(self._prefix, hidden=self._hidden)
        namespaces.hidden_asked = namespaces.hidden_asked or self._hidden
        for path in namespaces:
            self._namespace_changed(path)
        namespaces.watch(self._namespace_changed)
        if isinstance(machine, NamespaceRequester) and machine.asked_before:
            await self._join(machine)
        else:
            await self._open_stream(machine)

    async def _join(self, machine: NamespaceRequester) -> None:
        """Read what the peer announces to an earlier request, which serves this list, too (14)."""
        await trio.lowlevel.checkpoint()
        context = self._context
        context.check_open()
        assert context.requests is not None
        if machine.answered_before:
            self._initial.set()
        else:
            context.peer_namespaces.await_answer(machine.asked, self._initial.set)
        # Nothing is written on the stream: it ends with the session.
        stream = context.requests.open()
        self._control = stream.handler = RequestControl(context, stream, machine, self._on_event, self._on_failure)

    def _namespace_changed(self, path: BroadcastPath) -> None:
        """Called when the peer has announced a broadcast by a request of its own, or has ended that."""
        namespaces = self._context.peer_namespaces
        if not self._prefix.covers(path) or self._queue.ended:
            return
        if not self._hidden and namespaces.hidden_asked and is_hidden(self._prefix.suffix_of(path).parts):
            return
        if path in namespaces:
            if path not in self._active:
                change = self._active[path] = Announcement(path, True)
                self._add(change)
        elif path not in self._listed and self._active.pop(path, None) is not None:
            self._add(Announcement(path, False))

    def _on_event(self, event: Event) -> None:
        match event:
            case Announced():
                self._listed.add(event.path)
                if event.path in self._context.peer_namespaces and event.path in self._active:
                    return
                change = Announcement(event.path, True, event.hops, event.warm_cost, event.cold_cost, event.updated)
                self._active[event.path] = change
                self._add(change)
            case Unannounced():
                self._listed.discard(event.path)
                self._tracks.pop(event.path, None)
                if event.path in self._context.peer_namespaces:
                    return
                if self._active.pop(event.path, None) is not None:
                    self._add(Announcement(event.path, False))
            case TrackAnnounced():
                self._tracks.setdefault(event.path, set()).add(event.track)
            case TrackUnannounced():
                self._tracks[event.path].discard(event.track)
            case InitialAnnouncementsDone():
                self._initial.set()
            case AnnouncementsEnded():
                self._unannounce_all()
                self._queue.finish()
                self._initial.set()
                self._finish()
            case RequestRefused():
                if not self._queue.ended:
                    self._unannounce_all()
                self._on_reset(event.code)
                self._initial.set()
            case _:
                pass

    def _on_failure(self, error: MoqtError) -> None:
        if not self._queue.ended:
            if not isinstance(error, SessionClosed):
                # The end of the session ends every broadcast of the peer; the error reports that.
                self._unannounce_all()
            self._queue.fail(error)
        self._initial.set()

    def _unannounce_all(self) -> None:
        paths = list(self._active)
        self._active.clear()
        self._tracks.clear()
        for path in paths:
            self._add(Announcement(path, False))

    def _add(self, change: Announcement) -> None:
        self._queue.put(change)
        unread = self._queue.items
        if len(unread) > self._most_unread:
            unread.clear()
            unread.extend(Announcement(path, False) for path in self._read if path not in self._active)
            unread.extend(item for path, item in self._active.items() if self._read.get(path) is not item)
            # A difference that exceeds the bound is not looked for again with every further change.
            self._most_unread = max(self._context.limits.max_queued_announcements, 2 * len(unread))

    # -- for the application -------------------------------------------------------------------------------

    def _close(self) -> None:
        self._context.peer_namespaces.unwatch(self._namespace_changed)
        self._context.peer_namespaces.forget_answer(self._initial.set)
        super()._close()
        self._initial.set()

    async def receive(self) -> Announcement:
        """Wait for the next change. Cancelling loses nothing.

        Raises:
            trio.EndOfChannel: The peer finished the list.
            StreamReset: The peer refused or reset the list.
            RemoteProtocolError: The peer broke the protocol on the list's stream.
            SessionClosed: The session ended.
            LocalProtocolError: The block was not entered.
            trio.ClosedResourceError: This side closed the list.
            trio.BusyResourceError: Another task is receiving.
        """
        return self._note_read(await self._queue.receive())

    def _take_unread(self, most: int) -> list[Announcement]:
        """Take changes that have arrived and were not read, so many at the most. No other task runs meanwhile."""
        unread = self._queue.items
        return [self._note_read(unread.popleft()) for _ in range(min(most, len(unread)))]

    def _note_read(self, change: Announcement) -> Announcement:
        if change.active:
            self._read[change.path] = change
        else:
            self._read.pop(change.path, None)
        return change

    async def wait_initial(self) -> None:
        """Wait until the announcements that existed at the time of the request have arrived.

        moq-lite-03 and -04 do not mark them: there it waits until the list ends.

        Raises:
            LocalProtocolError: The block was not entered.
        """
        self._queue.check_open()
        await self._initial.wait()

    @property
    def active(self) -> tuple[Announcement, ...]:
        """The broadcasts that are available now, as far as their announcements have arrived."""
        return tuple(self._active.values())

    def tracks(self, path: str | BroadcastPath) -> tuple[str, ...]:
        """Return the names of a broadcast's tracks that are announced now, in the versions that announce tracks.

        Those are moq-transfork-03 and gomoqt-develop. A track that comes or goes while others of its broadcast are
        announced is no change of the broadcast, so iterating does not report it. Empty in moq-lite, which announces
        broadcasts only.
        """
        return tuple(sorted(self._tracks.get(BroadcastPath.parse(path), ())))

    def __repr__(self) -> str:
        return f"<Announcements below {str(self._prefix)!r}, {len(self._active)} active, {len(self._queue)} unread>"
