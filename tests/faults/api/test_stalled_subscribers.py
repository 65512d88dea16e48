"""Subscribers that never read, beside others that do: each is held at its windows, and only it loses groups."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

import moqt_trio as moqt
from moqt_trio.limits import KIB, MIB

SCHEMES = pytest.mark.parametrize("scheme", ["moqt", "https"])
VERSIONS = pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-03", "moq-transfork-03", "gomoqt-develop"])
DEFAULT = moqt.Limits()


def resident() -> int:
    """Return how many bytes of memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@asynccontextmanager
async def publishing(broadcast: moqt.Broadcast, scheme: str, version: str):
    """Serve a broadcast to each client; yield what opens a client's session, and the server's sessions."""

    async def handler(request: moqt.SessionRequest) -> None:
        async with request.accept() as session, session.publish("b", broadcast):
            await session.wait_closed()

    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(moqt.serve, handler, "127.0.0.1", 0, versions=[version]))
        url = f"{scheme}://127.0.0.1:{listener.port}/"
        yield partial(moqt.connect, url, versions=[version], fingerprint=listener.fingerprint), listener
        nursery.cancel_scope.cancel()


async def subscribers(track: moqt.Track, count: int) -> None:
    """Wait until a track has so many."""
    with trio.fail_after(10):
        while track.subscribers < count:  # noqa: ASYNC110 - nothing announces the second one
            await trio.sleep(0.002)


# -- what a reader that stops takes ---------------------------------------------------------------------------


@attrs.frozen
class Taken:
    """What stalled sessions have taken.

    Attributes:
        received: The bytes of each session's groups.
        most: The most of one group.
        grown: Bytes by which this process, with both ends, has grown.
    """

    received: list[int]
    most: int
    grown: int


async def readers_that_never_read(scheme: str, version: str, *, sessions: int, tracks: int, beside: int) -> Taken:
    """Have sessions subscribe to tracks whose groups are longer than their windows, and not read.

    Args:
        scheme: The transport.
        version: The version.
        sessions: How many such sessions.
        tracks: How many tracks each of them subscribes to.
        beside: Groups that one more session reads meanwhile, each of 64 KiB.
    """
    broadcast = moqt.Broadcast()
    payload, small = bytes(64 * KIB), bytes(4 * KIB)
    stalled = [broadcast.track(str(number), max_age=3600) for number in range(tracks)]
    alive = broadcast.track("alive", delivery="reliable")
    for track in stalled:
        async with track.open_group() as group:
            for _ in range(2 * DEFAULT.stream_window // len(small)):
                await group.send(small)
    before = resident()
    async with publishing(broadcast, scheme, version) as (connect, _), AsyncExitStack() as stack:
        reader = await stack.enter_async_context(connect())
        everything = await stack.enter_async_context(reader.subscribe("b", "alive"))
        await alive.wait_subscribed()
        unread = []
        for _ in range(sessions):
            session = await stack.enter_async_context(connect())
            # Subscriptions that were read never: not even their groups are taken.
            unread.append([await stack.enter_async_context(session.subscribe("b", track.name)) for track in stalled])

        def received() -> list[int]:
            return [sum(each.statistics().bytes_received for each in mine) for mine in unread]

        for _ in range(beside):
            await alive.write(payload)
            with trio.fail_after(5):
                assert await (await everything.receive()).read_all() == [payload]
        last, same = received(), 0
        while same < 10:
            await trio.sleep(0.05)
            now = received()
            last, same = now, same + 1 if now == last else 0
        assert all(each[0]._context.connection.closed is None for each in unread)
        most = max(each.statistics().bytes_received for mine in unread for each in mine)
        taken = Taken(last, most, resident() - before)
        # They stop nobody: a group still arrives.
        await alive.write(payload)
        with trio.fail_after(5):
            assert await (await everything.receive()).read_all() == [payload]
    return taken


@SCHEMES
@VERSIONS
async def test_readers_that_never_read(scheme, version):
    """Each group stops at 256 KiB and each session at 4 MiB; a session that reads gets everything meanwhile."""
    sessions = 4
    assert (DEFAULT.stream_window, DEFAULT.connection_window) == (256 * KIB, 4 * MIB)
    taken = await readers_that_never_read(scheme, version, sessions=sessions, tracks=20, beside=50)
    print(f"\n{version}, {scheme}: {taken}")
    assert taken.most <= DEFAULT.stream_window
    assert max(taken.received) <= DEFAULT.connection_window
    # All of the window was used: nothing else held them back.
    assert min(taken.received) >= DEFAULT.connection_window * 0.9
    # Both ends are in this process: what was received, and what was sent and may be sent again.
    assert taken.grown <= sessions * (DEFAULT.connection_window + DEFAULT.send_buffer) + 20 * MIB


# -- one that stops among others ------------------------------------------------------------------------------


@attrs.frozen
class Outcome:
    """What one stalled subscriber and those beside it got.

    Attributes:
        live: The numbers of the groups that each of the others got.
        dropped: Groups that the publisher dropped for the stalled one.
        held: The most bytes of a group or more that waited for it.
        late: The numbers of the groups that it got when it read in the end.
    """

    live: list[list[int]]
    dropped: int
    held: int
    late: list[int]


async def one_stalled_among(scheme: str, version: str, *, live: int, groups: int, size: int = 16 * KIB) -> Outcome:
    """Publish live to subscribers that read, and to one that does not before all is written."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=3600)
    got: list[list[int]] = [[] for _ in range(live)]
    progress = trio.Event()

    async def read(session: moqt.Session, numbers: list[int]) -> None:
        nonlocal progress
        async with session.subscribe("b", "t", max_age=3600, ordered=True) as subscription:
            async for group in subscription:
                assert await group.read_all() == [group.sequence.to_bytes(4, "big") * (size // 4)]
                numbers.append(group.sequence)
                progress.set()

    async with publishing(broadcast, scheme, version) as (connect, listener), AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        sessions = [await stack.enter_async_context(connect()) for _ in range(live)]
        small = attrs.evolve(DEFAULT, connection_window=MIB)
        stalled = await stack.enter_async_context(connect(limits=small))
        stopped = await stack.enter_async_context(stalled.subscribe("b", "t", max_age=3600))
        for session, numbers in zip(sessions, got, strict=True):
            nursery.start_soon(read, session, numbers)
        await subscribers(track, live + 1)
        held = 0
        for number in range(groups):
            # The writer never waits: this is no coroutine.
            track.write_nowait(number.to_bytes(4, "big") * (size // 4))
            with trio.fail_after(10):
                while not all(numbers and numbers[-1] == number for numbers in got):
                    progress = trio.Event()
                    await progress.wait()
            held = max(held, *(served.undelivered for session in listener.sessions for served in undelivered(session)))
        dropped = sum(session.statistics().groups_dropped for session in listener.sessions)
        late = []
        with trio.fail_after(10):
            while len(late) < groups - dropped:
                group = await stopped.receive()
                assert await group.read_all() == [group.sequence.to_bytes(4, "big") * (size // 4)]
                late.append(group.sequence)
        assert stalled.closed is None
        nursery.cancel_scope.cancel()
    return Outcome(got, dropped, held, late)


def undelivered(session: moqt.Session):
    """Return the subscriptions that a session serves."""
    return session._publisher.subscriptions


@SCHEMES
@pytest.mark.parametrize("version", ["moq-lite-06", "gomoqt-develop"])
async def test_one_stalled_among_ten(scheme, version):
    """Nine that read get every group, the writer never waits, and the stalled one loses old groups and no new one."""
    groups = 300
    outcome = await one_stalled_among(scheme, version, live=9, groups=groups)
    print(
        f"\n{version}, {scheme}: {outcome.dropped} of {groups} groups dropped for the stalled one, at most "
        f"{outcome.held} bytes held for it; it got {len(outcome.late)} in the end"
    )
    first = outcome.live[0][0]
    assert outcome.live == [list(range(first, groups))] * 9
    assert outcome.dropped >= groups - 64 - DEFAULT.live_backlog_groups - DEFAULT.max_open_groups - 20
    assert outcome.held <= DEFAULT.live_backlog + DEFAULT.send_buffer
    newest = DEFAULT.live_backlog_groups // 2
    assert sorted(outcome.late)[-newest:] == list(range(groups - newest, groups))
