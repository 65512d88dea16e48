"""A loop that did not run for longer than a timeout: what arrived meanwhile is read before any timer is judged."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.transport.quic.connection import QuicConnection
from tests.transport.recorders import eventually

SESSIONS = 20
IDLE = 1.0
STALL = 1.5


class Stall(trio.abc.Instrument):
    """Stops the loop once, just before it looks at the sockets.

    Args:
        after: At which of its turns.
        seconds: Called then; returns for how long.
    """

    def __init__(self, after: int, seconds: Callable[[], float] = lambda: STALL) -> None:
        self._turns = after
        self._seconds = seconds
        self.done = trio.Event()

    def before_io_wait(self, timeout: float) -> None:
        self._turns -= 1
        if self._turns == 0:
            time.sleep(self._seconds())
            self.done.set()


@pytest.mark.parametrize("scheme", ["moqt", "https"])
async def test_packets_that_arrived_during_a_stall(scheme):
    """Something was written just before the loop stopped for longer than the idle timeout: no session ends.

    It leaves after the stop. Had it left before, nothing in this loop could have answered it in time.
    """
    limits = moqt.Limits(idle_timeout=IDLE)
    served: list[moqt.Session] = []
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    received = [0] * SESSIONS

    async def handler(request: moqt.SessionRequest) -> None:
        async with request.accept() as session, session.publish("b", broadcast):
            served.append(session)
            await session.wait_closed()

    async def view(session: moqt.Session, number: int) -> None:
        async with session.subscribe("b", "t") as subscription:
            async for group in subscription:
                await group.read_all()
                received[number] += 1

    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(moqt.serve, handler, "127.0.0.1", 0, limits=limits))
        url = f"{scheme}://127.0.0.1:{listener.port}/"
        clients: list[moqt.Session] = []

        async def client(number: int, task_status: trio.TaskStatus) -> None:
            async with moqt.connect(url, fingerprint=listener.fingerprint, limits=limits) as session:
                clients.append(session)
                nursery.start_soon(view, session, number)
                task_status.started()
                await session.wait_closed()

        for number in range(SESSIONS):
            await nursery.start(client, number)
        await eventually(lambda: track.subscribers == SESSIONS)
        track.write_nowait(b"x")
        await eventually(lambda: received == [1] * SESSIONS)
        await trio.sleep(0.1)
        stall = Stall(1)
        trio.lowlevel.add_instrument(stall)
        track.write_nowait(b"y")
        await stall.done.wait()
        trio.lowlevel.remove_instrument(stall)
        await trio.sleep(0.5)
        assert [str(session.closed) for session in (*clients, *served) if session.closed] == []
        assert received == [2] * SESSIONS
        nursery.cancel_scope.cancel()


async def test_a_stall_that_ends_just_after_the_idle_timeout():
    """A server that has sent nothing, and whose only timer is hardly late, reads what the client sent first, too."""
    limits = moqt.Limits(idle_timeout=IDLE)
    served: list[moqt.Session] = []
    received: list[list[bytes]] = []

    async def handler(request: moqt.SessionRequest) -> None:
        async with request.accept() as session:
            served.append(session)
            await session.wait_announced("b")
            async with session.subscribe("b", "t") as subscription:
                async for group in subscription:
                    received.append(await group.read_all())

    def until_just_after() -> float:
        connection = served[0]._context.connection
        assert isinstance(connection, QuicConnection)
        return connection._engine.heard_at + IDLE + 0.02 - trio.current_time()

    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(moqt.serve, handler, "127.0.0.1", 0, limits=limits))
        track = (broadcast := moqt.Broadcast()).track("t")
        url = f"moqt://127.0.0.1:{listener.port}/"
        async with (
            moqt.connect(url, fingerprint=listener.fingerprint, limits=limits) as session,
            session.publish("b", broadcast),
        ):
            track.write_nowait(b"x")
            await eventually(lambda: received == [[b"x"]])
            # Until nothing is on its way, and before the client's next PING.
            await trio.sleep(0.15)
            stall = Stall(1, until_just_after)
            trio.lowlevel.add_instrument(stall)
            track.write_nowait(b"y")
            await stall.done.wait()
            trio.lowlevel.remove_instrument(stall)
            await eventually(lambda: received == [[b"x"], [b"y"]] or served[0].closed)
            assert (served[0].closed, session.closed) == (None, None)
        nursery.cancel_scope.cancel()
