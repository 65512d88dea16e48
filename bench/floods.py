"""The floods of the tests, round after round: what is left of them in a server, or in the process that has both ends.

A round is what one of the tests in `tests/faults/` does, without what it measures of one round. Peers that write their
bytes by hand need a server in a process of its own; sessions of the library on both sides are in this process. What
memory is free is given back before it is read.
"""

from __future__ import annotations

import gc
import os
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from itertools import count

import attrs
import trio

from tests.faults.api.test_session_operations import random_operations
from tests.faults.api.test_stalled_subscribers import one_stalled_among, readers_that_never_read, resident
from tests.faults.quic.test_gaps import LIMITS, closed_by_gaps
from tests.faults.quic.test_spoofed_addresses import half_open_handshakes
from tests.faults.quic.test_stream_floods import flood_streams
from tests.faults.served import ServedProcess, give_back, served
from tests.faults.state.test_churn_costs import neighbour_of_churn
from tests.faults.state.test_request_floods import flood_announcements, flood_lists, flood_subscriptions
from tests.faults.state_wire import ALL, LITE_06

from .kept import EARLY, FLOOD_GROWTH, REST_SECONDS, Held, Line, growth

TRANSPORTS = {"moqt": "quic", "https": "webtransport"}


# -- rounds against a server ---------------------------------------------------------------------------------


async def subscriptions(server: ServedProcess, transport: str) -> None:
    """Subscribe as often as the server allows streams."""
    async with server.peer(transport, LITE_06) as (peer, wire):
        await flood_subscriptions(peer, wire, 10_000)


async def announcements(server: ServedProcess, transport: str) -> None:
    """Announce until the server has as many broadcasts as it takes."""
    async with server.peer(transport, LITE_06) as (peer, wire):
        await flood_announcements(peer, wire, 10_000, 1024)


async def lists(server: ServedProcess, transport: str) -> None:
    """Ask for all that is published, again and again."""
    async with server.peer(transport, LITE_06) as (peer, wire):
        await flood_lists(peer, wire, 10_000, 1)


async def streams(server: ServedProcess, transport: str) -> None:
    """Open streams, and write nothing on them."""
    async with server.peer(transport, LITE_06) as (peer, _):
        await flood_streams(peer, 3000)


async def churn(server: ServedProcess, transport: str, *, kind: str) -> None:
    """Make and give up the same thing for a second, beside a client that fetches."""
    await neighbour_of_churn(server, kind, transport, LITE_06, windows=1, seconds=1)


async def gaps(server: ServedProcess, transport: str) -> None:
    """Send bytes with gaps between them, in one stream of raw QUIC; for WebTransport, which is above it, in many."""
    await closed_by_gaps(server, *((1, 20_000) if transport == "quic" else (1000, LIMITS.max_gaps - 6)))


async def handshakes(server: ServedProcess, transport: str) -> None:
    """Begin handshakes from many addresses, and wait until the server has forgotten them."""
    await half_open_handshakes(server, LITE_06 if transport == "quic" else "h3", 1000)
    while (await server.figures()).half_open:  # noqa: ASYNC110 - in another process
        await trio.sleep(0.1)


# -- rounds with both ends in this process --------------------------------------------------------------------


async def unread(scheme: str, number: int) -> None:
    """Subscribe to long groups, and do not read them."""
    await readers_that_never_read(scheme, LITE_06, sessions=4, tracks=20, beside=10)


async def stalled(scheme: str, number: int) -> None:
    """Publish to ten subscribers, of which one does not read before the end."""
    await one_stalled_among(scheme, LITE_06, live=9, groups=100)


async def operations(scheme: str, number: int) -> None:
    """Do random operations on two sessions in memory, in an event loop of its own."""
    run = partial(random_operations, ALL[number % len(ALL)], sequences=20, steps=50, first_seed=20 * number)
    await trio.to_thread.run_sync(run)


# -- round after round ----------------------------------------------------------------------------------------


@attrs.frozen
class Flood:
    """One kind of flood.

    Attributes:
        peer: What a peer of a server's process does in one round, over a transport; None when there is no such server.
        sessions: What sessions in this process do, over a scheme, in the round of a number.
        options: The server's.
        schemes: The transports that it is different on.
    """

    peer: Callable[[ServedProcess, str], Awaitable[None]] | None = None
    sessions: Callable[[str, int], Awaitable[None]] | None = None
    options: Mapping[str, float] = attrs.field(factory=dict)
    schemes: tuple[str, ...] = tuple(TRANSPORTS)


FLOODS = {
    "subscriptions": Flood(subscriptions),
    "announcements": Flood(announcements),
    "lists": Flood(lists, options={"paths": 1000}),
    "streams": Flood(streams, options={"setup_timeout": 1}),
    "subscribe-and-cancel": Flood(partial(churn, kind="subscribe and cancel")),
    "announce-and-unannounce": Flood(partial(churn, kind="announce and unannounce")),
    "updates": Flood(partial(churn, kind="update")),
    "gaps": Flood(gaps),
    "handshakes": Flood(handshakes, options={"handshake_timeout": 1}),
    "unread": Flood(sessions=unread),
    "stalled": Flood(sessions=stalled),
    "operations": Flood(sessions=operations, schemes=("moqt",)),
}
"""Each kind, by the name on the command line."""


@asynccontextmanager
async def rounds_of(
    flood: Flood, scheme: str
) -> AsyncIterator[tuple[Callable[[int], Awaitable[None]], Callable[[], Awaitable[Held]]]]:
    """Yield what does the round of a number, and what returns what is held when it is over."""
    if flood.sessions is not None:

        async def look() -> Held:
            gc.collect()
            give_back()
            tasks = trio.lowlevel.current_statistics().tasks_living
            return Held(resident(), 0, tasks, len(os.listdir("/proc/self/fd")))

        yield partial(flood.sessions, scheme), look
        return
    assert flood.peer is not None
    function = flood.peer
    async with served(**flood.options) as server:

        async def turn(number: int) -> None:
            await function(server, TRANSPORTS[scheme])

        async def ask() -> Held:
            found = await server.kept()
            return Held(found.resident, found.sessions, found.tasks, found.files)

        first = await ask()

        async def rest() -> Held:
            until = time.monotonic() + REST_SECONDS
            held = await ask()
            while held.is_more_than(first) and time.monotonic() < until:
                await trio.sleep(0.2)
                held = await ask()
            return held

        yield turn, rest


async def run_flood(name: str, scheme: str, transport: str, seconds: float) -> Line:
    """Go round for so many seconds, and return the line of the table."""
    shown = f"rounds of {name}, {transport}"
    try:
        async with rounds_of(FLOODS[name], scheme) as (turn, look):
            # What is made once is made by the first round.
            await turn(0)
            first, began = await look(), time.monotonic()
            early: Held | None = None
            for number in count(1):
                await turn(number)
                gone = time.monotonic() - began
                if early is None and gone >= EARLY * seconds:
                    early = await look()
                elif gone >= seconds:
                    break
            assert early is not None
            last = await look()
            return growth(shown, early, last, first, last, gone, number, FLOOD_GROWTH)
    except Exception as error:
        traceback.print_exc()
        return Line(shown, f"{type(error).__name__}: {error}".splitlines()[0], "no failure", False)
