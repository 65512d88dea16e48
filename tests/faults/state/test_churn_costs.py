"""Announcements that come and go, and updates without end: the last state counts, and a neighbour has its turns."""

from __future__ import annotations

import gc
import statistics

import attrs
import pytest
import trio

import moqt_trio as moqt
from moqt_trio.session.publisher.subscribe import SubscribeServer
from moqt_trio.testing import session_pair
from tests.api.instructions import instructions
from tests.faults.churning import KINDS, AnnounceAndUnannounce, Update, churn, first_group
from tests.faults.raw_peer import settled
from tests.faults.served import ServedProcess, fetch_kept, round_trips, served
from tests.faults.state_peer import hostile, still_serves
from tests.faults.state_wire import ALL, DEVELOP, LITE_01, LITE_02, LITE_03, LITE_06, TRANSFORK
from tests.interop.processes import Child

each_version = pytest.mark.parametrize("version", ALL)
ROUNDS = {LITE_06: 100_000}
"""How often a test goes round in the version that is tested at full scale."""
FEW = 10_000
"""How often in the others."""


@each_version
async def test_updates_are_coalesced(version, monkeypatch):
    """Of 100,000 updates the last one counts, and the subscription is looked at once for many of them."""
    looks = 0
    original = SubscribeServer._pump

    def pump(server: SubscribeServer) -> None:
        nonlocal looks
        looks += 1
        original(server)

    monkeypatch.setattr(SubscribeServer, "_pump", pump)
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with hostile(version) as (peer, session, wire), session.publish("b", broadcast):
        churning = Update(peer, wire)
        await churn(churning, ROUNDS.get(version, FEW))
        await settled()
        (server,) = session._publisher.subscriptions
        last = churning.rounds - 1
        assert server._priority == last % 128
        assert server._cursor.range.start_group == (None if version in (LITE_02, LITE_01) else first_group(last))
        print(f"\n{version}: {churning.rounds} updates, {looks} looks")
        assert looks <= churning.rounds / 8
        await track.write(b"x")
        await settled()
        assert track.subscribers == 1
        await still_serves(peer, wire, 1)
        assert session.closed is None


@pytest.mark.parametrize("reads", [True, False], ids=["read", "not read"])
@each_version
async def test_announcements_that_come_and_go(version, reads):
    """After 100,000 rounds there are as many objects as before, what waits is bounded, and the last state counts."""
    limits = moqt.Limits()
    async with hostile(version) as (peer, session, wire), session.announcements() as announcements:
        churning = AnnounceAndUnannounce(peer, wire)
        await churning.begin()
        known: dict[str, bool] = {}
        changes = 0

        async def read() -> None:
            nonlocal changes
            async for change in announcements:
                known[str(change.path)] = change.active
                changes += 1

        async with trio.open_nursery() as nursery:
            if reads:
                nursery.start_soon(read)
            await go_round(churning, limits.max_queued_announcements)
            gc.collect()
            before = len(gc.get_objects())
            await go_round(churning, ROUNDS.get(version, FEW))
            gc.collect()
            after = len(gc.get_objects())
            assert len(announcements._queue) <= limits.max_queued_announcements
            if not reads:
                nursery.start_soon(read)
            await settled()
            nursery.cancel_scope.cancel()
        print(f"\n{version}: {churning.rounds} rounds, {changes} changes read, {after - before} objects more")
        # What the peer has written and we have not acknowledged, and a queue that is just being filled.
        assert after - before <= 2 * limits.max_queued_announcements
        tuples = version in (TRANSFORK, DEVELOP)
        assert {path for path, active in known.items() if active} == {"first" if tuples else "first/t"}
        assert known.get("b" if tuples else "b/t", False) is False
        await still_serves(peer, wire)
        assert session.closed is None


async def go_round(churning: AnnounceAndUnannounce, count: int) -> None:
    """Go round so many times more."""
    end = churning.rounds + count
    while churning.rounds < end:
        await churning.turn()
        await settled()


@pytest.mark.parametrize("version", [LITE_03, LITE_06])
async def test_a_frame_beside_requests_that_wait(version, autojump_clock):
    """A neighbour's frame costs the same, however many requests of another peer wait for a token."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=60)
    limits = moqt.Limits(request_burst=10, request_rate=0.001)
    async with (
        hostile(version, limits=limits) as (peer, session, wire),
        session.publish("b", broadcast),
        session_pair(version) as (client, server),
        server.publish("b", broadcast),
        client.subscribe("b", "t") as subscription,
    ):

        async def frame() -> None:
            await track.write(b"x")
            group = await subscription.receive()
            assert await group.read_all() == [b"x"]

        await frame()
        alone = await instructions(frame)
        for number in range(limits.max_streams - 1):
            stream = await peer.open_bidi()
            stream.write(wire.subscribe(number))
            stream.reset(wire.cancelled)
            stream.stop(wire.cancelled)
        await settled()
        assert len(session._publisher._rate.waiting) > 1000
        beside = await instructions(frame)
        print(
            f"\n{version}: {alone} instructions alone, {beside} beside {len(session._publisher._rate.waiting)} requests"
        )
        assert beside <= 1.1 * alone


@attrs.frozen
class Noticed:
    """What a neighbour of churn notices, and what the server spends.

    Attributes:
        rounds: How often the other peer went round.
        alone: Seconds of each of the neighbour's round trips without it, the shortest first.
        beside: The same beside it.
        cpu: Seconds of the server's CPU for each second beside it.
    """

    rounds: int
    alone: list[float]
    beside: list[float]
    cpu: float

    def __str__(self) -> str:
        middle = [statistics.median(times) * 1000 for times in (self.alone, self.beside)]
        late = [times[len(times) * 99 // 100] * 1000 for times in (self.alone, self.beside)]
        return (
            f"{self.rounds} rounds; a neighbour's p50 {middle[0]:.1f} → {middle[1]:.1f} ms, p99 {late[0]:.1f} → "
            f"{late[1]:.1f} ms; {self.cpu:.2f} s of the server's CPU a second"
        )


async def neighbour_of_churn(
    server: ServedProcess, kind: str, transport: str, version: str, *, windows: int, seconds: float
) -> Noticed:
    """Have one peer churn for some windows of time, with rests between them, and a neighbour fetch all the time.

    The server and the peer have a process each: the neighbour's is this one.
    """
    alone: list[float] = []
    beside: list[float] = []
    rounds, cpu = 0, 0.0

    async def say(line: str) -> None:
        nonlocal rounds
        peer.tell(line)
        event = await trio.to_thread.run_sync(peer.wait_event, "rounds")
        assert event["closed"] is None
        rounds = event["rounds"]

    arguments = ("-m", "tests.faults.churning", kind, transport, version, str(server.port))
    with Child(*arguments) as peer:
        await trio.to_thread.run_sync(peer.wait_event, "ready")
        async with server.neighbour(version if version in (LITE_03, LITE_06) else LITE_06) as session:
            await fetch_kept(session)
            for _ in range(windows):
                before, start = await server.figures(), trio.current_time()
                await say("go")
                beside += await round_trips(session, seconds)
                await say("rest")
                after, end = await server.figures(), trio.current_time()
                cpu += (after.cpu - before.cpu) / (end - start) / windows
                await server.at_rest()
                alone += await round_trips(session, seconds)
        # It closes its session, which a process that is killed does not.
        peer.end_input()
        await trio.to_thread.run_sync(peer.wait_ended)
    return Noticed(rounds, sorted(alone), sorted(beside), cpu)


@pytest.mark.parametrize("transport", ["quic", "webtransport"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_neighbour_of_churn(kind, transport):
    """It is answered all the time, and the peer goes on: neither ends the other's session."""
    async with served() as server:
        noticed = await neighbour_of_churn(server, kind, transport, LITE_06, windows=2, seconds=0.5)
    print(f"\n{kind} over {transport}: {noticed}")
    # How often is the machine's business: three processes may share one core.
    assert noticed.rounds > 10
    assert len(noticed.beside) > 10
    assert noticed.beside[-1] < 1
