"""The private names of aioquic and hypercorn that HTTP/3 and WebTransport use."""

from __future__ import annotations

import inspect
from typing import ClassVar

import pylsqpack
from aioquic.h3.connection import H3Connection, H3Stream
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.events import StreamDataReceived
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.protocol import events
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import filter_pseudo_headers, valid_server_name


class Quic:
    """What H3Connection may ask of its transport; anything else is an AttributeError."""

    class configuration:
        is_client = False

    _quic_logger = None
    _remote_max_datagram_frame_size = 1200

    def __init__(self):
        self.sent = {}
        self.closed = None
        self.resets = []

    def get_next_available_stream_id(self, is_unidirectional=False):
        assert is_unidirectional
        stream_id = 4 * len(self.sent) + 3
        self.sent[stream_id] = b""
        return stream_id

    def send_stream_data(self, stream_id, data, end_stream=False):
        self.sent[stream_id] = self.sent.get(stream_id, b"") + data

    def reset_stream(self, stream_id, error_code):
        self.resets.append(stream_id)

    def close(self, error_code, reason_phrase=""):
        self.closed = error_code


class Probe(H3Connection):
    """Overrides what `codec.py` overrides, and notes whether it was called."""

    asked: ClassVar[list[str]] = []

    def _init_connection(self):
        self.asked.append("_init_connection")
        self.before = (self._max_table_capacity, self._blocked_streams, self._max_push_id, self._decoder)
        super()._init_connection()

    def _check_control_frame_type(self, frame_type):
        super()._check_control_frame_type(frame_type)
        self.frames = [*getattr(self, "frames", []), frame_type]

    def _get_local_settings(self):
        self.asked.append("_get_local_settings")
        return {0x6: 1000}


def test_aioquic_asks_for_its_settings_when_it_is_made():
    """H3Connection opens three streams and sends the settings of _get_local_settings in its constructor."""
    quic = Quic()
    probe = Probe(quic, enable_webtransport=True)
    assert probe.asked == ["_init_connection", "_get_local_settings"]
    assert quic.sent == {3: bytes.fromhex("00 04 03 06 43e8"), 7: b"\x02", 11: b"\x03"}
    assert probe.sent_settings == {0x6: 1000}
    assert isinstance(probe.before[3], pylsqpack.Decoder)
    assert probe._stream == {}


def test_aioquic_checks_the_type_of_control_frames():
    """`_check_control_frame_type` is called with each frame's type on the control stream, also of a GOAWAY, which it
    drops; it raises where SETTINGS are missing."""
    for data, types, closed in [("00 0400 0701 08 21021234 0701 04", [4, 7, 0x21, 7], None), ("00 0701 08", [], 0x10A)]:
        probe = Probe(quic := Quic(), enable_webtransport=True)
        event = StreamDataReceived(data=bytes.fromhex(data), end_stream=False, stream_id=2)
        assert probe.handle_event(event) == []
        assert (getattr(probe, "frames", []), quic.closed) == (types, closed)


def test_aioquic_keeps_its_streams_where_we_look():
    """`_stream` and `_get_or_create_stream` hold the state of each stream, with `buffer` and `sending_ended`."""
    probe = Probe(Quic(), enable_webtransport=True)
    with probe._get_or_create_stream(0) as state:
        assert isinstance(state, H3Stream)
        assert state.buffer == b""
        assert state.sending_ended is False
        assert state.receiving_ended is False
    assert probe._stream == {0: state}
    state.receiving_ended = True
    with probe._get_or_create_stream(0) as state:
        state.sending_ended = True
    assert probe._stream == {}


def test_aioquic_events():
    """Headers and data come as events with these fields."""
    assert {"headers", "stream_id", "stream_ended"} <= set(HeadersReceived.__dataclass_fields__)
    assert {"data", "stream_id", "stream_ended"} <= set(DataReceived.__dataclass_fields__)


def test_hypercorn_stream_takes_its_parts():
    """HTTPStream is made of an app, config, context, task group, flags, addresses, a send function and an id."""
    assert list(inspect.signature(HTTPStream).parameters) == [
        "app",
        "config",
        "context",
        "task_group",
        "ssl",
        "client",
        "server",
        "send",
        "stream_id",
    ]
    assert inspect.iscoroutinefunction(HTTPStream.handle)
    assert inspect.iscoroutinefunction(HTTPStream.app_send)
    assert ASGIHTTPState.REQUEST


async def test_hypercorn_stream_asks_the_task_group():
    """HTTPStream hands the scope and its app_send to the task group, and sends what the application says as events."""
    sent = []

    class Group:
        async def spawn_app(self, app, config, scope, send):
            assert (scope["type"], scope["path"], scope["query_string"]) == ("http", "/a", b"b")
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
            await send({"type": "http.response.body", "body": b"z"})
            await send(None)

    async def send(event):
        sent.append(event)

    stream = HTTPStream(None, Config(), WorkerContext(None), Group(), True, None, None, send, 4)
    assert stream.closed is False
    await stream.handle(
        events.Request(
            stream_id=4, headers=[(b"host", b"h")], http_version="3", method="GET", raw_path=b"/a?b", state={}
        )
    )
    assert sent == [
        events.Response(stream_id=4, headers=[(b"x", b"y")], status_code=200),
        events.Body(stream_id=4, data=b"z"),
        events.EndBody(stream_id=4),
        events.StreamClosed(stream_id=4),
        events.StreamClosed(stream_id=4),
    ]
    stream.closed = True
    sent.clear()
    await stream.app_send(None)
    assert sent == []


async def test_hypercorn_still_sends_an_illegal_field():
    """Hypercorn's own error answers carry `connection: close`; when that ends, so can the filter."""
    sent = []

    class Group:
        async def spawn_app(self, app, config, scope, send):
            await send(None)

    async def send(event):
        sent.append(event)

    stream = HTTPStream(None, Config(), WorkerContext(None), Group(), True, None, None, send, 4)
    await stream.handle(
        events.Request(stream_id=4, headers=[], http_version="3", method="GET", raw_path=b"/", state={})
    )
    assert sent[0].status_code == 500
    assert (b"connection", b"close") in sent[0].headers


def test_hypercorn_utilities():
    """The header, name and configuration functions do what is expected of them."""
    assert filter_pseudo_headers([(b":authority", b"a"), (b":path", b"/"), (b"x", b"y")]) == [
        (b"host", b"a"),
        (b"x", b"y"),
    ]
    request = events.Request(
        stream_id=0, headers=[(b"host", b"a")], http_version="3", method="GET", raw_path=b"/", state={}
    )
    config = Config()
    assert valid_server_name(config, request)
    config.server_names = ["b"]
    assert not valid_server_name(config, request)
    assert (b"server", b"hypercorn-h3") in config.response_headers("h3")
    assert inspect.iscoroutinefunction(config.log.exception)
    assert inspect.iscoroutinefunction(ASGIWrapper(None).__call__)
