"""A peer that makes and gives up the same thing again and again, as fast as it may; in a process of its own.

`python -m tests.faults.churning` is the peer, of a server on loopback. It begins with the line `go` and rests with the
line `rest`; each time it says how often it has gone round.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import trio

from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.messages import SubscribeUpdate
from tests.faults.state_peer import open_peer
from tests.faults.state_wire import LITE_01, LITE_02, Wire
from tests.transport.awaiting import accept_bidi

if TYPE_CHECKING:
    from moqt_trio.transport.connection import Connection

CANCELLED = 0x1
BATCH = 32
"""Messages that are written in one go."""


def update(version: str, number: int) -> bytes:
    """Return a SUBSCRIBE_UPDATE that sets the priority, and moves the range where the version has one."""
    start = None if version in (LITE_02, LITE_01) else first_group(number)
    return dialects.get(version).encode(SubscribeUpdate(priority=number % 128, ordered=False, start_group=start))


def first_group(number: int) -> int:
    """Return the group that the update of this number starts with."""
    return 1 + number % 60


class Churn:
    """One kind of going round and round.

    Attributes:
        rounds: How often it went round.
    """

    def __init__(self, peer: Connection, wire: Wire) -> None:
        self.peer = peer
        self.wire = wire
        self.rounds = 0

    async def begin(self) -> None:
        """Do what is done once."""

    async def turn(self) -> None:
        """Go round once, or a few times."""
        raise NotImplementedError


class SubscribeAndCancel(Churn):
    """Subscribes, and resets the stream."""

    async def turn(self) -> None:
        stream = await self.peer.open_bidi()
        stream.write(self.wire.subscribe(self.rounds))
        if self.peer.kind == "webtransport":
            # A reset that overtakes the stream's first bytes says nothing of the session.
            await trio.sleep(0.001)
        stream.reset(CANCELLED)
        stream.stop(CANCELLED)
        self.rounds += 1


class AnnounceAndUnannounce(Churn):
    """Announces a broadcast, and ends its announcement."""

    async def begin(self) -> None:
        self._stream = await accept_bidi(self.peer)
        await self._stream.receive_some()
        self._stream.write(self.wire.first("first/t"))
        self._next = 1

    async def turn(self) -> None:
        await self._stream.wait_writable()
        data = b""
        for _ in range(BATCH):
            data += self.wire.active("b/t") + self.wire.ended("b/t", self._next)
            self._next += 1
        self._stream.write(data)
        self.rounds += BATCH


class Update(Churn):
    """Updates one subscription."""

    async def begin(self) -> None:
        self._stream = await self.peer.open_bidi()
        self._stream.write(self.wire.subscribe(0))

    async def turn(self) -> None:
        await self._stream.wait_writable()
        self._stream.write(b"".join(update(self.wire.version, self.rounds + number) for number in range(BATCH)))
        self.rounds += BATCH


KINDS = {"subscribe and cancel": SubscribeAndCancel, "announce and unannounce": AnnounceAndUnannounce, "update": Update}


async def churn(churning: Churn, count: int) -> None:
    """Go round so many times."""
    await churning.begin()
    while churning.rounds < count:
        await churning.turn()
        await trio.lowlevel.checkpoint()


async def _main(kind: str, transport: str, version: str, port: int) -> None:
    async with open_peer(transport, version, port) as (peer, wire), trio.open_nursery() as nursery:
        churning = KINDS[kind](peer, wire)
        await churning.begin()
        going = trio.Event()

        async def go_round() -> None:
            while True:
                await going.wait()
                await churning.turn()
                await trio.lowlevel.checkpoint()

        nursery.start_soon(go_round)
        print(json.dumps({"event": "ready"}), flush=True)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            if line.strip() == "go":
                going.set()
            else:
                going = trio.Event()
            closed = None if peer.closed is None else str(peer.closed)
            print(json.dumps({"event": "rounds", "rounds": churning.rounds, "closed": closed}), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(_main, sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
