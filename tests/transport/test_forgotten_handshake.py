"""An established connection keeps nothing of its handshake, nor what it never uses, and treats packets as before."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable

import pytest
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoContext, CryptoPair
from aioquic.quic.packet import QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream, QuicStreamReceiver, QuicStreamSender
from aioquic.tls import Context, Epoch, KeySchedule

from moqt_trio.transport.quic.aioquic.packets import AioquicFactory
from moqt_trio.transport.quic.aioquic.patched import PatchedConnection
from tests.transport.quic_pair import client_settings, server_settings
from tests.transport.test_aioquic_contract import CLIENT, SERVER, Handler, Pair, quic_of

UNEXPECTED_MESSAGE = 0x100 + 10
"""The alert of RFC 8446, section 6, as QUIC carries it (RFC 9001, section 4.8)."""


def packet_with(
    quic: QuicConnection, write: Callable[[QuicPacketBuilder], None], keys: CryptoPair | None = None
) -> bytes:
    """Return a packet that a connection sends next, with these frames."""
    builder = QuicPacketBuilder(
        host_cid=quic.host_cid,
        is_client=quic._is_client,
        max_datagram_size=1200,
        packet_number=quic._packet_number,
        peer_cid=quic._peer_cid.cid,
        version=quic._version,
    )
    kind = QuicPacketType.ONE_RTT if keys is None else QuicPacketType.HANDSHAKE
    builder.start_packet(kind, keys or quic._cryptos[Epoch.ONE_RTT])
    write(builder)
    datagrams, _ = builder.flush()
    quic._packet_number = builder.packet_number
    return datagrams[0]


def crypto_frame(builder: QuicPacketBuilder) -> None:
    """Write a CRYPTO frame with the beginning of a message."""
    buf = builder.start_frame(QuicFrameType.CRYPTO, capacity=16)
    buf.push_uint_var(0)
    buf.push_uint_var(1)
    buf.push_bytes(b"\x18")


def parts_of(quic: QuicConnection, kind: type) -> list[object]:
    """Return the objects of a kind that a connection holds, at whatever depth."""
    seen: dict[int, object] = {}
    new: list[object] = [quic._cryptos, quic._cryptos_initial, quic._spaces, quic._loss, quic._crypto_streams, quic]
    while new:
        item = new.pop()
        if id(item) not in seen and not inspect.ismodule(item) and not isinstance(item, type | Handler):
            seen[id(item)] = item
            new.extend(gc.get_referents(item) if not inspect.isfunction(item) else ())
    return [item for item in seen.values() if type(item) is kind]


def test_parts_of_the_handshake():
    """A connection as it comes has the parts that are dropped, under the names by which they are dropped."""
    client = AioquicFactory().client(client_settings(), Handler())
    client.connect(SERVER, 0.0)
    quic = quic_of(client)
    assert set(quic._cryptos) == set(Epoch)
    assert len(quic._cryptos_initial) == 2
    assert set(quic._spaces) == set(quic._crypto_buffers) == set(quic._crypto_streams) == set(Epoch) - {Epoch.ZERO_RTT}
    assert quic._loss.spaces == list(quic._spaces.values())
    assert isinstance(quic.tls, Context)
    assert {"_setup_cb", "_teardown_cb"} <= vars(CryptoContext()).keys()
    assert list(inspect.signature(QuicConnection._handle_crypto_frame).parameters) == [
        "self", "context", "frame_type", "buf",
    ]  # fmt: skip


def test_nothing_is_kept_of_the_handshake():
    """Of each part that exists for each encryption level one is left, and of TLS nothing on the server's side."""
    pair = Pair()
    for engine in (pair.client, pair.server):
        quic = quic_of(engine)
        assert quic._handshake_confirmed
        assert [epoch for epoch, keys in quic._cryptos.items() if keys.send.is_valid()] == [Epoch.ONE_RTT]
        assert quic._loss.spaces == [quic._spaces[Epoch.ONE_RTT]]
    server = quic_of(pair.server)
    # The connection's own, and what all connections share in place of the rest.
    for kind, own, shared in ((CryptoPair, 1, 1), (CryptoContext, 2, 2), (QuicPacketSpace, 1, 1), (QuicStream, 0, 1)):
        assert len(parts_of(server, kind)) == own + shared, kind
    assert parts_of(server, Context) == parts_of(server, KeySchedule) == []


def test_data_after_the_handshake():
    """Both sides send and acknowledge as before, and update their keys."""
    pair = Pair()
    stream_id = pair.open(unidirectional=False)
    assert stream_id is not None
    pair.client.stream_write(stream_id, b"one", False)
    pair.run()
    quic_of(pair.client).request_key_update()
    pair.client.stream_write(stream_id, b"two", True)
    pair.run()
    data = [call[2] for call in pair.server_handler.calls if call[0] == "data"]
    assert b"".join(data) == b"onetwo"
    assert ("acknowledged", stream_id) in pair.client_handler.calls
    assert quic_of(pair.server)._cryptos[Epoch.ONE_RTT].key_phase == 1


@pytest.mark.parametrize("kind", ["initial", "handshake"])
def test_packets_of_the_handshake_that_come_late(kind):
    """They are dropped: nothing ends, and nothing is answered."""
    factory, now = AioquicFactory(), 0.0
    client = factory.client(client_settings(), Handler())
    client.connect(SERVER, now)
    first = client.datagrams_to_send(now)
    header = factory.parse_header_untrusted(first[0][0])
    assert header is not None
    server = factory.server(server_settings(), Handler(), header, None)
    sent = {"initial": [data for data, _ in first], "handshake": []}
    for data in sent["initial"]:
        server.receive_datagram_untrusted(data, CLIENT, now)
    server.deliver_events()
    for _ in range(20):
        now += 0.001
        for data, _ in server.datagrams_to_send(now):
            client.receive_datagram_untrusted(data, SERVER, now)
        client.deliver_events()
        for data, _ in client.datagrams_to_send(now):
            if data[0] & 0x80:
                sent["handshake"].append(data)
            server.receive_datagram_untrusted(data, CLIENT, now)
        server.deliver_events()
    quic = quic_of(server)
    assert not quic.handshake_kept
    assert sent[kind]
    received = quic._spaces[Epoch.ONE_RTT].largest_received_packet
    for data in sent[kind]:
        server.receive_datagram_untrusted(data, CLIENT, now)
        server.deliver_events()
    assert server.termination is None
    assert [data for data, _ in server.datagrams_to_send(now) if data[0] & 0x80] == []
    assert quic._spaces[Epoch.ONE_RTT].largest_received_packet == received


def test_a_message_of_tls_after_the_handshake():
    """A client has nothing left to say in TLS: a server ends the connection with `unexpected_message`."""
    pair = Pair()
    data = packet_with(quic_of(pair.client), crypto_frame)
    pair.server.receive_datagram_untrusted(data, CLIENT, pair.now)
    pair.server.deliver_events()
    assert pair.server.termination is not None
    assert (pair.server.termination.code, pair.server.termination.application) == (UNEXPECTED_MESSAGE, False)


def test_a_session_ticket():
    """A server may send a client tickets at any time; ours keeps none, and goes on."""
    pair = Pair()
    ticket = bytes.fromhex("04 00000f 00000e10 00000001 01 00 0001 aa 0000".replace(" ", ""))
    assert len(ticket) == 4 + 15

    def write(builder: QuicPacketBuilder) -> None:
        buf = builder.start_frame(QuicFrameType.CRYPTO, capacity=64)
        buf.push_uint_var(0)
        buf.push_uint_var(len(ticket))
        buf.push_bytes(ticket)

    server = quic_of(pair.server)
    pair.client.receive_datagram_untrusted(packet_with(server, write), SERVER, pair.now)
    pair.client.deliver_events()
    assert pair.client.termination is None
    receiver = quic_of(pair.client)._crypto_streams[Epoch.ONE_RTT].receiver
    assert receiver.starting_offset() == len(ticket)


def test_few_connection_ids():
    """Each side gives the other four ids, and asks for as many: `active_connection_id_limit` (RFC 9000, 18.2)."""
    pair = Pair()
    for engine in (pair.client, pair.server):
        quic = quic_of(engine)
        assert isinstance(quic, PatchedConnection)
        assert len(quic._host_cids) == 1 + len(quic._peer_cid_available) == 4
        assert quic._local_active_connection_id_limit == 4


def test_a_unidirectional_stream_has_one_half():
    """The half that it does not have is shared by all of them, and nothing ever changes it."""
    pair = Pair()
    for count in range(3):
        stream_id = pair.open(unidirectional=True)
        assert stream_id is not None
        pair.client.stream_write(stream_id, bytes(count), count == 1)
    pair.run()
    streams = list(dict.values(quic_of(pair.client)._streams))
    assert len(streams) == 2
    fresh = QuicStreamReceiver(None, readable=False)
    for stream in streams:
        assert stream.receiver is streams[0].receiver
        assert {**vars(stream.receiver), "_ranges": None} == {**vars(fresh), "_ranges": None}
    unused = QuicStreamSender(None, writable=False)
    theirs = list(dict.values(quic_of(pair.server)._streams))
    assert theirs
    for stream in theirs:
        assert stream.sender is theirs[0].sender
        ranges = dict.fromkeys(("_acked", "_pending"))
        assert {**vars(stream.sender), **ranges} == {**vars(unused), **ranges}
        assert len(stream.sender._acked) == len(stream.sender._pending) == 0
