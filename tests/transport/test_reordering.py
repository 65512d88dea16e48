"""A path that reorders packets: they are waited for, and what their delay cost the congestion window is given back."""

from __future__ import annotations

import heapq
import random

import attrs
import pytest
from aioquic.quic.recovery import K_PACKET_THRESHOLD

from moqt_trio.transport.quic.aioquic.reordering import _LOSSES_TO_FORGET, _NUMBERS_KEPT, ReceivedPackets
from tests.transport.engine_pair import CLIENT, SERVER, Pair, Stream, quic_of

BODY = 2_000_000


@attrs.frozen
class Path:
    """What one way does to packets: seconds, bytes per second, and shares of them.

    Attributes:
        delay: What every packet takes.
        rate: Bytes per second.
        queue: Seconds of the rate that may wait; what does not fit is dropped.
        loss: The share of packets that are dropped.
        reorder: The share of packets that take longer.
        by: How much longer, from and to.
    """

    delay: float = 0.01
    rate: float = 2.5e6
    queue: float = 0.05
    loss: float = 0.0
    reorder: float = 0.0
    by: tuple[float, float] = (0.0, 0.0)


LOCAL = Path(delay=0.0001, rate=50e6, queue=0.01)
WIDE = Path()


class Reader(Stream):
    """Consumes what arrives, and counts it."""

    def __init__(self, link: Link, stream_id: int) -> None:
        super().__init__([], stream_id)
        self.link = link

    def deliver(self, data, fin):
        self.link.received += len(data)
        self.link.server.stream_consumed(self.stream_id, len(data))
        self.link.finished |= fin


class Link(Pair):
    """Two engines and a path between them, in virtual time."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.chance = random.Random(seed)
        self.free_at = [0.0, 0.0]
        self.under_way: list[tuple[float, int, bool, bytes]] = []
        self.sent = 0
        self.received = 0
        self.finished = False
        super().__init__()

    def run(self, turns: int = 40) -> None:
        """Run until the handshake is confirmed on both sides."""
        while not (quic_of(self.client)._handshake_confirmed and quic_of(self.server)._handshake_confirmed):
            self.step()

    def transfer(self) -> float:
        """Send `BODY` bytes to the server; return the seconds until all were there."""
        self.server_handler.stream = lambda stream_id: self.server_handler.open.setdefault(
            stream_id, Reader(self, stream_id)
        )
        self.server_handler.wake = lambda *_: None
        stream_id = self.open(unidirectional=True)
        assert stream_id is not None
        self.client.stream_write(stream_id, bytes(BODY), True)
        began = self.now
        while not self.finished:
            self.step()
            assert self.now < began + 200
        assert self.received == BODY
        return self.now - began

    def step(self) -> None:
        """Send what is to be sent, and go on to what happens next."""
        for engine, to_server in ((self.client, True), (self.server, False)):
            timeout = engine.next_timeout()
            if timeout is not None and timeout <= self.now:
                engine.handle_timeout(self.now)
            more = True
            while more:
                engine.deliver_events()
                for data, _ in engine.datagrams_to_send(self.now):
                    self.carry(data, to_server)
                more = engine.unfinished
        times = [time for engine in (self.client, self.server) if (time := engine.next_timeout()) is not None]
        if self.under_way:
            times.append(self.under_way[0][0])
        self.now = max(self.now + 1e-6, min(times))
        while self.under_way and self.under_way[0][0] <= self.now:
            _, _, to_server, data = heapq.heappop(self.under_way)
            engine, address = (self.server, CLIENT) if to_server else (self.client, SERVER)
            engine.receive_datagram_untrusted(data, address, self.now)
            engine.deliver_events()

    def carry(self, data: bytes, to_server: bool) -> None:
        """Put a datagram on its way, or drop it."""
        path, chance = self.path, self.chance
        begins = max(self.now, self.free_at[to_server])
        if begins - self.now > path.queue:
            return
        self.free_at[to_server] = begins + len(data) / path.rate
        if chance.random() < path.loss:
            return
        at = self.free_at[to_server] + path.delay
        if chance.random() < path.reorder:
            at += chance.uniform(*path.by)
        self.sent += 1
        heapq.heappush(self.under_way, (at, self.sent, to_server, data))


def seconds(path: Path) -> float:
    """Return what a transfer takes in the middle of three runs."""
    return sorted(Link(path, seed).transfer() for seed in (1, 2, 3))[1]


@pytest.mark.parametrize("path", [LOCAL, WIDE], ids=["local", "wide"])
def test_a_path_that_reorders(path):
    """A quarter of the packets 2 to 4 ms late makes a transfer at most twice as long, on any round trip."""
    plain, reordered = seconds(path), seconds(attrs.evolve(path, reorder=0.25, by=(0.002, 0.004)))
    print(f"\nin order: {plain:.3f} s, a quarter late: {reordered:.3f} s")
    assert reordered < 2 * plain


def test_a_path_that_reorders_by_a_round_trip():
    """Delays of up to a round trip are waited for, too."""
    plain, reordered = seconds(WIDE), seconds(attrs.evolve(WIDE, reorder=0.25, by=(0.01, 0.02)))
    print(f"\nin order: {plain:.3f} s, a quarter late: {reordered:.3f} s")
    assert reordered < 2 * plain


def test_losses_that_are_real_cost_what_they_did():
    """With 5 % of the packets lost, the window is halved as RFC 9002 says, and reordering on top costs no more."""
    lossy = seconds(attrs.evolve(WIDE, loss=0.05))
    both = seconds(attrs.evolve(WIDE, loss=0.05, reorder=0.25, by=(0.002, 0.004)))
    print(f"\nlost: {lossy:.3f} s, lost and late: {both:.3f} s")
    assert both < 1.5 * lossy


class Flight:
    """A packet for each of some writes of a client, which arrive when the test says so."""

    def __init__(self, pair: Pair, count: int) -> None:
        self.pair = pair
        stream_id = pair.open(unidirectional=True)
        assert stream_id is not None
        self.packets = []
        for _ in range(count):
            pair.client.stream_write(stream_id, bytes(100), False)
            while not (datagrams := pair.client.datagrams_to_send(pair.now)):
                # It is paced.
                pair.now += 0.001
            self.packets += [data for data, _ in datagrams]
        assert len(self.packets) == count

    def arrive(self, *places: int) -> None:
        """Deliver some of them, and their acknowledgement."""
        for place in places:
            self.pair.server.receive_datagram_untrusted(self.packets[place], CLIENT, self.pair.now)
        self.pair.run(3)


@pytest.fixture
def pair():
    pair = Pair()
    pair.run()
    return pair


def test_a_loss_that_was_none(pair):
    """When the packet arrives after all, the window and its threshold are what they were, and the next one waits."""
    recovery = quic_of(pair.client)._loss
    window = recovery.congestion_window
    flight = Flight(pair, 8)
    flight.arrive(*range(1, 8))
    assert recovery.congestion_window < window
    assert recovery._cc.ssthresh is not None
    flight.arrive(0)
    assert recovery.congestion_window >= window
    assert recovery._cc.ssthresh is None
    assert recovery.spurious == 1
    # The last of those after it was seven packets later.
    assert recovery.packet_threshold > 7
    Flight(pair, 8).arrive(*range(1, 8))
    assert recovery._cc.ssthresh is None


def test_two_losses_of_which_one_was_none(pair):
    """A reduction stands when one of its packets was lost."""
    recovery = quic_of(pair.client)._loss
    flight = Flight(pair, 8)
    flight.arrive(*range(2, 8))
    reduced = recovery.congestion_window
    flight.arrive(0)
    assert recovery.spurious == 1
    assert recovery._cc.ssthresh == reduced
    pair.run(200)
    Flight(pair, 1).arrive(0)
    assert recovery._reductions == []
    assert recovery._suspects == {}
    assert recovery._cc.ssthresh == reduced


def test_a_path_that_reorders_no_more(pair):
    """After losses that all were real, packets are waited for no longer than at the start."""
    recovery = quic_of(pair.client)._loss
    flight = Flight(pair, 8)
    flight.arrive(*range(1, 8))
    flight.arrive(0)
    assert recovery.patience > 0
    for _ in range(_LOSSES_TO_FORGET):
        assert recovery.packet_threshold > 7
        Flight(pair, 10).arrive(*range(1, 10))
        pair.run(200)
        Flight(pair, 1).arrive(0)
    assert recovery.packet_threshold == K_PACKET_THRESHOLD
    assert recovery.patience == 0


def test_a_late_packet_is_acknowledged():
    """A packet that comes after an ACK frame was written is in a later one, though that frame was acknowledged."""
    received = ReceivedPackets()
    for number in (0, 1, 3, 4):
        received.add(number)
    received.add(2)
    assert received.not_in(4) == [2]
    received.add(5)
    # Acknowledged: a frame with number 5 was written when 2 was there.
    assert received.not_in(5) == []
    assert received.not_in(4) == []


def test_packets_that_came_twice():
    """A number counts as received once it came, and when it is so far below the largest that nobody knows."""
    chance = random.Random(3)
    received, numbers, largest = ReceivedPackets(), set(), -1
    for _ in range(5000):
        number = max(0, largest + chance.choice([1, 1, 1, 2, 5, -3, -200, -1100, 700]))
        assert (number in received) == (number in numbers or number <= largest - _NUMBERS_KEPT)
        received.add(number)
        numbers.add(number)
        largest = max(largest, number)
    assert len(received._late) <= _NUMBERS_KEPT
