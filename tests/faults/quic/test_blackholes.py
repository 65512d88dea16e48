"""Networks that drop packets, in virtual time: all of them, one way, or the large ones."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

import moqt_trio as moqt
from tests.faults.group_transfer import SCHEMES, connect, connection_of, open_ends, serving, tasks_in, transfer
from tests.faults.simulated_udp import simulated_network

IDLE = moqt.Limits().idle_timeout
LOST = {"to the server": {True}, "to the client": {False}, "both ways": {True, False}}
CARRIED = 1200


def dropping(ways: set[bool]):
    """Drop what goes one way, or both."""
    return lambda data, from_client: [] if from_client in ways else [(0.0, data)]


async def publish(session: moqt.Session, path: str) -> None:
    """Send a frame each half second until the session has ended."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with session.publish(path, broadcast):
        while session.closed is None:
            await track.write(bytes(500))
            await trio.sleep(0.5)


class End:
    """One end of a session: it publishes, it reads what the other end publishes, and has the session end."""

    def __init__(self, path: str, other: str) -> None:
        self.path = path
        self.other = other
        self.reading = trio.Event()
        self.error: Exception | None = None
        self.raised: Exception | None = None
        self.at = 0.0

    async def run(self, session: moqt.Session) -> None:
        """Use the session until it has ended."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish, session, self.path)
            nursery.start_soon(self.read, session)
            self.error = await session.wait_closed()
            self.at = trio.current_time()

    async def read(self, session: moqt.Session) -> None:
        """Read until the session has ended."""
        try:
            async with session.subscribe(self.other, "t") as subscription:
                async for group in subscription:
                    # What is dropped becomes too old.
                    with suppress(moqt.StreamReset):
                        await group.read_all()
                    self.reading.set()
        except moqt.SessionClosed as error:
            self.raised = error


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_no_task_is_left(autojump_clock, scheme, lost):
    """When packets are dropped, both ends of a session in use raise `SessionClosed` within the idle timeout, and no
    task of the session is left at either of them."""
    client, server = End("client", "server"), End("server", "client")

    async def in_client() -> None:
        async with connect(scheme, listener.port) as session:
            await client.run(session)

    async with (
        simulated_network() as network,
        trio.open_nursery() as clients,
        serving(server.run) as listener,
    ):
        servers = trio.lowlevel.current_task().child_nurseries[-1]
        before = tasks_in(servers), tasks_in(clients)
        clients.start_soon(in_client)
        with trio.fail_after(10):
            await client.reading.wait()
            await server.reading.wait()
        assert tasks_in(servers) > before[0] + 3
        assert tasks_in(clients) > before[1] + 3
        network.forward = dropping(LOST[lost])
        start = trio.current_time()
        await trio.sleep(IDLE + 1)
        assert (tasks_in(servers), tasks_in(clients)) == before
        assert listener.statistics().connections == listener.statistics().sessions == 0
    print(f"\nclient {client.at - start:.1f} s, server {server.at - start:.1f} s")
    for end in (client, server):
        assert isinstance(end.error, moqt.SessionClosed)
        assert isinstance(end.raised, moqt.SessionClosed)
        assert end.error.reason == "idle timeout"
        assert end.at - start <= IDLE + 0.5
    if lost == "both ways":
        assert not client.error.by_peer
        assert not server.error.by_peer


@pytest.mark.parametrize("when", ["from the start", "later"])
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_path_that_drops_long_packets(autojump_clock, scheme, when):
    """A session over a path that drops packets of more than 1,200 bytes carries groups both ways, from its beginning
    and when the path changes to one that does."""
    longest = lost = 0

    def forward(data: bytes, from_client: bool) -> list[tuple[float, bytes]]:
        nonlocal longest, lost
        longest = max(longest, len(data))
        if not narrow or len(data) <= CARRIED:
            return [(0.0, data)]
        lost += 1
        return []

    narrow = when == "from the start"
    async with simulated_network() as network:
        network.forward = forward
        with trio.fail_after(20):
            async with open_ends(scheme) as ends:
                for sender in ("client", "server"):
                    await transfer(ends, sender, 100)
                narrow = True
                if when == "later":
                    assert longest > CARRIED
                    assert not lost
                for sender in ("client", "server"):
                    await transfer(ends, sender, 100)
                assert lost
                assert ends.listener.statistics().connections_accepted == 1
                for session in (ends.client, ends.server):
                    assert connection_of(session)._engine._quic._max_datagram_size == CARRIED
    print(f"\n{scheme}, {when}: {lost} packets lost")
