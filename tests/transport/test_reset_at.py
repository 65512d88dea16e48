"""RESET_STREAM_AT (draft-ietf-quic-reliable-stream-reset-11): frames by hand for the receiving half, lost and reordered
packets for the sending half. Against another implementation: `tests/interop/test_webtransport_go.py`."""

from __future__ import annotations

from random import Random

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.connection import QuicConnection, QuicConnectionError, QuicReceiveContext
from aioquic.quic.packet import QuicErrorCode, pull_quic_transport_parameters
from aioquic.tls import Epoch

from moqt_trio import varint
from moqt_trio.limits import Limits
from moqt_trio.transport.quic.aioquic.reset_at import RESET_STREAM_AT
from tests.transport.engine_pair import CLIENT, SERVER, Handler, Pair, Stream, quic_of

CODE = 0x52E4A40FA8E0
FIRST = 2
"""The first unidirectional stream of a client."""
OF_THE_ISSUE = bytes.fromhex("24 06 c00052e4a40fa8e0 04 03")
"""What webtransport-go 0.13 sends for a stream that is reset before its first byte: stream 6, final size 4, reliable
size 3."""


class Resettable(Stream):
    """Records resets, and how many of the last bytes need not be read."""

    def deliver_reset(self, wire_code, droppable=None):
        self.calls.append(("reset", self.stream_id, wire_code, droppable))

    def deliver_stop(self, wire_code):
        self.calls.append(("stopped", self.stream_id, wire_code))


class Recorder(Handler):
    def stream(self, stream_id):
        return self.open.setdefault(stream_id, Resettable(self.calls, stream_id))


@pytest.fixture
def pair(monkeypatch):
    """Two engines whose streams record resets."""
    monkeypatch.setattr("tests.transport.engine_pair.Handler", Recorder)
    return Pair(Limits(stream_window=4096, connection_window=8192))


def frame(kind: int, *values: int) -> bytes:
    return varint.encode(kind) + b"".join(map(varint.encode, values))


def stream_frame(data: bytes, offset: int = 0, *, fin: bool = False, stream: int = FIRST) -> bytes:
    return frame(0x0E | fin, stream, offset, len(data)) + data


def reset_at(final: int, reliable: int, code: int = CODE, stream: int = FIRST) -> bytes:
    return frame(RESET_STREAM_AT, stream, code, final, reliable)


def reset(final: int, code: int = CODE) -> bytes:
    return frame(0x04, FIRST, code, final)


def context_of(quic: QuicConnection, now: float) -> QuicReceiveContext:
    """Return the context of a packet that a connection reads."""
    return QuicReceiveContext(
        epoch=Epoch.ONE_RTT, host_cid=quic.host_cid, network_path=quic._network_paths[0], quic_logger_frames=None,
        time=now, version=quic._version,
    )  # fmt: skip


def arrive(pair: Pair, *frames: bytes) -> list[tuple[object, ...]]:
    """Let the server read the payloads of packets, one after the other; return what its streams were called with."""
    server = quic_of(pair.server)
    del pair.server_handler.calls[:]
    for payload in frames:
        server._payload_received(context_of(server, pair.now), payload)
        pair.server.deliver_events()
    return [call for call in pair.server_handler.calls if call[0] in ("data", "reset")]


def data(content: bytes) -> tuple[object, ...]:
    return ("data", FIRST, content, False)


def was_reset(droppable: int, code: int = CODE) -> tuple[object, ...]:
    return ("reset", FIRST, code, droppable)


class TestReceiving:
    def test_after_the_bytes(self, pair):
        """Once the bytes below the reliable size are there, the reset is reported; those above may be dropped."""
        assert arrive(pair, stream_frame(b"abcdef"), reset_at(9, 4)) == [data(b"abcdef"), was_reset(2)]

    def test_before_the_bytes(self, pair):
        """A reset that overtakes bytes below the reliable size waits for them, in whatever order they come."""
        assert arrive(pair, reset_at(9, 4)) == []
        assert arrive(pair, stream_frame(b"cd", 2)) == []
        assert arrive(pair, stream_frame(b"ab")) == [data(b"abcd"), was_reset(0)]

    def test_the_frame_of_another_implementation(self, pair):
        """A frame as webtransport-go sends it is read, and the reset follows the three bytes of the prefix."""
        assert arrive(pair, OF_THE_ISSUE, stream_frame(b"\x40\x54\x00", stream=6)) == [
            ("data", 6, b"\x40\x54\x00", False),
            ("reset", 6, CODE, 0),
        ]

    def test_all_in_one_packet(self, pair):
        """Several streams in one packet, each with its frame before its bytes, are not mixed up."""
        first = reset_at(9, 1) + stream_frame(b"ab") + stream_frame(b"cd", 2)
        second = reset_at(2, 2, 7, stream=6) + stream_frame(b"xy", stream=6)
        calls = arrive(pair, first + second)
        assert [call for call in calls if call[1] == FIRST] == [data(b"abcd"), was_reset(3)]
        assert [call for call in calls if call[1] == 6] == [("data", 6, b"xy", False), ("reset", 6, 7, 0)]

    def test_all_of_the_stream_arrives(self, pair):
        """A stream that arrives whole after the frame was reset all the same, FIN or not."""
        assert arrive(pair, reset_at(4, 3), stream_frame(b"abcd", fin=True)) == [data(b"abcd"), was_reset(1)]

    def test_a_finished_stream(self, pair):
        """A stream whose FIN was delivered has ended with that."""
        ended = [("data", FIRST, b"abcd", True)]
        assert arrive(pair, stream_frame(b"abcd", fin=True), reset_at(4, 4)) == ended

    def test_a_lower_size(self, pair):
        """A further frame may lower the reliable size: the reset is due as soon as that much is there."""
        assert arrive(pair, stream_frame(b"ab"), reset_at(9, 4)) == [data(b"ab")]
        assert arrive(pair, reset_at(9, 3)) == []
        assert arrive(pair, reset_at(9, 2)) == [was_reset(0)]
        assert arrive(pair, reset_at(9, 4), reset_at(9, 2), reset(9), stream_frame(b"c", 2)) == []

    def test_a_higher_size(self, pair):
        """A further frame that raises the reliable size is an older one that was overtaken: it changes nothing."""
        assert arrive(pair, reset_at(9, 2), reset_at(9, 4), stream_frame(b"ab")) == [data(b"ab"), was_reset(0)]

    def test_a_plain_reset(self, pair):
        """RESET_STREAM is one with the reliable size 0: it waits for nothing, and ends the waiting."""
        assert arrive(pair, stream_frame(b"ab"), reset(9)) == [data(b"ab"), was_reset(2)]

    def test_a_plain_reset_after_it(self, pair):
        """RESET_STREAM after the frame gives up what was promised."""
        assert arrive(pair, stream_frame(b"ab"), reset_at(9, 4), reset(9)) == [data(b"ab"), was_reset(2)]
        assert not quic_of(pair.server).resets_awaited

    def test_size_zero(self, pair):
        """The reliable size 0 is RESET_STREAM."""
        assert arrive(pair, stream_frame(b"ab"), reset_at(9, 0)) == [data(b"ab"), was_reset(2)]

    @pytest.mark.parametrize("seed", range(50))
    def test_any_order(self, pair, seed):
        """Whatever the order, with repeats: the first bytes come in order, as far as the least size; then one reset."""
        random = Random(seed)
        content = bytes(random.randrange(256) for _ in range(40))
        sizes = sorted((random.randrange(41) for _ in range(random.randrange(1, 4))), reverse=True)
        frames = [reset_at(40, size) for size in sizes]
        start = 0
        while start < 40:
            end = min(40, start + random.randrange(1, 12))
            frames.append(stream_frame(content[start:end], start, fin=end == 40 and random.random() < 0.5))
            start = end
        # The least size always arrives, and all bytes below it; of the others, some are lost.
        kept = [each for each in frames if each == frames[len(sizes) - 1] or random.random() < 0.8]
        kept += [stream_frame(content[: sizes[-1]])] * bool(sizes[-1]) + random.choices(frames, k=5)
        random.shuffle(kept)
        *calls, last = arrive(pair, *kept)
        arrived = b"".join(call[2] for call in calls)
        assert all(call[0] == "data" for call in calls)
        assert content.startswith(arrived)
        if last[0] == "reset":
            assert len(arrived) >= sizes[-1]
            assert last[3] <= len(arrived) - sizes[-1]
        else:
            # All of the stream, FIN included, was there before any reset: that is an end, too.
            assert (arrived + last[2], last[3]) == (content, True)
        assert not quic_of(pair.server)._streams

    def test_credit(self, pair):
        """The final size counts against the connection's credit at once, and comes back with the reset."""
        server = quic_of(pair.server)
        window = server._local_max_data.value
        for number in range(4):
            stream = FIRST + 4 * number
            arrive(pair, reset_at(4000, 2, stream=stream))
            assert server._local_max_data.used == 4000 * (number + 1)
            arrive(pair, stream_frame(b"ab", stream=stream))
            # The application has read them.
            pair.server.stream_consumed(stream, 2)
            assert server._local_max_data.value + server._data_unreturned == window + 4000 * (number + 1)

    def test_the_stream_is_released(self, pair):
        """Nothing is kept of a stream that has ended so."""
        arrive(pair, reset_at(9, 2), stream_frame(b"ab"))
        assert ("released", FIRST) in pair.server_handler.calls
        assert not quic_of(pair.server)._streams
        assert not quic_of(pair.server).resets_awaited

    @pytest.mark.parametrize(
        ("frames", "error"),
        [
            ([reset_at(3, 4)], QuicErrorCode.FRAME_ENCODING_ERROR),
            ([reset_at(9, 4)[:-1]], QuicErrorCode.FRAME_ENCODING_ERROR),
            ([reset_at(9, 4), reset_at(8, 4)], QuicErrorCode.FINAL_SIZE_ERROR),
            ([reset_at(9, 4), reset(8)], QuicErrorCode.FINAL_SIZE_ERROR),
            ([reset_at(9, 4), stream_frame(b"ab", fin=True)], QuicErrorCode.FINAL_SIZE_ERROR),
            ([reset_at(9, 4), stream_frame(b"ab", 8)], QuicErrorCode.FINAL_SIZE_ERROR),
            ([stream_frame(b"abc"), reset_at(2, 2)], QuicErrorCode.FINAL_SIZE_ERROR),
            ([stream_frame(b"c", 2, fin=True), reset_at(4, 2)], QuicErrorCode.FINAL_SIZE_ERROR),
            ([reset_at(9, 4), reset_at(9, 4, CODE + 1)], QuicErrorCode.STREAM_STATE_ERROR),
            ([reset_at(9, 4), reset(9, CODE + 1)], QuicErrorCode.STREAM_STATE_ERROR),
            ([reset_at(4097, 4)], QuicErrorCode.FLOW_CONTROL_ERROR),
            ([reset_at(4096, 4, stream=2 + 4 * n) for n in range(3)], QuicErrorCode.FLOW_CONTROL_ERROR),
            ([reset_at(9, 4, stream=3)], QuicErrorCode.STREAM_STATE_ERROR),
            ([reset_at(9, 4, stream=1)], QuicErrorCode.STREAM_STATE_ERROR),
            ([reset_at(9, 4, stream=2 + 4 * 5000)], QuicErrorCode.STREAM_LIMIT_ERROR),
        ],
    )  # fmt: skip
    def test_refused(self, pair, frames, error):
        """What breaks the rules ends the connection, with the error that the drafts name."""
        arrive(pair, *frames[:-1])
        with pytest.raises(QuicConnectionError) as raised:
            arrive(pair, frames[-1])
        assert raised.value.error_code == error


PREFIX = b"abc"


class TestSending:
    """The peer is the receiving half above."""

    def open(self, pair: Pair, *, unidirectional: bool = True) -> int:
        stream = pair.open(unidirectional=unidirectional)
        assert stream is not None
        pair.client.stream_write(stream, PREFIX, False)
        pair.client.stream_keep_prefix(stream, len(PREFIX))
        return stream

    def read(self, pair: Pair, payload: bytes) -> None:
        """Lets the client read the payload of a packet."""
        quic = quic_of(pair.client)
        quic._payload_received(context_of(quic, pair.now), payload)

    def send(self, pair: Pair) -> list[bytes]:
        """Returns the packets that the client sends now."""
        return [packet for packet, _ in pair.client.datagrams_to_send(pair.now)]

    def receive(self, pair: Pair, packets: list[bytes]) -> None:
        for packet in packets:
            pair.server.receive_datagram_untrusted(packet, CLIENT, pair.now)
        pair.server.deliver_events()

    def exchange_with_loss(self, pair: Pair, random: Random, rounds: int) -> None:
        """Let both sides send and keep the time for so many rounds, of 20 ms each; a third of all packets is lost."""
        for _ in range(rounds):
            self.receive(pair, [packet for packet in self.send(pair) if random.random() < 2 / 3])
            for packet, _ in pair.server.datagrams_to_send(pair.now):
                if random.random() < 2 / 3:
                    pair.client.receive_datagram_untrusted(packet, SERVER, pair.now)
            pair.client.deliver_events()
            pair.now += 0.02
            pair.client.handle_timeout(pair.now)
            pair.server.handle_timeout(pair.now)

    def recover(self, pair: Pair) -> None:
        """Lets the client find out what was lost, and carries datagrams until both have settled."""
        for _ in range(10):
            timeout = pair.client.next_timeout()
            assert timeout is not None
            pair.now = max(pair.now, min(timeout, pair.now + 1))
            pair.run(10)

    def arrived(self, pair: Pair, stream: int) -> tuple[bytes, list[tuple[object, ...]]]:
        """Returns the bytes of a stream that the server has got, and its resets."""
        calls = [call for call in pair.server_handler.calls if call[0] in ("data", "reset") and call[1] == stream]
        return b"".join(call[2] for call in calls if call[0] == "data"), [call for call in calls if call[0] == "reset"]

    def settled(self, pair: Pair, stream: int) -> None:
        """Nothing is left of the stream on either side."""
        assert stream not in quic_of(pair.client)._streams
        assert stream not in quic_of(pair.server)._streams
        assert pair.client.send_state()[2] == 0
        assert not pair.client.has_work(pair.now)

    @pytest.mark.parametrize("written", [b"", b"d" * 3000])
    @pytest.mark.parametrize("fin", [False, True])
    def test_at_once(self, pair, written, fin):
        """A stream that is reset before its first packet, also after FIN, sends its prefix, without FIN, and nothing of
        what follows."""
        stream = self.open(pair)
        pair.client.stream_write(stream, written, fin)
        pair.client.stream_reset(stream, CODE)
        pair.run()
        assert self.arrived(pair, stream) == (PREFIX, [("reset", stream, CODE, 0)])
        self.settled(pair, stream)

    def test_the_packet_of_the_prefix_is_lost(self, pair):
        """A prefix that was lost is repeated after the reset, and nothing else of that packet."""
        stream = self.open(pair)
        pair.client.stream_write(stream, b"d" * 800, False)
        assert len(self.send(pair)) == 1
        pair.client.stream_reset(stream, CODE)
        self.receive(pair, self.send(pair))
        assert self.arrived(pair, stream) == (b"", [])
        assert quic_of(pair.server)._local_max_data.used == len(PREFIX) + 800
        self.recover(pair)
        assert self.arrived(pair, stream) == (PREFIX, [("reset", stream, CODE, 0)])
        self.settled(pair, stream)

    def test_the_packet_of_the_reset_is_lost(self, pair):
        """A reset that was lost is repeated."""
        stream = self.open(pair)
        self.receive(pair, self.send(pair))
        pair.client.stream_reset(stream, CODE)
        assert len(self.send(pair)) == 1
        self.recover(pair)
        assert self.arrived(pair, stream) == (PREFIX, [("reset", stream, CODE, 0)])
        self.settled(pair, stream)

    def test_reordered(self, pair):
        """A prefix that comes after its reset is delivered before it."""
        stream = self.open(pair)
        late = self.send(pair)
        pair.client.stream_reset(stream, CODE)
        self.receive(pair, self.send(pair))
        assert self.arrived(pair, stream) == (b"", [])
        self.receive(pair, late)
        assert self.arrived(pair, stream) == (PREFIX, [("reset", stream, CODE, 0)])
        pair.run()
        self.settled(pair, stream)

    @pytest.mark.parametrize("seed", range(20))
    def test_a_lossy_link(self, pair, seed):
        """With a third of all packets lost, each prefix and each reset arrives, and nothing is left."""
        random = Random(seed)
        streams = [self.open(pair) for _ in range(30)]
        for stream in streams:
            pair.client.stream_write(stream, b"d" * random.randrange(200), False)
            if random.random() < 0.5:
                self.receive(pair, [packet for packet in self.send(pair) if random.random() < 2 / 3])
            pair.client.stream_reset(stream, CODE + stream)
        self.exchange_with_loss(pair, random, 60)
        self.recover(pair)
        for stream in streams:
            content, resets = self.arrived(pair, stream)
            assert content[: len(PREFIX)] == PREFIX
            assert [call[:3] for call in resets] == [("reset", stream, CODE + stream)]
            self.settled(pair, stream)

    def test_without_credit(self, pair):
        """While the peer grants no credit for the prefix, the reset waits with it: its final size may not exceed it."""
        first = self.open(pair)
        second = self.open(pair)
        pair.client.stream_write(first, bytes(4096 - len(PREFIX)), False)
        pair.client.stream_write(second, bytes(4096 - len(PREFIX)), False)
        pair.run()
        third = self.open(pair)
        pair.client.stream_reset(third, CODE)
        pair.run()
        assert self.arrived(pair, third) == (b"", [])
        assert pair.server.termination is None
        pair.server.stream_consumed(first, 4096)
        pair.run()
        assert self.arrived(pair, third) == (PREFIX, [("reset", third, CODE, 0)])
        self.settled(pair, third)

    def test_without_credit_for_the_stream(self, pair):
        """The same goes for the credit of the stream: the prefix arrives in parts, as far as it reaches."""
        quic_of(pair.client)._remote_max_stream_data_uni = 2
        stream = self.open(pair)
        pair.client.stream_write(stream, b"d" * 800, False)
        pair.client.stream_reset(stream, CODE)
        pair.run()
        assert self.arrived(pair, stream) == (PREFIX[:2], [])
        self.read(pair, frame(0x11, stream, 400))
        pair.run()
        assert self.arrived(pair, stream) == (PREFIX, [("reset", stream, CODE, 0)])
        self.settled(pair, stream)

    def test_stopped_without_credit(self, pair):
        """STOP_SENDING is answered although the prefix has no credit, and ends the waiting of a reset."""
        first = self.open(pair)
        second = self.open(pair)
        pair.client.stream_write(first, bytes(4096 - len(PREFIX)), False)
        pair.client.stream_write(second, bytes(4096 - len(PREFIX)), False)
        pair.run()
        waiting = self.open(pair, unidirectional=False)
        pair.client.stream_reset(waiting, CODE)
        untouched = self.open(pair, unidirectional=False)
        for stream in (waiting, untouched):
            self.read(pair, frame(0x05, stream, 9))
        pair.client.deliver_events()
        pair.run()
        assert self.arrived(pair, waiting) == (b"", [("reset", waiting, CODE, 0)])
        assert self.arrived(pair, untouched) == (b"", [("reset", untouched, 9, 0)])

    def test_stopped(self, pair):
        """The answer to STOP_SENDING keeps the prefix, too."""
        stream = self.open(pair)
        pair.client.stream_write(stream, b"d" * 800, False)
        late = self.send(pair)
        self.receive(pair, late)
        del pair.server_handler.calls[:]
        pair.server.stream_stop(stream, 9)
        pair.run()
        assert self.arrived(pair, stream) == (b"", [("reset", stream, 9, 800)])
        self.settled(pair, stream)

    def test_no_prefix(self, pair):
        """A stream without a prefix is reset with RESET_STREAM: nothing of it needs to arrive."""
        stream = pair.open(unidirectional=True)
        assert stream is not None
        pair.client.stream_write(stream, b"abcdef", False)
        pair.client.stream_reset(stream, CODE)
        pair.run()
        assert self.arrived(pair, stream) == (b"", [("reset", stream, CODE, 0)])
        self.settled(pair, stream)

    def test_more_credit_after_a_reset(self, pair):
        """Credit that arrives for a stream that was reset counts no byte that will not be sent."""
        stream = self.open(pair)
        pair.client.stream_write(stream, bytes(20_000), False)
        pair.run()
        pair.client.stream_reset(stream, CODE)
        pair.server.stream_consumed(stream, 4096)
        pair.run()
        assert pair.client.send_state()[2] == 0
        self.settled(pair, stream)


class TestNegotiation:
    def test_both_sides_advertise(self, pair):
        """Client and server send the parameter under both numbers, without a value, and understand it."""
        for engine in (pair.client, pair.server):
            quic = quic_of(engine)
            assert quic.takes_reset_at
            parameters = quic._serialize_transport_parameters()
            assert parameters.endswith(bytes.fromhex("1d00 c017f7586d2cb571 00"))
            pull_quic_transport_parameters(Buffer(data=parameters))

    @pytest.mark.parametrize("number", [0x1D, 0x17F7586D2CB571])
    def test_one_number_is_enough(self, pair, number):
        """A peer that knows one of the numbers is understood, whatever stands before and after it."""
        quic = quic_of(pair.server)
        theirs = QuicConnection._serialize_transport_parameters(quic_of(pair.client))
        quic.takes_reset_at = False
        quic._parse_transport_parameters(theirs)
        assert not quic.takes_reset_at
        quic._parse_transport_parameters(frame(number, 0) + theirs + frame(0x7FFF, 1, 1))
        assert quic.takes_reset_at

    @pytest.mark.parametrize("number", [0x1D, 0x17F7586D2CB571])
    def test_a_value(self, pair, number):
        """A parameter with a value is TRANSPORT_PARAMETER_ERROR."""
        theirs = QuicConnection._serialize_transport_parameters(quic_of(pair.client))
        with pytest.raises(QuicConnectionError) as raised:
            quic_of(pair.server)._parse_transport_parameters(theirs + frame(number, 1, 1))
        assert raised.value.error_code == QuicErrorCode.TRANSPORT_PARAMETER_ERROR
