"""Many streams with something to send: what a packet costs, and in which order they are served."""

from __future__ import annotations

from moqt_trio.limits import Limits
from tests.api.instructions import InstructionCounter
from tests.transport.test_aioquic_contract import CLIENT, Pair, quic_of

LIMITS = Limits(max_streams=4096, connection_window=64 * 1024 * 1024)


def writing(count: int, size: int) -> Pair:
    """Return a pair whose client has written on so many streams; its congestion window takes all of it."""
    pair = Pair(LIMITS)
    quic_of(pair.client)._loss._cc.congestion_window = 64 * 1024 * 1024
    for _ in range(count):
        stream_id = pair.open(unidirectional=True)
        assert stream_id is not None
        pair.client.stream_write(stream_id, bytes(size), True)
    return pair


def flush_all(pair: Pair) -> list[bytes]:
    """Return the packets of all flushes until nothing is left to send."""
    sent = []
    for _ in range(100_000):
        # Pacing is for the network; here its time passes between two flushes.
        pair.now += 0.01
        datagrams = pair.client.datagrams_to_send(pair.now)
        sent += [data for data, _ in datagrams]
        if not (pair.client.unfinished or datagrams):
            return sent
    raise AssertionError("the flushes do not end")


def test_a_packet_among_many_streams():
    """It costs the same with tenfold as many streams that have something to send."""
    costs = []
    for count in (400, 4000):
        pair = writing(count, 100)
        with InstructionCounter() as counter:
            sent = flush_all(pair)
        assert not quic_of(pair.client).active
        costs.append(counter.count // len(sent))
    assert costs[1] <= 1.5 * costs[0], costs


def test_every_stream_has_its_turn():
    """Streams take turns: none is served for the third time before each has been served once."""
    pair = writing(500, 5000)
    turns: dict[int, int] = {}
    for data in flush_all(pair):
        before = len(pair.server_handler.calls)
        pair.server.receive_datagram_untrusted(data, CLIENT, pair.now)
        pair.server.deliver_events()
        for stream_id in {call[1] for call in pair.server_handler.calls[before:] if call[0] == "data"}:
            turns[stream_id] = turns.get(stream_id, 0) + 1
            assert turns[stream_id] < 3 or len(turns) == 500
    delivered = sum(len(call[2]) for call in pair.server_handler.calls if call[0] == "data")
    assert delivered == 500 * 5000
