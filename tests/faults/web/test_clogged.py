"""Closing while the client takes nothing: it is forced after `Limits.close_timeout`."""

from __future__ import annotations

import contextlib
from functools import partial

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.limits import KIB, Limits
from tests.faults.raw_peer import SETUP, subscribe
from tests.http.serving import CERTIFICATE
from tests.peers.aioquic_http3 import connect_http3
from tests.transport.awaiting import send_all
from tests.transport.recorders import eventually
from tests.transport.webtransport.serving import serving, session_to

CLOSE_TIMEOUT = Limits().close_timeout
OFFER = ((b"wt-available-protocols", b'"moq-lite-06"'),)
MARGIN = 1.0
"""Seconds that a busy machine may add."""


def clog(peer):
    """Make a client grant no further credit, neither for streams nor for the connection."""
    peer.quic._write_stream_limits = lambda *args, **kwargs: None
    peer.quic._write_connection_limits = lambda *args, **kwargs: None


async def test_the_default_bound():
    """The bound is the one that the requirement names."""
    assert CLOSE_TIMEOUT == 2.0


async def test_closing_a_session():
    """`aclose` of a session whose client has stopped the connection's credit returns within two seconds, and the
    session's streams are reset; the client learns it once it takes bytes again."""
    took = []
    clogged = trio.Event()

    async def handler(request):
        session = request.accept()
        stream = await session.open_uni()
        with trio.move_on_after(0.3):
            await send_all(stream, bytes(1 << 20))
        clogged.set()
        began = trio.current_time()
        await session.aclose(7, "enough")
        took.append(trio.current_time() - began)
        assert stream.send_ended

    async with serving(handler) as served, connect_http3(served.port, max_data=64 * KIB) as peer:
        clog(peer)
        session = peer.connect("/")
        await peer.status(session)
        with trio.fail_after(10):
            await clogged.wait()
        with trio.fail_after(CLOSE_TIMEOUT + MARGIN):
            await eventually(lambda: took)
    assert took[0] <= CLOSE_TIMEOUT + MARGIN


async def test_a_client_closes_on_a_clogged_server():
    """`aclose` of our client returns within two seconds when the server takes nothing of its close."""

    async def handler(request):
        request.accept()
        await trio.sleep_forever()

    limits = Limits(stream_window=4 * KIB, connection_window=16 * KIB)
    with trio.fail_after(10):
        async with serving(handler, limits=limits) as served, session_to(served.port) as session:
            for _ in range(5):
                stream = await session.open_bidi()
                with contextlib.suppress(trio.TooSlowError), trio.fail_after(0.05):
                    await send_all(stream, bytes(1 << 20))
            began = trio.current_time()
            await session.aclose(1)
            assert trio.current_time() - began <= CLOSE_TIMEOUT + MARGIN


@pytest.mark.parametrize("ending", ["aclose", "cancel"])
async def test_closing_the_server(ending):
    """A server with a MoQ session and a request that are both stuck on their client ends: at once when it is
    cancelled, and within two seconds after the grace when it is closed."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    published = trio.Event()
    flooding = trio.Event()

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with contextlib.suppress(OSError):
            while True:
                flooding.set()
                await send({"type": "http.response.body", "body": bytes(64 * KIB), "more_body": True})

    async def publish(request):
        async with request.accept() as session, session.publish("b", broadcast):
            published.set()
            await session.wait_closed()

    before = trio.lowlevel.current_statistics().tasks_living
    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, moqt.Router({"/": publish}), "localhost", 0, certificate=CERTIFICATE, app=app)
        listener = await nursery.start(serve)
        async with connect_http3(listener.port, max_data=64 * KIB, max_stream_data=32 * KIB) as peer:
            clog(peer)
            session = peer.connect("/", headers=OFFER)
            assert await peer.status(session) == 200
            peer.open_stream(session, SETUP, end=True, uni=True)
            with trio.fail_after(10):
                # A subscription that comes before its track is published is refused.
                await published.wait()
                peer.open_stream(session, subscribe(0))
                await track.wait_subscribed()
            for _ in range(50):
                await track.write(bytes(10_000))
            peer.request("/flood")
            with trio.fail_after(10):
                await flooding.wait()
            began = trio.current_time()
            if ending == "aclose":
                await listener.aclose(grace=0.1)
            nursery.cancel_scope.cancel()
    took = trio.current_time() - began
    assert took <= (0.1 if ending == "aclose" else 0) + CLOSE_TIMEOUT + MARGIN
    assert trio.lowlevel.current_statistics().tasks_living == before
