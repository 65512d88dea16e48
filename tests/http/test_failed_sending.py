"""An answer over HTTP/3 that cannot be written: what its application receives, and how the answer ends."""

from __future__ import annotations

import pytest
import trio

from moqt_trio.errors import SessionClosed, StreamReset
from moqt_trio.limits import KIB
from tests.http.serving import WAIT, pass_lifespan, serving
from tests.peers.aioquic_http3 import connect_http3

H3_NO_ERROR, H3_INTERNAL_ERROR, H3_REQUEST_CANCELLED = 0x100, 0x102, 0x10C
"""Error codes of RFC 9114, section 8.1."""

WRITING = "moqt_trio.transport.http3.exchange.Exchange.wait_writable"


class Application:
    """An ASGI application that sends until that fails.

    Attributes:
        failure: What `send` raised.
        next: What it received after that, if it asks.
        ended: Set once it has ended.
    """

    def __init__(self, *, receives=False):
        self.failure = None
        self.next = None
        self.ended = trio.Event()
        self._receives = receives

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await pass_lifespan(receive, send)
            return
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(KIB), "more_body": True})
        except Exception as error:
            self.failure = error
            if self._receives:
                self.next = (await receive())["type"]
            raise
        finally:
            self.ended.set()


async def test_a_bug_is_no_disconnect(monkeypatch, caplog):
    """A mistake of this library reaches the application as it is, not as the OSError of a client that has left; it is
    logged, and the answer is reset with H3_INTERNAL_ERROR."""
    application = Application()

    async def broken(exchange):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(WRITING, broken)
    async with serving(application) as listener, connect_http3(listener.port) as peer:
        stream_id = peer.request("/")
        await peer.wait(lambda: peer.reset_code(stream_id) is not None)
        assert peer.reset_code(stream_id) == H3_INTERNAL_ERROR
    assert type(application.failure) is ZeroDivisionError
    [record] = caplog.records
    assert (record.name, record.levelname) == ("moqt_trio.http", "ERROR")
    assert record.getMessage() == "Error in ASGI Framework"
    assert record.exc_info[1] is application.failure


@pytest.mark.parametrize("leaving", ["stops the answer", "closes the connection"])
async def test_a_client_that_leaves_is_a_disconnect(leaving, caplog):
    """A client that leaves is an OSError for the application that sends, and then `http.disconnect`; nothing is
    logged."""
    application = Application(receives=True)
    async with serving(application) as listener, connect_http3(listener.port) as peer:
        stream_id = peer.request("/")
        await peer.wait(lambda: peer.body_of(stream_id))
        if leaving == "stops the answer":
            peer.quic.stop_stream(stream_id, H3_REQUEST_CANCELLED)
        else:
            peer.quic.close(H3_NO_ERROR)
        peer.flush()
        with trio.fail_after(WAIT):
            await application.ended.wait()
    assert isinstance(application.failure, OSError)
    assert application.next == "http.disconnect"
    assert not caplog.records


@pytest.mark.parametrize(
    "cause",
    [StreamReset(H3_REQUEST_CANCELLED), SessionClosed(remote_code=H3_NO_ERROR), trio.ClosedResourceError()],
    ids=lambda cause: type(cause).__name__,
)
async def test_each_end_of_a_stream_is_a_disconnect(cause, monkeypatch, caplog):
    """What a stream raises once it or its connection has ended is an OSError for the application; nothing is logged."""
    application = Application()

    async def ended(exchange):
        raise cause

    monkeypatch.setattr(WRITING, ended)
    async with serving(application) as listener, connect_http3(listener.port) as peer:
        stream_id = peer.request("/")
        await peer.wait(lambda: peer.reset_code(stream_id) is not None)
    assert isinstance(application.failure, OSError)
    assert application.failure.__cause__ is cause
    assert not caplog.records
