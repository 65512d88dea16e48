"""Packets that no connection has, and packets that were sent before: they are dropped, in virtual time."""

from __future__ import annotations

import gc
import random
import tracemalloc

import pytest
import trio

import moqt_trio as moqt
from tests.faults.group_transfer import SCHEMES, connect, connection_of, open_ends, serving, transfer
from tests.faults.simulated_udp import simulated_network

STRANGER = ("203.0.113.7", 7)
"""An address for documentation, from which no client has sent anything (RFC 5737)."""
KEPT = 16
"""Connection ids of one connection that a listener keeps at most."""
LIMITS = moqt.Limits()


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_packets_with_unknown_ids(autojump_clock, scheme):
    """Among the packets of a session there are some with ids that were never given out: they are dropped, at both
    sides, nothing is kept of them, and all groups arrive."""
    chance = random.Random(5)
    async with simulated_network() as network, open_ends(scheme) as ends:

        async def disturb(sequence: int) -> None:
            known = {True: connection_of(ends.client).connection_id, False: connection_of(ends.server).connection_id}
            for to_client, cid in known.items():
                for strange in (chance.randbytes(8), bytes([cid[0] ^ 1]) + cid[1:], cid):
                    for first in (b"\x40", b"\xc0\x00\x00\x00\x01\x08"):
                        data = first + strange + chance.randbytes(chance.randrange(1300))
                        network.inject(data, to_client=to_client)
                        network.inject(data, to_client=to_client, sender=STRANGER)
            numbers = ends.listener.statistics()
            assert (numbers.connections, numbers.sessions, numbers.half_open) == (1, 1, 0)
            assert len(ends.listener._quic._routes) <= KEPT

        with trio.fail_after(60):
            await transfer(ends, "client", 100, before=disturb)
            await transfer(ends, "server", 100, before=disturb)
        assert ends.listener.statistics().connections_accepted == 1
        assert len(connection_of(ends.server)._engine._quic._network_paths) <= 8


class Recording:
    """Every datagram that was sent, to be sent again."""

    def __init__(self, network) -> None:
        self.network = network
        self.datagrams: list[tuple[bytes, bool]] = []
        network.forward = self.forward

    def forward(self, data: bytes, from_client: bool) -> list[tuple[float, bytes]]:
        """Forward a datagram, and keep it."""
        self.datagrams.append((data, from_client))
        return [(0.0, data)]

    def replay(self, datagrams: list[tuple[bytes, bool]]) -> None:
        """Have datagrams arrive again, from the address that they came from, and from another."""
        for data, from_client in datagrams:
            self.network.inject(data, to_client=not from_client)
            if from_client:
                self.network.inject(data, to_client=False, sender=STRANGER)


@pytest.mark.parametrize("sender", ["client", "server"])
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_replayed_packets(autojump_clock, scheme, sender):
    """All packets of a session, the first ones included, arrive again and again while groups are sent: there is one
    connection and one session, each group arrives once, and nothing is kept of the repetitions."""
    chance = random.Random(5)
    async with simulated_network() as network:
        recording = Recording(network)
        async with open_ends(scheme) as ends:

            async def disturb(sequence: int) -> None:
                recording.replay(recording.datagrams[:8])
                recording.replay(chance.choices(recording.datagrams, k=20))
                numbers = ends.listener.statistics()
                assert (numbers.connections, numbers.sessions, numbers.half_open) == (1, 1, 0)

            with trio.fail_after(60):
                await transfer(ends, sender, 100, before=disturb)
            recorded = list(recording.datagrams)
            # The tasks of its requests end.
            await trio.sleep(1)
            tasks = trio.lowlevel.current_statistics().tasks_living
            growth = []
            tracemalloc.start()
            try:
                for _ in range(3):
                    before = tracemalloc.get_traced_memory()[0]
                    for _ in range(25):
                        recording.replay(recorded)
                        await trio.sleep(0.1)
                    recording.datagrams.clear()
                    gc.collect()
                    growth.append(tracemalloc.get_traced_memory()[0] - before)
            finally:
                tracemalloc.stop()
            print(f"\n{scheme}, {sender}: {75 * len(recorded)} packets again, then {growth} bytes more each time")
            assert growth[-1] < 4 * 1024
            assert trio.lowlevel.current_statistics().tasks_living <= tasks
            assert len(ends.listener._quic._routes) <= KEPT
            assert len(connection_of(ends.server)._engine._quic._network_paths) <= 8
            await transfer(ends, sender, 20)
            numbers = ends.listener.statistics()
            assert (numbers.connections_accepted, numbers.sessions_accepted) == (1, 1)


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_first_packets_after_the_end(autojump_clock, scheme):
    """The packets of a session that has ended begin at most a handshake, which ends by its timeout, and no session."""
    async with simulated_network() as network, serving(lambda session: session.wait_closed()) as listener:
        recording = Recording(network)
        async with connect(scheme, listener.port) as session, session.publish("b", moqt.Broadcast()):
            await trio.sleep(1)
        recorded = list(recording.datagrams)
        # The closing period.
        await trio.sleep(5)
        assert listener.statistics().connections == 0
        most = 0
        for _ in range(3):
            recording.replay(recorded)
            await trio.sleep(1)
            numbers = listener.statistics()
            assert numbers.connections == numbers.half_open <= 1
            most = max(most, numbers.half_open)
        await trio.sleep(LIMITS.handshake_timeout)
        numbers = listener.statistics()
        assert (numbers.connections, numbers.connections_accepted, numbers.sessions_accepted) == (0, 1, 1)
    print(f"\n{scheme}: {len(recorded)} packets, {most} handshake")


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_replayed_packets_keep_no_session_alive(autojump_clock, scheme):
    """When the network drops what both sides send, and old packets arrive instead, the session ends within the idle
    timeout as it does without them, also when something was sent meanwhile."""
    async with simulated_network() as network:
        recording = Recording(network)
        async with open_ends(scheme) as ends:
            await transfer(ends, "client", 20)
            await trio.sleep(1)
            recorded = recording.datagrams[-20:]
            network.blackhole()
            began = trio.current_time()
            for second in range(int(LIMITS.idle_timeout) + 2):
                recording.replay(recorded)
                if second == 25:
                    for session in (ends.client, ends.server):
                        connection_of(session)._engine.ping()
                        connection_of(session).wake()
                await trio.sleep(1)
            assert trio.current_time() - began < LIMITS.idle_timeout + 3
            for session in (ends.client, ends.server):
                assert isinstance(session.closed, moqt.SessionClosed)
                assert session.closed.reason == "idle timeout"


@pytest.mark.parametrize("what", ["noise", "replays"])
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_quiet_session_beside_forged_packets(autojump_clock, scheme, what):
    """A client whose session has nothing to send goes on sending its PINGs when packets arrive that are not new packets
    of its server: they do not count as the peer's, and do not make the session end by its idle timeout."""
    chance = random.Random(5)
    async with simulated_network() as network:
        recording = Recording(network)
        async with open_ends(scheme) as ends:
            await transfer(ends, "client", 20)
            await trio.sleep(1)
            forged = [data for data, from_client in recording.datagrams if not from_client]
            for _ in range(int(4 * LIMITS.idle_timeout / LIMITS.keep_alive)):
                for _ in range(4):
                    network.inject(chance.choice(forged) if what == "replays" else chance.randbytes(40), to_client=True)
                    await trio.sleep(LIMITS.keep_alive / 4)
                assert ends.client.closed is ends.server.closed is None
            await transfer(ends, "server", 20)
