"""A peer whose bytes are written by hand, in any version and in either role; on the other side runs our session.

Where a version has a handshake, it is done first, with the bytes of the vectors.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

import moqt_trio as moqt
from moqt_trio.session.run import run_session
from moqt_trio.transport.code_mapping import HTTP3_CODES, PLAIN_CODES
from moqt_trio.transport.memory import open_memory_pair
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.messages import AnnounceRequest, Expect, Group, StreamKind
from tests.faults.dialects import Place, client_opening, server_answer
from tests.faults.raw_peer import settled
from tests.transport.awaiting import accept_bidi

if TYPE_CHECKING:
    from moqt_trio.transport.memory import MemoryConnection
    from moqt_trio.transport.stream import BidiStream
    from moqt_trio.wire.dialect import Dialect

SETUP = bytes.fromhex("01 04 01010101")
"""A SETUP stream of a peer that answers probes with reports."""


PUBLISHED = (("demo/cam", "events"), ("meeting/1234", "video"))
"""The tracks that the vectors request; our session has them, each with a group 42 that is open."""


@attrs.define(eq=False)
class Peer:
    """The other side of a session of ours.

    Attributes:
        connection: Its connection, without a session.
        session: Our session.
        control: The handshake's stream, where the version has one.
        dialect: The version.
    """

    connection: MemoryConnection
    session: moqt.Session
    control: BidiStream | None
    dialect: Dialect
    _ours: AsyncExitStack

    async def reach(self, place: Place) -> BidiStream:
        """Return the peer's end of a stream on which everything before a place was sent.

        Raises:
            LookupError: The session never makes the request that is answered there.
        """
        if place.expect is Expect.SESSION_UPDATE:
            assert self.control is not None
            return self.control
        if place.ours:
            stream = await self._ask(place.expect)
        elif place.bidirectional:
            stream = await self.connection.open_bidi()
        else:
            if place.expect is Expect.GROUP:
                await self.subscription()
            stream = await self.connection.open_uni()
        if place.before:
            stream.write(place.before)
        return stream

    async def _ask(self, expect: Expect) -> BidiStream:
        """Has our session make a request; returns the stream to answer on."""
        match expect:
            case Expect.ANNOUNCE_FIRST_REPLY | Expect.ANNOUNCE_REPLY:
                await self._ours.enter_async_context(self.session.announcements())
            case Expect.PROBE:
                await self._ours.enter_async_context(self.session.probe())
            case Expect.TRACK_INFO if not self.dialect.features.track_info:
                raise LookupError("no session asks for INFO")
            case _:
                await self._ours.enter_async_context(self.session.subscribe("a", "t"))
        with trio.fail_after(10):
            stream = await accept_bidi(self.connection)
            subscribed = expect not in (Expect.ANNOUNCE_FIRST_REPLY, Expect.ANNOUNCE_REPLY, Expect.PROBE)
            if subscribed and self.dialect.features.track_info:
                # The track's properties are asked for first.
                second = await accept_bidi(self.connection)
                return stream if expect is Expect.TRACK_INFO else second
        return stream

    async def subscription(self, track: str = "t") -> moqt.Subscription:
        """Has our session subscribe to a track; its groups are numbered from 0 on in the order of the calls."""
        return await self._ours.enter_async_context(self.session.subscribe("a", track))

    async def group(self, subscribe_id: int, sequence: int, data: bytes = b"", *, fin: bool = False) -> BidiStream:
        """Open a group stream with these bytes after its header."""
        stream = await self.connection.open_uni()
        head = self.dialect.stream_type(StreamKind.GROUP) + self.dialect.encode(Group(subscribe_id, sequence))
        stream.write(head + data, fin=fin)
        return stream

    async def check_alive(self) -> None:
        """Return when our session still answers: it announces what it has."""
        assert self.session.closed is None
        stream = await self.connection.open_bidi()
        stream.write(self.dialect.stream_type(StreamKind.ANNOUNCE) + self.dialect.encode(AnnounceRequest("")))
        with trio.fail_after(10):
            assert await stream.receive_some()
        stream.reset(0x1)
        stream.stop(0x1)
        assert self.session.closed is None

    async def check_closed(self, code: int) -> None:
        """Return when our session was closed with this code."""
        with trio.fail_after(10):
            error = await self.connection.wait_closed()
        assert isinstance(error, moqt.SessionClosed)
        assert (error.by_peer, error.remote_code) == (True, code)


@asynccontextmanager
async def hostile_peer(
    name: str, *, client: bool = False, setup: bool = True, limits: moqt.Limits | None = None
) -> AsyncIterator[Peer]:
    """Run a session of ours in one version, against a connection without a session.

    Args:
        name: The version.
        client: True for a session of ours that is the client's.
        setup: True for a peer that has sent its SETUP, where the version has one.
        limits: Those of our session.
    """
    dialect = dialects.get(name)
    limits = limits or moqt.Limits()
    theirs = moqt.Limits()
    first, second = (limits, theirs) if client else (theirs, limits)
    protocol = None if dialect.in_band else name
    async with open_memory_pair(client_limits=first, limits=second, protocol=protocol) as (at_client, at_server):
        own, peer = (at_client, at_server) if client else (at_server, at_client)
        peer.code_mapping = PLAIN_CODES if dialect.quirks.plain_codes else HTTP3_CODES
        control: BidiStream | None = None

        async def run_handshake() -> None:
            nonlocal control
            if client:
                control = await accept_bidi(peer)
                await control.receive_some()
                control.write(server_answer(name))
            else:
                control = await peer.open_bidi()
                control.write(client_opening(name))

        async with trio.open_nursery() as nursery:
            if dialect.in_band:
                nursery.start_soon(run_handshake)
            async with run_session(own, [dialect], limits=limits) as session:
                if setup and dialect.features.setup == "uni":
                    stream = await peer.open_uni()
                    stream.write(SETUP, fin=True)
                await settled()
                try:
                    async with AsyncExitStack() as ours:
                        for path, track in PUBLISHED:
                            broadcast = moqt.Broadcast()
                            broadcast.track(track).open_group(42)
                            await ours.enter_async_context(session.publish(path, broadcast))
                        yield Peer(peer, session, control, dialect, ours)
                        # No test reads the published tracks to their end.
                        peer.close()
                        await session.wait_closed()
                finally:
                    peer.close()
