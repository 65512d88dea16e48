"""Streams with a prefix that are reset, for a peer that does not take RESET_STREAM_AT."""

from __future__ import annotations

import inspect
from random import Random

import pytest
from aioquic.quic.stream import QuicStreamSender

from moqt_trio.limits import Limits
from tests.transport.engine_pair import CLIENT, Pair, quic_of
from tests.transport.test_reset_at import CODE, PREFIX, Recorder, frame
from tests.transport.test_reset_at import TestSending as Sending

sending = Sending()


@pytest.fixture
def plain(monkeypatch) -> Pair:
    """Two engines whose streams record resets; the client was told that the server takes no RESET_STREAM_AT."""
    monkeypatch.setattr("tests.transport.engine_pair.Handler", Recorder)
    pair = Pair(Limits(stream_window=4096, connection_window=8192))
    quic_of(pair.client).takes_reset_at = False
    return pair


def arrived(pair: Pair, stream: int) -> tuple[bytes, list[int]]:
    """Return the bytes of a stream that the server has got, and the codes of its resets."""
    content, resets = sending.arrived(pair, stream)
    return content, [call[2] for call in resets]


@pytest.mark.parametrize("fin", [False, True])
@pytest.mark.parametrize("written", [b"", b"d" * 3000])
def test_at_once(plain, written, fin):
    """A stream that is reset before its first packet sends its prefix, and once that is acknowledged its reset."""
    stream = sending.open(plain)
    plain.client.stream_write(stream, written, fin)
    plain.client.stream_reset(stream, CODE)
    packets = sending.send(plain)
    sending.receive(plain, packets)
    assert arrived(plain, stream) == (PREFIX, [])
    plain.run()
    assert arrived(plain, stream) == (PREFIX, [CODE])
    sending.settled(plain, stream)


def test_the_packet_of_the_prefix_is_lost(plain):
    """The prefix is sent again, and the reset waits for it."""
    stream = sending.open(plain)
    plain.client.stream_write(stream, b"d" * 800, False)
    assert len(sending.send(plain)) == 1
    plain.client.stream_reset(stream, CODE)
    assert sending.send(plain) == []
    sending.recover(plain)
    assert arrived(plain, stream) == (PREFIX, [CODE])
    sending.settled(plain, stream)


def test_a_prefix_that_has_arrived(plain):
    """Nothing waits once the prefix was acknowledged: the reset leaves at once."""
    stream = sending.open(plain)
    plain.run()
    plain.client.stream_reset(stream, CODE)
    sending.receive(plain, sending.send(plain))
    assert arrived(plain, stream) == (PREFIX, [CODE])


@pytest.mark.parametrize("seed", range(10))
def test_a_lossy_link(plain, seed):
    """With a third of all packets lost, no reset is there before its prefix, and nothing is left."""
    random = Random(seed)
    streams = [sending.open(plain) for _ in range(30)]
    for stream in streams:
        plain.client.stream_write(stream, b"d" * random.randrange(200), False)
        plain.client.stream_reset(stream, CODE + stream)
    sending.exchange_with_loss(plain, random, 80)
    sending.recover(plain)
    for stream in streams:
        calls = [call for call in plain.server_handler.calls if call[0] in ("data", "reset") and call[1] == stream]
        assert [call[0] for call in calls][-1] == "reset"
        assert arrived(plain, stream) == (PREFIX, [CODE + stream])
        sending.settled(plain, stream)


def test_without_credit_for_the_stream(plain):
    """A peer that grants no credit for the prefix gets the reset at once: nothing is kept for it."""
    quic_of(plain.client)._remote_max_stream_data_uni = 2
    stream = sending.open(plain)
    plain.client.stream_reset(stream, CODE)
    plain.run()
    assert arrived(plain, stream) == (b"", [CODE])
    sending.settled(plain, stream)


@pytest.mark.parametrize("reset", [False, True])
def test_stopped(plain, reset):
    """STOP_SENDING is answered at once, and ends the waiting of a reset."""
    stream = sending.open(plain, unidirectional=False)
    lost = sending.send(plain)
    assert lost
    if reset:
        plain.client.stream_reset(stream, CODE)
    sending.read(plain, frame(0x05, stream, 9))
    plain.client.deliver_events()
    for packet in sending.send(plain):
        plain.server.receive_datagram_untrusted(packet, CLIENT, plain.now)
    plain.server.deliver_events()
    assert arrived(plain, stream) == (b"", [CODE if reset else 9])


def test_what_upstream_counts():
    """What was acknowledged from the start of a stream is before `_buffer_start`."""
    assert "self._buffer_start += size" in inspect.getsource(QuicStreamSender.on_data_delivery)
