"""The size of packets: what a path carries is found, and a path that carries less is noticed."""

from __future__ import annotations

import inspect

import attrs
import pytest
from aioquic.quic.congestion.reno import RenoCongestionControl
from aioquic.quic.connection import QuicConnection
from aioquic.tls import Epoch

from moqt_trio.limits import MIN_PACKET, Limits
from tests.transport.engine_pair import CLIENT, SERVER, Pair, quic_of, stock

BODY = 60_000


class Path(Pair):
    """Two engines with a path between them that drops what is too long.

    Attributes:
        carries: Bytes of the longest datagram that it carries.
        lost: How many it dropped.
        delay: Seconds that one way takes.
    """

    def __init__(self, carries: int, limits: Limits | None = None, server_limits: Limits | None = None) -> None:
        self.carries = carries
        self.lost = 0
        self.longest = 0
        self.delay = 0.001
        super().__init__(limits, server_limits)

    def run(self, turns: int = 40) -> None:
        for _ in range(turns):
            for here, there, address in ((self.server, self.client, SERVER), (self.client, self.server, CLIENT)):
                timeout = here.next_timeout()
                if timeout is not None and timeout <= self.now:
                    here.handle_timeout(self.now)
                here.deliver_events()
                for data, _ in here.datagrams_to_send(self.now):
                    self.longest = max(self.longest, len(data))
                    if len(data) > self.carries:
                        self.lost += 1
                    else:
                        there.receive_datagram_untrusted(data, address, self.now)
                there.deliver_events()
            self.now += self.delay

    def transfer(self, sender: str) -> float:
        """Send `BODY` bytes one way; return the seconds until the last has arrived."""
        here, ours, theirs = self.client, self.client_handler, self.server_handler
        if sender == "server":
            here, ours, theirs = self.server, theirs, ours
        stream_id = here.open_stream(unidirectional=True)
        assert stream_id is not None
        ours.stream(stream_id)
        here.stream_write(stream_id, bytes(BODY), True)
        began = self.now

        def arrived() -> int:
            return sum(len(call[2]) for call in theirs.calls if call[:2] == ("data", stream_id))

        while arrived() < BODY and self.now < began + 20:
            self.run(1)
        assert arrived() == BODY
        return self.now - began


def size(engine) -> int:
    """Return the size of the packets of an engine."""
    return quic_of(engine)._max_datagram_size


ROLES = pytest.mark.parametrize("sender", ["client", "server"])


def test_packets_grow_to_what_the_path_carries():
    """Both sides send packets of `max_packet` once one has arrived, and datagrams that fill them."""
    pair = Path(1500)
    assert size(pair.client) == size(pair.server) == Limits().max_packet == 1452
    assert pair.client.max_datagram_payload == 1452 - 30
    assert pair.lost == 0


@pytest.mark.parametrize("largest", [1200, 1300, 9000])
def test_the_size_is_a_limit(largest):
    """`max_packet` sets the largest size."""
    pair = Path(65535, Limits(max_packet=largest))
    pair.transfer("client")
    assert size(pair.client) == size(pair.server) == pair.longest == largest


@pytest.mark.parametrize("largest", [1199, 16385])
def test_a_size_that_no_packet_may_have(largest):
    """Less than every path carries, and more than a packet may have here, is refused."""
    with pytest.raises(ValueError, match=r"Limits\.max_packet must be in 1200 … 16384"):
        Limits(max_packet=largest)


def test_the_peer_limits_the_size(monkeypatch):
    """A peer that says how long a packet it takes is sent none that is longer (RFC 9000, section 18.2)."""
    serialize = QuicConnection._serialize_transport_parameters
    parameter = bytes.fromhex("03 02 4578")
    monkeypatch.setattr(QuicConnection, "_serialize_transport_parameters", lambda quic: serialize(quic) + parameter)
    pair = Path(1500)
    pair.transfer("client")
    assert size(pair.client) == size(pair.server) == pair.longest == 0x578 == 1400


@ROLES
@pytest.mark.parametrize("carries", [1200, 1252, 1400, 1451])
def test_a_path_that_drops_long_packets(carries, sender):
    """The handshake and all that follows goes through at once; nothing but probes is lost."""
    pair = Path(carries)
    assert pair.transfer(sender) < 1
    assert size(pair.client) == size(pair.server) == MIN_PACKET
    pair.run(3000)
    assert pair.lost <= 6
    window = quic_of(pair.client)._loss.congestion_window
    assert window >= 10 * MIN_PACKET


@ROLES
@pytest.mark.parametrize("delay", [0.001, 0.1])
def test_a_path_that_comes_to_carry_less(delay, sender):
    """Within two seconds packets have a size that it carries, and what was lost was sent again."""
    pair = Path(1500)
    pair.delay = delay
    pair.transfer(sender)
    pair.carries = 1300
    assert pair.transfer(sender) < 2 + BODY / (10 * MIN_PACKET) * 2 * delay
    assert size(pair.client if sender == "client" else pair.server) == MIN_PACKET


def test_long_packets_that_are_lost_among_short_ones():
    """Packets shrink also when short ones arrive all the time, so that no probe timeout fires."""
    pair = Path(1500)
    pair.carries = 1300
    stream_id = pair.open(unidirectional=True)
    assert stream_id is not None
    began = pair.now
    while size(pair.client) > MIN_PACKET:
        pair.client.send_datagram(bytes(1400))
        pair.client.send_datagram(bytes(100))
        pair.run(1)
        assert pair.now < began + 2
    # What waits and fits no packet any more does not hold up the rest.
    pair.client.send_datagram(bytes(100))
    pair.run(5)
    assert not quic_of(pair.client)._datagrams_pending


def test_a_loss_that_was_none_of_the_size():
    """After losses on a path that carries long packets they grow again."""
    pair = Path(1500)
    carries, pair.carries = pair.carries, 0
    stream_id = pair.open(unidirectional=True)
    assert stream_id is not None
    pair.client.stream_write(stream_id, bytes(BODY), True)
    pair.run(300)
    assert size(pair.client) == MIN_PACKET
    pair.carries = carries
    pair.run(3000)
    assert size(pair.client) == 1452
    assert ("acknowledged", stream_id) in pair.client_handler.calls
    # The next loss is counted from the start.
    assert "on_packet_acked" not in quic_of(pair.client)._loss._cc.__dict__


def test_a_search_is_repeated():
    """A path that carries more later is noticed, though not at once."""
    pair = Path(1300)
    pair.run(4000)
    assert size(pair.client) == MIN_PACKET
    assert pair.client.next_timeout() is not None
    pair.carries = 1500
    quic = quic_of(pair.client)
    assert 500 < quic.probe_at - pair.now < 700
    quic.probe_at = pair.now
    pair.run(5)
    assert size(pair.client) == 1452


def test_another_path_begins_small():
    """A client that moves is sent short packets until one of the long ones has arrived on its new path."""
    pair = Path(1500)
    pair.carries = 1300
    stream_id = pair.open(unidirectional=True)
    assert stream_id is not None
    pair.client.stream_write(stream_id, b"x", False)
    for data, _ in pair.client.datagrams_to_send(pair.now):
        pair.server.receive_datagram_untrusted(data, ("127.0.0.1", 99), pair.now)
    pair.server.deliver_events()
    assert size(pair.server) == MIN_PACKET


def moved(pair: Path, address: tuple[str, int]) -> None:
    """The client's next packet comes from another address."""
    pair.now += 0.001
    stream_id = pair.open(unidirectional=True)
    assert stream_id is not None
    pair.client.stream_write(stream_id, b"x", False)
    for data, _ in pair.client.datagrams_to_send(pair.now):
        pair.server.receive_datagram_untrusted(data, address, pair.now)
    pair.server.deliver_events()


def sends(pair: Path, size: int) -> int:
    """The server writes a stream; returns how many bytes of it are in flight at once."""
    stream_id = pair.server.open_stream(unidirectional=True)
    assert stream_id is not None
    pair.server_handler.stream(stream_id)
    pair.server.stream_write(stream_id, bytes(size), True)
    return sum(len(data) for data, _ in pair.server.datagrams_to_send(pair.now))


def test_another_host_begins_with_the_first_window():
    """Another host's path is unknown; another port is mostly a NAT's new mapping (RFC 9000, section 9.4)."""
    pair = Path(1500)
    sends(pair, 1_000_000)
    pair.run(300)
    loss = quic_of(pair.server)._loss
    window, rtt = loss.congestion_window, loss._rtt_smoothed
    assert window > 20 * MIN_PACKET
    assert rtt > 0
    moved(pair, ("127.0.0.1", 99))
    assert loss.congestion_window == window
    assert loss._rtt_smoothed == rtt
    sends(pair, 5_000)
    moved(pair, ("127.0.0.2", 99))
    assert loss.congestion_window == 10 * MIN_PACKET
    assert loss._cc.ssthresh is None
    assert not loss._rtt_initialized
    # What was sent before, wherever it is kept, neither opens nor shuts the new window.
    old = [packet for packet in quic_of(pair.server)._spaces[Epoch.ONE_RTT].sent_packets.values() if packet.in_flight]
    assert old
    for packet in old:
        loss._cc.bytes_in_flight += packet.sent_bytes
        loss._cc.on_packet_acked(now=pair.now, packet=packet)
    assert loss.congestion_window == 10 * MIN_PACKET
    # What arrives there is measured as on a new connection.
    sends(pair, 10_000)
    pair.run(300)
    assert loss._rtt_initialized
    assert loss._rtt_smoothed < 0.1


def test_a_peer_that_goes_back_and_forth():
    """A packet from the other of its addresses does not have a whole window sent again, each time."""
    pair = Path(1500)
    addresses = [("127.0.0.1", 99), ("127.0.0.2", 99)]
    for address in addresses:
        # Both are validated, so no limit holds of how much may be sent to an unknown address.
        moved(pair, address)
        pair.run(40)
    sends(pair, 2_000_000)
    pair.run(100)
    sent = 0
    for step in range(100):
        moved(pair, addresses[step % 2])
        sent += sum(len(data) for data, _ in pair.server.datagrams_to_send(pair.now))
    assert sent < 400_000


def test_parts_of_aioquic():
    """A connection and its congestion controller have the parts that are used and replaced."""
    quic = stock()
    assert type(quic._loss._cc) is RenoCongestionControl
    assert quic._loss._cc._max_datagram_size == quic._max_datagram_size == MIN_PACKET
    assert quic._loss._pacer._max_datagram_size == MIN_PACKET
    for name in ("_version", "_spin_bit", "_packet_number", "_cryptos", "_close_pending", "_confirm_handshake"):
        assert hasattr(quic, name)
    parameters = inspect.signature(QuicConnection._parse_transport_parameters).parameters
    assert list(parameters)[1:] == ["data", "from_session_ticket"]
    for name in ("on_packets_lost", "on_packets_expired", "on_packet_acked"):
        assert name in RenoCongestionControl.__dict__
    assert attrs.fields(Limits).max_packet.default == 1452
