"""The private names of hypercorn that HTTP over TCP uses, and the faults of hypercorn that it works around."""

from __future__ import annotations

import inspect

import hpack.hpack
import hpack.table
from hypercorn.config import Config
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, H2Protocol, StreamBuffer
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio import task_group
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import EventWrapper, WorkerContext

from moqt_trio.http.http2 import HttpConnection


def parameters(function):
    return list(inspect.signature(function).parameters)


def test_connection():
    """TCPServer is made of these parts, reads in `_read_data`, and makes its protocol before."""
    assert parameters(TCPServer) == ["app", "config", "context", "state", "stream"]
    source = inspect.getsource(TCPServer.run)
    assert source.index("self.protocol = ProtocolWrapper(") < source.index("await self._read_data()")
    assert inspect.iscoroutinefunction(TCPServer._read_data)
    assert HttpConnection._read_data is not TCPServer._read_data


def test_http1():
    """H11Protocol hands the task group that it has when a request comes to it."""
    assert inspect.getsource(H11Protocol._create_stream).count("self.task_group,") == 2


def test_http2():
    """H2Protocol keeps its streams, buffers and task group where we replace them, and hands the latter to requests."""
    protocol = H2Protocol(None, Config(), WorkerContext(None), "tasks", {}, True, None, None, None)
    assert (protocol.streams, protocol.stream_buffers, protocol.task_group) == ({}, {}, "tasks")
    assert protocol.closed is False
    source = inspect.getsource(H2Protocol)
    assert "self.streams[event.stream_id].handle(\n                    Body(" in source
    assert "self.stream_buffers[request.stream_id] = StreamBuffer(self.context.event_class)" in source
    assert "self.connection.send_data(stream_id, data)" in source
    assert "self.connection.end_stream(stream_id)" in source
    assert "self.connection.acknowledge_received_data(" in source
    for kind in (HTTPStream, WSStream):
        assert parameters(kind)[3] == "task_group"
        assert "self.closed" in inspect.getsource(kind.app_send)


async def test_http2_still_lets_go():
    """Hypercorn's buffer still lets a sender go on when nothing was taken; when that ends, so can `_SendBuffer`."""
    buffer = StreamBuffer(EventWrapper)
    buffer.buffer.extend(bytes(BUFFER_HIGH_WATER))
    assert await buffer.pop(0) == b""
    assert buffer._paused.is_set()


def test_tasks():
    """The function that runs an application takes these."""
    assert parameters(task_group._handle) == ["app", "config", "scope", "receive", "send", "sync_spawn", "call_soon"]


def test_lifespan():
    """Lifespan has these events and functions, and sets both events when the application ends."""
    lifespan = Lifespan(None, Config(), {})
    assert not lifespan.startup.is_set()
    assert not lifespan.shutdown.is_set()
    assert parameters(lifespan.handle_lifespan) == ["task_status"]
    source = inspect.getsource(Lifespan.handle_lifespan)
    assert "finally:\n            self.startup.set()\n            self.shutdown.set()\n" in source


def test_settings():
    """Alt-Svc comes from `alt_svc_headers`, else from the QUIC addresses, once for each."""
    config = Config()
    config.alt_svc_headers = ['h3=":1"']
    config._quic_addresses = [("::1", 2)]
    assert [value for name, value in config.response_headers("h2") if name == b"alt-svc"] == [b'h3=":1"']
    config.alt_svc_headers = []
    assert [value for name, value in config.response_headers("h2") if name == b"alt-svc"] == [b'h3=":2"; ma=3600']


def test_websocket_handshake():
    """A WebSocket knows whether its application has accepted it."""
    stream = WSStream(None, Config(), WorkerContext(None), None, True, None, None, None, 0)
    assert stream.closed is False
    assert "self.accepted = True" in inspect.getsource(inspect.getmodule(WSStream).Handshake.accept)


def test_loggers_of_the_header_compression():
    """hpack logs header values on these two loggers."""
    assert (hpack.hpack.log.name, hpack.table.log.name) == ("hpack.hpack", "hpack.table")
