"""How a connection says that its link is the bottleneck, and that it takes more."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import trio
import trio.testing

from moqt_trio.limits import Limits
from moqt_trio.transport.connection import ConnectionHandler
from moqt_trio.transport.http3.demux import Demux
from moqt_trio.transport.link import LossyLink
from moqt_trio.transport.memory import open_memory_pair
from tests.transport.awaiting import accept_uni
from tests.transport.quic_pair import quic_pair
from tests.transport.recorders import eventually


class RoomHandler(ConnectionHandler):
    """Notes that there is room."""

    def __init__(self) -> None:
        self.room = trio.Event()

    def send_room(self) -> None:
        self.room.set()


async def drain(stream, count):
    """Read so many bytes."""
    while count > 0:
        count -= len(await stream.receive_some())


async def test_quic_is_congested_until_most_of_it_has_left():
    """Bytes that no packet took yet make a QUIC connection congested; once they have left the handler is called."""
    with trio.fail_after(10):
        async with quic_pair() as (client, server):
            handler = RoomHandler()
            server.handler = handler
            assert server.send_allowance > 0
            stream = server.open_uni_nowait()
            stream.write(bytes(200_000))
            assert server.send_allowance == 0
            reader = await accept_uni(client)
            await drain(reader, 200_000)
            await handler.room.wait()
            assert server.send_allowance > 0


async def test_what_may_leave_at_once_does_not_wait():
    """On an idle connection most of a congestion window may be written before it counts as congested."""
    with trio.fail_after(10):
        async with quic_pair() as (_, server):
            await eventually(lambda: server.statistics().bytes_in_flight == 0)
            window = server.statistics().congestion_window
            stream = server.open_uni_nowait()
            stream.write(bytes(window * 3 // 4))
            assert server.send_allowance > 0
            stream.write(bytes(window))
            assert server.send_allowance == 0


async def test_what_a_stream_may_not_send_is_not_congestion():
    """A stream that the peer gives no credit holds up its own bytes, and no other stream's."""
    with trio.fail_after(10):
        async with quic_pair(client_limits=Limits(stream_window=1000)) as (client, server):
            stream = server.open_uni_nowait()
            stream.write(bytes(100_000))
            assert not stream.held_up
            reader = await accept_uni(client)
            assert await reader.receive_some(1)
            # While a flush is due nothing counts as held up: the first one may still be.
            await eventually(lambda: stream.held_up)
            assert server.send_allowance > 0
            stream.reset(1)
            assert not stream.held_up
            assert server.send_allowance > 0


async def test_datagrams_that_wait_count():
    """Datagrams that wait to leave make a connection congested as stream bytes do."""
    with trio.fail_after(10):
        async with quic_pair() as (_, server):
            for _ in range(100):
                server.send_datagram(bytes(1000))
            assert server.send_allowance == 0


async def test_the_memory_link_says_when_it_has_room(autojump_clock):
    """Over a link with a rate the memory transport is congested for as long as the link is busy; else never."""
    async with open_memory_pair(link=LossyLink(rate=1000.0)) as (client, server):
        handler = RoomHandler()
        client.handler = handler
        stream = client.open_uni_nowait()
        assert client.send_allowance > 0
        stream.write(bytes(1000))
        assert client.send_allowance == 0
        assert server.send_allowance > 0
        began = trio.current_time()
        await handler.room.wait()
        assert trio.current_time() - began == pytest.approx(1.0, abs=0.05)
        assert client.send_allowance > 0
    async with open_memory_pair() as (client, _):
        client.open_uni_nowait().write(bytes(100_000))
        assert client.send_allowance > 0


def test_sessions_on_one_connection_are_asked_in_turn():
    """Each time there is room another session of the connection is the first that is called."""
    asked: list[int] = []
    sessions = {
        number: SimpleNamespace(session_id=number, deliver_send_room=lambda number=number: asked.append(number))
        for number in (0, 4, 8)
    }
    demux = SimpleNamespace(sessions=sessions)
    for _ in range(3):
        Demux.send_room(demux)
    assert asked == [0, 4, 8, 4, 8, 0, 8, 0, 4]
