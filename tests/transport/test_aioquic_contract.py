"""What the QUIC engine relies on in aioquic beyond its documented API. When one of these fails, upstream has moved."""

from __future__ import annotations

import gc
import importlib.metadata
import inspect
from weakref import ref

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import EPOCHS, Limit, QuicConnection, QuicConnectionAdapter, QuicConnectionState
from aioquic.quic.packet import PARAMS, QuicErrorCode
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.stream import QuicStream, QuicStreamReceiver, QuicStreamSender
from aioquic.tls import Context, SignatureAlgorithm

from moqt_trio.limits import Limits
from moqt_trio.transport.quic.aioquic.packets import AioquicFactory
from moqt_trio.transport.quic.stateless_reset import reset_token
from moqt_trio.transport.quic.steering import IdShare
from tests.transport.engine_pair import CLIENT, SERVER, Handler, Pair, quic_of, stock
from tests.transport.quic_pair import ALPN, IDENTITY, client_settings, server_settings


def test_version():
    """The pinned range is what was looked at."""
    assert importlib.metadata.version("aioquic").split(".")[:2] == ["1", "7"]


@pytest.mark.parametrize(
    "name",
    [
        "_ack_delay", "_ack_eliciting_sent_since_receipt", "_close_at",
        "_close_event", "_crypto_streams", "_datagrams_pending", "_events", "_handshake_complete",
        "_handshake_confirmed", "_handshake_done_pending", "_host_cid_seq", "_host_cids", "_is_client",
        "_local_initial_source_connection_id", "_local_max_data",
        "_local_max_streams_bidi", "_local_max_streams_uni", "_loss", "_max_datagram_size", "_network_paths",
        "_peer_cid", "_peer_cid_available",
        "_ping_pending", "_probe_pending", "_remote_max_datagram_frame_size", "_remote_max_idle_timeout",
        "_remote_max_data", "_remote_max_data_used", "_remote_max_streams_bidi", "_remote_max_streams_uni",
        "_retire_connection_ids", "_spaces", "_state", "_streams",
        "_streams_blocked_pending", "_streams_queue",
    ],
)  # fmt: skip
def test_private_attributes(name):
    """A connection has the attributes that the engine reads or replaces."""
    assert hasattr(stock(), name)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("_initialize", ["peer_cid"]),
        ("_replenish_connection_ids", []),
        ("_close_begin", ["is_initiator", "now"]),
        ("_write_application", ["builder", "network_path", "now"]),
        ("_write_connection_limits", ["builder", "space"]),
        ("_write_stream_limits", ["builder", "space", "stream"]),
        ("_on_connection_limit_delivery", ["delivery", "limit"]),
        ("_on_max_stream_data_delivery", ["delivery", "stream"]),
        ("_stream_limit", ["stream_id"]),
    ],
)
def test_overridden_methods(name, parameters):
    """The methods that the engine overrides or calls take what they took."""
    assert list(inspect.signature(getattr(QuicConnection, name)).parameters)[1:] == parameters


def test_stateless_reset():
    """Every id of a server has the token that its key gives; only that of the id in use ends the client."""
    pair = Pair()
    client, server = quic_of(pair.client), quic_of(pair.server)
    ids = {cid.cid: cid.stateless_reset_token for cid in server._host_cids}
    assert len(ids) == 4
    assert all(reset_token(server._reset_key, cid) == token for cid, token in ids.items())
    known = [client._peer_cid, *client._peer_cid_available]
    assert {cid.cid: cid.stateless_reset_token for cid in known} == ids
    for cid in known[1:]:
        pair.client.receive_datagram_untrusted(bytes([0x40, *bytes(24)]) + cid.stateless_reset_token, SERVER, pair.now)
    pair.client.deliver_events()
    assert pair.client.termination is None
    pair.client.receive_datagram_untrusted(bytes([0x40, *bytes(24)]) + ids[known[0].cid], SERVER, pair.now)
    pair.client.deliver_events()
    assert pair.client.termination is not None
    assert (pair.client.termination.by_peer, pair.client.termination.idle) == (True, False)
    assert pair.client.datagrams_to_send(pair.now) == []


def test_chosen_ids():
    """Every id of a server, the first and those that replace others, leads to the process that chose it."""
    pair = Pair(ids=IdShare(2, 3))
    client, server = quic_of(pair.client), quic_of(pair.server)
    chosen = {cid.cid for cid in server._host_cids}
    assert {cid[0] % 3 for cid in chosen} == {2}
    assert {cid.cid for cid in (client._peer_cid, *client._peer_cid_available)} == chosen
    assert len({cid[1:] for cid in chosen}) == 4
    assert pair.server.connection_id in chosen
    for _ in range(3):
        client.change_connection_id()
        pair.client_handler.flush_due = True
        pair.run()
    later = {cid.cid for cid in server._host_cids} - chosen
    assert len(later) == 3
    assert {cid[0] % 3 for cid in later} == {2}
    assert client._peer_cid.cid in chosen | later


def test_an_id_is_replaced_before_it_is_sent():
    """aioquic makes an id and only then writes it into a frame; the handshake's id is repeated in a parameter."""
    source = inspect.getsource(QuicConnection._replenish_connection_ids)
    assert "self._host_cids.append(" in source
    assert "sequence_number=self._host_cid_seq" in source
    assert "connection_id.cid" in inspect.getsource(QuicConnection._write_new_connection_id_frame)
    parameters = inspect.getsource(QuicConnection._serialize_transport_parameters)
    assert "initial_source_connection_id=self._local_initial_source_connection_id" in parameters


def test_reset_stream_at():
    """aioquic does not know the extension, and has the parts of which it is made; once it knows it, ours can go."""
    quic = stock()
    handlers = quic._QuicConnection__frame_handlers  # type: ignore[attr-defined]
    assert handlers[0x04] == (quic._handle_reset_stream_frame, EPOCHS("01"))
    assert 0x24 not in handlers
    assert not {0x1D, 0x17F7586D2CB571} & PARAMS.keys()
    parameters = {
        "_handle_reset_stream_frame": ["context", "frame_type", "buf"],
        "_assert_stream_can_receive": ["frame_type", "stream_id"],
        "_get_or_create_stream": ["frame_type", "stream_id"],
        "_serialize_transport_parameters": [],
        "_parse_transport_parameters": ["data", "from_session_ticket"],
        "_write_reset_stream_frame": ["builder", "stream"],
    }
    for name, expected in parameters.items():
        assert list(inspect.signature(getattr(QuicConnection, name)).parameters)[1:] == expected, name
    stream = QuicStream(stream_id=0)
    for name in ("_buffer_start", "_buffer_stop", "_buffer_fin", "_pending", "_pending_eof", "_reset_error_code"):
        assert hasattr(stream.sender, name)
    assert hasattr(stream.receiver, "_buffer_start")
    # A half that was reset asserts that nothing is taken from it; the prefix is, in spite of that.
    stream.sender.reset(1)
    with pytest.raises(AssertionError):
        stream.sender.get_frame(100)


def test_frames_of_the_peer():
    """Implicit streams are made in order, those from the first unused one; ids have what bounds their replacement."""
    pair = Pair()
    server = quic_of(pair.server)
    assert [cid.sequence_number for cid in server._host_cids] == list(range(4))
    assert server._highest_id_sent == 3
    source = inspect.getsource(QuicConnection._get_or_create_stream)
    assert "max_streams.used * 4 + stream_id % 4, stream_id + 4, 4" in source
    assert source.index("self._streams[new_stream_id] =") < source.index("self._streams_queue.append(stream)")
    assert source.index("self._streams_queue.append(stream)") < source.index("max_streams.used = stream_count")
    for name in (
        "_handle_retire_connection_id_frame", "_write_new_connection_id_frame", "_stream_is_discarded",
        "_handle_stream_data_blocked_frame", "_handle_max_stream_data_frame",
    ):  # fmt: skip
        assert name in QuicConnection.__dict__
    assert hasattr(server, "_remote_max_stream_data_bidi_local")
    # Once upstream makes no stream for a frame that brings nothing, ours can go.
    assert "_get_or_create_stream" in inspect.getsource(QuicConnection._handle_stream_data_blocked_frame)


def test_parts_of_streams():
    """Streams, their halves and the limits have the attributes that the engine uses."""
    stream = QuicStream(stream_id=0)
    assert isinstance(stream.receiver, QuicStreamReceiver)
    assert isinstance(stream.sender, QuicStreamSender)
    for name in ("_ranges", "highest_offset", "is_finished", "stop_pending", "starting_offset", "_stream_id"):
        assert hasattr(stream.receiver, name)
    assert type(stream.receiver._ranges) is RangeSet
    for name in ("_buffer", "_buffer_fin", "_reset_error_code", "buffer_is_empty", "is_finished", "reset_pending"):
        assert hasattr(stream.sender, name)
    assert stream.max_stream_data_local == 0
    limit = Limit(frame_type=0x10, name="x", value=5)
    assert (limit.value, limit.sent, limit.used) == (5, 5, 0)


def test_handshake_and_data_without_a_network():
    """Two engines negotiate on an application protocol and carry a stream each way, acknowledged and forgotten."""
    pair = Pair()
    assert ("handshake", ALPN) in pair.client_handler.calls
    assert ("handshake", ALPN) in pair.server_handler.calls
    stream_id = pair.open(unidirectional=False)
    assert stream_id == 0
    pair.client.stream_write(stream_id, b"question", True)
    pair.run()
    assert ("data", 0, b"question", True) in pair.server_handler.calls
    assert ("acknowledged", 0) in pair.client_handler.calls
    pair.server.stream_write(0, b"answer", True)
    pair.run()
    assert ("data", 0, b"answer", True) in pair.client_handler.calls
    assert ("released", 0) in pair.client_handler.calls
    assert ("released", 0) in pair.server_handler.calls
    assert not quic_of(pair.server)._streams


def test_credit_follows_consumption():
    """Neither window grows as bytes arrive; both grow as they are consumed."""
    pair = Pair(Limits(stream_window=8192, connection_window=32768))
    stream_id = pair.open(unidirectional=True)
    assert stream_id is not None
    pair.client.stream_write(stream_id, bytes(100_000), False)
    pair.run()

    def arrived() -> int:
        return sum(len(call[2]) for call in pair.server_handler.calls if call[0] == "data")

    assert arrived() == 8192
    pair.server.stream_consumed(stream_id, 8192)
    pair.run()
    assert arrived() == 16384
    assert quic_of(pair.server)._local_max_data.used == 16384


def test_stream_credit_follows_reading():
    """A stream that is over on the wire does not let the peer open another before it was read."""
    pair = Pair(Limits(max_streams=2))
    for _ in range(2):
        stream_id = pair.open(unidirectional=True)
        assert stream_id is not None
        pair.client.stream_write(stream_id, b"x", True)
    pair.run()
    assert not quic_of(pair.server)._streams
    assert pair.client.open_stream(unidirectional=True) is None
    for stream_id in (2, 6):
        pair.server.stream_done(stream_id)
    pair.run()
    assert pair.client.open_stream(unidirectional=True) == 10


def test_what_upstream_has_not_fixed():
    """When one of these stops holding, the patch for it can go."""
    quic = stock()
    with pytest.raises(IndexError):
        quic.datagrams_to_send(0.0)
    with pytest.raises(ValueError, match="unknown stream"):
        quic.stop_stream(0, 1)
    source = inspect.getsource(QuicConnection._write_stream_limits)
    assert "max_stream_data_local *= 2" in source
    assert "max_data.value *= 2" in inspect.getsource(QuicConnection._write_connection_limits)


def test_the_end_is_known_at_once():
    """A close shows on both sides as soon as its packet was sent and received, who closed included."""
    pair = Pair()
    pair.server.close(0x42, "enough")
    assert pair.server.termination is not None
    pair.run(2)
    ours, theirs = pair.server.termination, pair.client.termination
    assert theirs is not None
    assert (theirs.code, theirs.reason, theirs.application, theirs.by_peer) == (0x42, "enough", True, True)
    assert (ours.code, ours.by_peer, ours.idle) == (0x42, False, False)
    assert quic_of(pair.server)._state is QuicConnectionState.CLOSING


def test_a_released_connection_is_freed_at_once():
    """What a connection held goes when it is released; what a stream is still asked of it is answered."""
    pair = Pair()
    ids = [pair.open(unidirectional=False), pair.open(unidirectional=True)]
    for stream_id in ids:
        pair.client.stream_write(stream_id, bytes(5000), False)
    pair.run()
    pair.client.stream_write(ids[0], b"not acknowledged", False)
    pair.client.close(0, "enough")
    pair.client.datagrams_to_send(pair.now)
    quic, before = quic_of(pair.client), pair.client.statistics()
    parts = [ref(part) for part in (quic.tls, quic._loss, quic._streams[ids[0]], quic._streams[ids[0]].sender)]
    gc.disable()
    try:
        pair.client.release()
        assert [part() for part in parts] == [None] * len(parts)
    finally:
        gc.enable()
    pair.client.stream_write(ids[0], b"x", True)
    pair.client.stream_reset(ids[0], 1)
    pair.client.stream_stop(ids[0], 1)
    pair.client.stream_consumed(ids[0], 1)
    pair.client.stream_done(ids[0])
    pair.client.stream_watch(ids[0])
    assert (pair.client.stream_buffered(ids[0]), pair.client.stream_held_up(ids[0])) == (0, False)
    assert (pair.client.send_held, pair.client.send_full) == (0, False)
    assert pair.client.stream_room(ids[0]) == pair.client.send_high
    assert pair.client.statistics() == before
    assert (pair.client.established, pair.client.peer_datagram_limit) == (True, 65536)
    assert pair.client.termination is not None


def test_frame_handlers_are_made_as_they_are_needed():
    """A connection has handlers for the frames that came, those of the whole table, and refuses what is not in it."""
    pair = Pair()
    handlers = quic_of(pair.server)._QuicConnection__frame_handlers  # type: ignore[attr-defined]
    assert 0 < len(handlers) < 15
    for frame_type, (handler, epochs) in stock()._QuicConnection__frame_handlers.items():  # type: ignore[attr-defined]
        ours, allowed = handlers[frame_type]
        assert (ours.__self__, ours.__name__, allowed) == (quic_of(pair.server), handler.__name__, epochs)
    with pytest.raises(KeyError):
        handlers[0x21]


def test_idle_timeout_says_so():
    """Silence ends a connection with the text that the engine compares with."""
    pair = Pair(Limits(idle_timeout=1.0))
    pair.client.handle_timeout(pair.now + 10)
    assert pair.client.termination is not None
    assert pair.client.termination.idle
    assert pair.client.termination.code == QuicErrorCode.INTERNAL_ERROR


def test_a_retry_proves_the_address():
    """A token from a Retry is accepted from the address that it was made for, and from no other."""
    factory = AioquicFactory(IdShare(2, 3))
    handler = Handler()
    client = factory.client(client_settings(), handler)
    client.connect(SERVER, 0.0)
    header = factory.parse_header_untrusted(client.datagrams_to_send(0.0)[0][0])
    assert header is not None
    client.receive_datagram_untrusted(factory.retry(header, CLIENT, 0.0), SERVER, 0.0)
    second = client.datagrams_to_send(0.0)[0][0]
    again = factory.parse_header_untrusted(second)
    assert again is not None
    assert factory.check_token_untrusted(again, ("127.0.0.1", 99), 0.0) is None
    assert factory.check_token_untrusted(again, CLIENT, 1000.0) is None
    validated = factory.check_token_untrusted(again, CLIENT, 0.1)
    assert validated is not None
    assert validated.original_destination_id == header.destination_id
    assert validated.retry_source_id[0] % 3 == 2
    server = factory.server(server_settings(), Handler(), again, validated)
    server.receive_datagram_untrusted(second, CLIENT, 0.1)
    assert quic_of(server)._network_paths[0].is_validated
    assert IDENTITY.certificate is quic_of(server).configuration.certificate


@pytest.mark.parametrize(
    ("ours", "theirs", "effective"),
    [(30.0, 30.0, 30.0), (30.0, 4.0, 4.0), (4.0, 30.0, 4.0), (30.0, 0.0001, 30.0)],
    ids=["equal", "theirs", "ours", "theirs-is-0-which-is-none"],
)
def test_the_idle_timeout_is_the_smaller_one(ours, theirs, effective):
    """Each side's setting counts, and one of 0 counts as none (RFC 9000, sections 10.1 and 18.2)."""
    pair = Pair(Limits(idle_timeout=theirs), Limits(idle_timeout=ours))
    assert pair.server.idle_timeout == effective
    assert quic_of(pair.server)._idle_timeout() == pytest.approx(effective)


def test_signatures():
    """A TLS context has a list of the signatures that it accepts and a method for its own key; P-521 is in neither."""
    tls = Context(is_client=True)
    assert SignatureAlgorithm.ECDSA_SECP384R1_SHA384 in tls._signature_algorithms
    assert SignatureAlgorithm.ECDSA_SECP521R1_SHA512 not in tls._signature_algorithms
    source = inspect.getsource(Context._signature_algorithms_for_private_key)
    assert "SECP384R1" in source
    assert "SECP521R1" not in source


def test_logger():
    """A connection keeps its logger, an adapter whose methods all log through `log`, and gives it to its recovery."""
    connection = QuicConnection(configuration=QuicConfiguration(is_client=True))
    assert type(connection._logger) is QuicConnectionAdapter
    assert connection._loss._logger is connection._logger


def test_what_counts_as_heard():
    """aioquic clears the flag that `heard_at` goes by with packets that are authentic and new, and with no other."""
    pair = Pair()
    pair.run()
    pair.client.ping()
    ((packet, _),) = pair.client.datagrams_to_send(pair.now)
    for data, heard in ((b"\x40" + bytes(40), False), (packet, True), (packet, False)):
        pair.now += 1
        pair.server.receive_datagram_untrusted(data, CLIENT, pair.now)
        assert (pair.server.heard_at == pair.now) is heard
