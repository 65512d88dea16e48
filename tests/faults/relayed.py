"""A relay for the tests of faults: peers whose bytes are written by hand, and what its sessions have left in it."""

from __future__ import annotations

import gc
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import attrs
import trio

import moqt_trio as moqt
from moqt_trio.relay import view
from moqt_trio.relay.front import Front
from moqt_trio.relay.pull import Pull
from moqt_trio.session.run import run_session
from moqt_trio.transport.memory import MemoryConnection, open_memory_pair
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.messages import Setup
from tests.faults.raw_peer import settled
from tests.faults.state_peer import greet, take_setup, without_track_wait
from tests.faults.state_wire import Wire, protocol_of
from tests.transport.awaiting import accept_bidi

NOTHING = moqt.OriginStatistics(
    sessions=0, broadcasts=0, routes=0, tracks=0, subscriptions=0, subscribers=0, fetches=0, cached_bytes=0
)
"""What an origin has that no session shares."""


@attrs.define(eq=False)
class RawSource:
    """A peer of a relay, written by hand.

    Attributes:
        connection: Its connection, without a session.
        session: The relay's session with it.
        wire: The bytes of its version.
        announces: The stream on which it answers the relay's request for announcements.
    """

    connection: MemoryConnection
    session: moqt.Session
    wire: Wire
    announces: object

    def announce(self, path: str, *hops: int) -> None:
        """Announce a broadcast."""
        self.announces.write(self.wire.active(path, *hops))

    def end(self, path: str, ordinal: int) -> None:
        """Withdraw a broadcast: by its place among those announced so far, where the version has that."""
        self.announces.write(self.wire.ended(path, ordinal))

    async def asked(self, first: int, within: float = 10.0):
        """Return the relay's next request, which has to be of one type."""
        with trio.fail_after(within):
            stream = await accept_bidi(self.connection)
            assert (await stream.receive_some())[:1] == bytes([first])
        return stream

    async def subscribed(self):
        """Answer the relay's request for a track, and its subscription; return that one's stream."""
        info = await self.asked(0x06)
        info.write(self.wire.track_info(), fin=True)
        stream = await self.asked(0x02)
        stream.write(self.wire.accepted(0))
        return stream

    async def subscribed_and_reset(self, code: int = 0x20) -> None:
        """Describe a track to the relay, and reset its subscription."""
        info = await self.asked(0x06, math.inf)
        info.write(self.wire.track_info(), fin=True)
        stream = await self.asked(0x02, math.inf)
        stream.reset(code)
        stream.stop(code)

    async def group(self, sequence: int, *payloads: bytes, subscribe_id: int = 0, fin: bool = True):
        """Send a group, or its beginning; return its stream."""
        stream = await self.connection.open_uni()
        stream.write(self.wire.group(subscribe_id, sequence, *payloads), fin=fin)
        return stream


@asynccontextmanager
async def raw_source(
    origin: moqt.Origin, version: str = "moq-lite-06", *, limits: moqt.Limits | None = None
) -> AsyncIterator[RawSource]:
    """Run a session of a relay with a hand-written peer that has announced nothing so far."""
    wire = Wire(version)
    limits = without_track_wait(limits)
    async with open_memory_pair(limits=limits, client_limits=moqt.Limits(), protocol=protocol_of(version)) as pair:
        peer, ours = pair
        peer.code_mapping = wire.mapping
        setup = Setup(hop_id=origin.hop_id)
        await greet(peer, wire)
        async with run_session(
            ours, [dialects.get(version)], limits=limits, setup=setup, view=origin.view()
        ) as session:
            await take_setup(peer, wire)
            found = RawSource(peer, session, wire, None)
            found.announces = await found.asked(0x01)
            found.announces.write(wire.first())
            yield found
            peer.close()
            await session.wait_closed()
    # Who keeps a session keeps what was announced to it.
    del found.session, found.connection, found.announces


def paths(origin: moqt.Origin) -> list[str]:
    """Return the paths that can be reached, once for each way."""
    return [str(route.path) for route in origin.routes()]


@contextmanager
def changes_between_relays() -> Iterator[list[moqt.Announcement]]:
    """Collect what the relays of this process read of announcements, in the block."""
    found: list[moqt.Announcement] = []
    note = view.SharedSession._note

    def counted(self, change: moqt.Announcement) -> None:
        found.append(change)
        note(self, change)

    view.SharedSession._note = counted
    try:
        yield found
    finally:
        view.SharedSession._note = note


def alive(*kinds: type) -> list[object]:
    """Return the objects of these kinds that are referred to."""
    gc.collect()
    return [item for item in gc.get_objects() if type(item) in kinds]


async def check_nothing_left(origin: moqt.Origin) -> None:
    """Return when no route, session, front or pull of an origin is left; fail after five seconds."""
    with trio.fail_after(5):
        gc.collect()
        while origin.statistics() != NOTHING:
            await trio.sleep(0.01)
            # Groups count until their track is freed.
            gc.collect()
    await settled()
    assert (origin.sessions(), origin.routes(), origin._sharing.fronts) == ((), (), ())
    assert alive(Front, Pull, view.SharedSession) == []
