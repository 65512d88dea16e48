"""What the QUIC engine relies on in aioquic to send: its packets, their pace, and which streams it visits."""

from __future__ import annotations

import inspect

import pytest
from aioquic.quic.congestion.reno import RenoCongestionControl
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder
from aioquic.quic.recovery import (
    K_PACKET_THRESHOLD,
    K_TIME_THRESHOLD,
    QuicPacketNumberWindow,
    QuicPacketPacer,
    QuicPacketRecovery,
    QuicPacketSpace,
)
from aioquic.tls import Epoch

from moqt_trio.limits import Limits
from moqt_trio.transport.quic.aioquic.pacer import FLUSH_PACKETS, PACER_BURST
from moqt_trio.transport.quic.aioquic.patched import ACK_ONLY_PACKETS
from tests.transport.engine_pair import Pair, quic_of, stock


def test_the_pacer_is_replaced():
    """The pacer is the one that was measured, and its bucket holds two milliseconds once a rate is known."""
    assert type(stock()._loss._pacer) is QuicPacketPacer
    pacer = quic_of(Pair().client)._loss._pacer
    pacer.update_rate(100_000, 0.001)
    assert pacer.bucket_max == PACER_BURST


def test_a_flush_starts_no_empty_packet(monkeypatch):
    """A flush ends with its last packet; it is not for pacing that it ended, so no timer is set for more."""
    pair = Pair()
    pair.run()
    started = []
    start = QuicPacketBuilder.start_packet
    monkeypatch.setattr(QuicPacketBuilder, "start_packet", lambda *arguments: (started.append(1), start(*arguments))[1])
    stream = pair.open(unidirectional=True)
    assert stream is not None
    pair.client.stream_write(stream, bytes(100), True)
    assert len(pair.client.datagrams_to_send(pair.now)) == len(started) == 1
    assert not pair.client.has_work(pair.now)
    assert quic_of(pair.client)._pacing_at is None


def test_a_flush_is_bounded():
    """A flush makes `FLUSH_PACKETS` packets at most and says that there is more; the next ones go on at once."""
    pair = Pair()
    pair.run()
    quic_of(pair.client)._loss._cc.congestion_window = 10**6
    stream = pair.open(unidirectional=True)
    assert stream is not None
    pair.client.stream_write(stream, bytes(50_000), True)
    sizes = []
    while not sizes or pair.client.unfinished:
        sizes.append(len(pair.client.datagrams_to_send(pair.now)))
    assert sizes[0] == FLUSH_PACKETS
    assert 0 < sizes[-1] < FLUSH_PACKETS
    assert pair.client.send_state()[2] == 0
    assert pair.client.datagrams_to_send(pair.now) == []


def test_many_small_streams_share_packets():
    """Streams that do not fit the first packet follow in the next ones; each arrives whole, and none is left over."""
    pair = Pair()
    pair.run()
    sent = {}
    for number in range(40):
        stream = pair.open(unidirectional=True)
        assert stream is not None
        sent[stream] = bytes([number]) * (50 + number)
        pair.client.stream_write(stream, sent[stream], True)
    pair.run()
    arrived: dict[int, bytes] = {}
    for kind, *values in pair.server_handler.calls:
        if kind == "data":
            arrived[values[0]] = arrived.get(values[0], b"") + values[1]
    assert arrived == sent
    assert ("data", stream, sent[stream], True) in pair.server_handler.calls
    assert pair.client.send_state()[2] == 0
    assert not quic_of(pair.client).active


def test_only_streams_with_work_are_visited():
    """Open streams with nothing to send are on no list that is walked for each packet."""
    pair = Pair()
    for _ in range(100):
        stream_id = pair.open(unidirectional=True)
        assert stream_id is not None
        pair.client.stream_write(stream_id, b"x", False)
    pair.run()
    quic = quic_of(pair.client)
    assert len(quic._streams) == 100
    assert not quic.active
    assert not list(quic._streams.values())
    assert not quic.has_work(pair.now)


@pytest.mark.parametrize("credit", ["stream", "connection"])
def test_streams_without_credit_are_not_visited(credit):
    """Streams with data that the peer's credit holds up cost the others nothing, and go on once there is credit."""
    window = {"stream_window": 100} if credit == "stream" else {"connection_window": 2000}
    pair = Pair(server_limits=Limits(**window))
    quic = quic_of(pair.client)
    ids = [pair.open(unidirectional=True) for _ in range(40)]
    for stream_id in ids:
        pair.client.stream_write(stream_id, bytes(200), True)
    pair.run()
    assert not quic.active
    assert not quic.has_work(pair.now)
    arrived = [call for call in pair.server_handler.calls if call[0] == "data"]
    assert sum(len(call[2]) for call in arrived) == (4000 if credit == "stream" else 2000)
    # One that is given up all the same ends.
    pair.client.stream_reset(ids.pop(), 5)
    ended: set[int] = set()
    for _ in range(60):
        for _, stream_id, data, fin in arrived:
            pair.server.stream_consumed(stream_id, len(data))
            ended |= {stream_id} if fin else set()
        pair.server_handler.calls.clear()
        pair.run(2)
        arrived = [call for call in pair.server_handler.calls if call[0] == "data"]
    assert ended == set(ids)
    assert [*quic._streams, *quic.active, *quic.waiting] == []


def test_room_in_a_send_buffer_is_reported_once():
    """A stream that is watched is reported when the peer has acknowledged enough, and not after a reset."""
    pair = Pair()
    pair.client.send_high = 3000
    ids = [pair.open(unidirectional=True), pair.open(unidirectional=True)]
    for stream_id in ids:
        pair.client.stream_write(stream_id, bytes(3000), False)
        pair.client.stream_watch(stream_id)
    pair.client.stream_reset(ids[1], 5)
    pair.run()
    assert [call for call in pair.client_handler.calls if call[0] == "room"] == [("room", ids[0])]


RECEIVED = 3000
"""Datagrams that one side only receives: twelve seconds of voice, one each 4 ms."""


def kept(engine) -> int:
    """Return the entries of the table of sent packets."""
    return sum(len(space.sent_packets) for space in quic_of(engine)._loss.spaces)


@pytest.mark.parametrize("frames", ["datagrams", "stream"])
def test_a_side_that_only_receives_keeps_few_packets(frames):
    """Of the packets that it sent, which had nothing but acknowledgements in them, it keeps below 100."""
    pair = Pair()
    stream = pair.open(unidirectional=True)
    assert stream is not None
    most = 0
    for _ in range(RECEIVED):
        if frames == "datagrams":
            assert pair.client.send_datagram(bytes(80))
        else:
            pair.client.stream_write(stream, bytes(12), False)
        pair.run(turns=2)
        most = max(most, kept(pair.server), kept(pair.client))
    assert most < 100
    assert pair.server.termination is None


def test_a_peer_that_acknowledges_nothing():
    """A peer that sends, and acknowledges not even a PING, makes this side keep below 100 packets, too."""
    pair = Pair()
    space = quic_of(pair.client)._spaces[Epoch.ONE_RTT]
    most = 0
    for _ in range(RECEIVED):
        assert pair.client.send_datagram(bytes(80))
        space.ack_at = None
        pair.run(turns=2)
        most = max(most, kept(pair.server))
    assert ACK_ONLY_PACKETS < most < 100
    assert pair.server.termination is None


def test_parts_of_recovery():
    """Recovery, its spaces and the congestion controller have the parts that are used and replaced."""
    quic = stock()
    assert type(quic._loss) is QuicPacketRecovery
    assert type(quic._loss._cc) is RenoCongestionControl
    for name in ("_cc", "_rtt_initial", "_rtt_initialized", "_rtt_latest", "_rtt_smoothed", "get_probe_timeout"):
        assert hasattr(quic._loss, name), name
    for name in ("congestion_window", "ssthresh", "_congestion_recovery_start_time"):
        assert hasattr(quic._loss._cc, name), name
    parameters = {
        "on_ack_received": ["ack_rangeset", "ack_delay", "now", "space"],
        "_detect_loss": ["now", "space"],
        "_in_persistent_congestion": ["packets"],
        "_on_packets_lost": ["congestion_event", "now", "packets", "persistent_congestion", "space"],
    }
    for name, expected in parameters.items():
        assert list(inspect.signature(getattr(QuicPacketRecovery, name)).parameters)[1:] == expected, name
    assert (K_PACKET_THRESHOLD, K_TIME_THRESHOLD) == (3, 9 / 8)
    space = QuicPacketSpace()
    assert type(space.received_packets) is QuicPacketNumberWindow
    assert {name for name in vars(QuicPacketNumberWindow) if not name.startswith("_")} == {"add"}
    for name in ("ack_queue", "is_application_data", "largest_acked_packet", "loss_time", "sent_packets"):
        assert hasattr(space, name), name


def test_what_upstream_forgets():
    """When an ACK frame is acknowledged, upstream forgets also late numbers; once it does not, ours can go."""
    parameters = ["delivery", "space", "highest_acked"]
    assert list(inspect.signature(QuicConnection._on_ack_delivery).parameters)[1:] == parameters
    space = QuicPacketSpace()
    space.ack_queue.add(7)
    space.ack_queue.add(3)
    stock()._on_ack_delivery(QuicDeliveryState.ACKED, space, 7)
    assert len(space.ack_queue) == 0
    pair = Pair()
    pair.run()
    server = quic_of(pair.server)
    ours = server._spaces[Epoch.ONE_RTT]
    largest = ours.largest_received_packet + 5
    for number in (largest, largest - 2):
        ours.ack_queue.add(number)
        ours.received_packets.add(number)
    server._on_ack_delivery(QuicDeliveryState.ACKED, ours, largest)
    assert list(ours.ack_queue) == [range(largest - 2, largest - 1)]
