"""What comes too late over WebTransport and HTTP/3: it is dropped, credited and refused, and never an error of ours."""

from __future__ import annotations

import logging
from functools import partial

import attrs
import pytest
import trio

import moqt_trio as moqt
from moqt_trio.limits import KIB
from moqt_trio.transport.code_mapping import stream_code_to_http3
from tests.faults.raw_peer import SETUP, group, subscribe
from tests.peers.aioquic_http3 import Http3Peer, connect_http3
from tests.transport.awaiting import accept_bidi
from tests.transport.recorders import eventually
from tests.transport.webtransport.serving import serving

CERTIFICATE = moqt.development_certificate()
OFFER = ((b"wt-available-protocols", b'"moq-lite-06"'),)
CANCELLED = stream_code_to_http3(moqt.StreamCode.CANCELLED)
SMALL = moqt.Limits(stream_window=32 * KIB, connection_window=64 * KIB)
TRACK_INFO = bytes.fromhex("05 7f 43e8 43e8")
"""Priority 127, a second of age, 1000 ticks a second."""


class Subscriber:
    """A handler that subscribes to the client's track twice, one after the other, each time at a signal."""

    def __init__(self) -> None:
        self.subscriptions: list[moqt.Subscription] = []
        self.frames: list[bytes] = []
        self.unsubscribed = trio.Event()
        self.resume = trio.Event()
        self.session: moqt.Session

    async def __call__(self, request: moqt.SessionRequest) -> None:
        async with request.accept() as self.session:
            for number in range(2):
                async with self.session.subscribe("b", "t") as subscription:
                    self.subscriptions.append(subscription)
                    reader = await subscription.receive()
                    self.frames.append(await reader.receive())
                if not number:
                    self.unsubscribed.set()
                    await self.resume.wait()
            await self.session.wait_closed()


class Publisher:
    """A client whose MoQ bytes are the test's: it answers requests on streams of the server's."""

    def __init__(self, peer: Http3Peer) -> None:
        self.peer = peer
        self._answered: set[int] = set()

    def _received(self, stream_id: int) -> bytes:
        """What came on a stream of the server's, without the prefix of the session."""
        events = (e for e in self.peer.quic_events if getattr(e, "stream_id", None) == stream_id)
        return b"".join(getattr(event, "data", b"") for event in events)[3:]

    async def answer(self, kind: int, answer: bytes) -> None:
        """Answer the next request of a kind; the answer to a subscription leaves the stream open."""

        def asked() -> int | None:
            for event in self.peer.quic_events:
                number = getattr(event, "stream_id", 0)
                if number % 4 == 1 and number not in self._answered and self._received(number)[:1] == bytes([kind]):
                    return number
            return None

        stream = await self.peer.wait(asked)
        self._answered.add(stream)
        if answer:
            self.peer.write(stream, answer, end=True)


async def test_what_comes_after_unsubscribing():
    """A running group that goes on, and groups that begin after UNSUBSCRIBE, from a client that ignores STOP_SENDING:
    far more than the window is dropped and credited, each stream is stopped, and the next subscription works."""
    subscriber = Subscriber()
    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, subscriber, "127.0.0.1", 0, certificate=CERTIFICATE, limits=SMALL)
        listener = await nursery.start(serve)
        async with connect_http3(listener.port) as peer:
            session_id = peer.connect("/", headers=OFFER)
            assert await peer.status(session_id) == 200
            peer.open_stream(session_id, SETUP, end=True, uni=True)
            peer.ignore_stop_sending()
            client = Publisher(peer)
            await client.answer(6, TRACK_INFO)
            await client.answer(2, b"")
            running = peer.open_stream(session_id, group(0, 0, b"first"), uni=True)
            with trio.fail_after(5):
                await subscriber.unsubscribed.wait()
            for _ in range(10):
                peer.write(running, b"\x00\x67\x10" + bytes(10_000))
            late = []
            for number in range(1, 30):
                late.append(peer.open_stream(session_id, group(0, number, bytes(60)), uni=True))
                for _ in range(4):
                    peer.write(late[-1], b"\x00\x4f\xa0" + bytes(4000))
            for stream in (running, *late):
                assert await peer.wait(lambda stream=stream: peer.stop_code(stream)) == CANCELLED
            # All of it was taken: nothing waits for credit.
            await peer.wait(
                lambda: not any(peer.quic._streams[s].sender._buffer for s in late if s in peer.quic._streams)
            )
            assert subscriber.session.closed is None
            subscriber.resume.set()
            await client.answer(6, TRACK_INFO)
            await client.answer(2, b"")
            peer.open_stream(session_id, group(1, 0, b"second"), uni=True)
            await eventually(lambda: len(subscriber.frames) == 2)
            assert subscriber.frames == [b"first", b"second"]
        nursery.cancel_scope.cancel()


async def test_data_on_a_request_that_was_refused(caplog):
    """Bytes on a request stream that the server has reset, from a client that goes on sending, are dropped and
    credited; the session lives on and serves the next request."""
    caplog.set_level(logging.WARNING)
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")

    async def publish(request: moqt.SessionRequest) -> None:
        async with request.accept() as session, session.publish("b", broadcast):
            await session.wait_closed()

    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, publish, "127.0.0.1", 0, certificate=CERTIFICATE, limits=SMALL)
        listener = await nursery.start(serve)
        async with connect_http3(listener.port) as peer:
            session_id = peer.connect("/", headers=OFFER)
            assert await peer.status(session_id) == 200
            peer.open_stream(session_id, SETUP, end=True, uni=True)
            peer.ignore_stop_sending()
            for number in range(20):
                refused = peer.open_stream(session_id, subscribe(number).replace(b"\x01b", b"\x01x"))
                assert await peer.wait(lambda refused=refused: peer.reset_code(refused)) is not None
                # A SUBSCRIBE_UPDATE, and then no message at all.
                peer.write(refused, bytes.fromhex("06 7f 00 00 00 00 00"))
                peer.write(refused, bytes(20_000), end=True)
            peer.open_stream(session_id, subscribe(40))
            with trio.fail_after(5):
                await track.wait_subscribed()
            assert peer.closed_code is None
        nursery.cancel_scope.cancel()
    assert not caplog.records


async def test_data_on_streams_that_a_handler_gave_up():
    """Streams of a session that the server has finished and stopped go on: what comes is dropped and credited."""
    done = []

    async def handler(request):
        session = request.accept()
        while True:
            stream = await accept_bidi(session)
            await stream.receive_some()
            stream.finish()
            stream.stop(9)
            done.append(stream)

    async with serving(handler, limits=SMALL) as served, connect_http3(served.port) as peer:
        session_id = peer.connect("/")
        await peer.status(session_id)
        peer.ignore_stop_sending()
        for _ in range(20):
            stream = peer.open_stream(session_id, b"x")
            assert await peer.wait(lambda stream=stream: peer.stop_code(stream)) == stream_code_to_http3(9)
            peer.write(stream, bytes(20_000), end=True)
        assert await peer.status(peer.request("/")) == 404
        assert len(done) == 20
        (connection,) = served.connections
        await eventually(lambda: len(connection.streams) <= 8)


@pytest.mark.parametrize("ending", ["reset", "finish", "stop"])
async def test_requests_that_end_on_one_side(ending):
    """A request whose client resets, ends or stops while its answer is on the way; DATA that comes after that is no
    KeyError, and the next request is answered."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(20):
            await send({"type": "http.response.body", "body": bytes(20_000), "more_body": True})
        await send({"type": "http.response.body", "body": b"end"})

    limits = attrs.evolve(SMALL, close_timeout=0.2)
    async with serving(app=app, limits=limits) as served, connect_http3(served.port) as peer:
        peer.ignore_stop_sending()
        for _ in range(5):
            stream = peer.request("/", method="POST", body=bytes(1000), end=False)
            await peer.wait(lambda stream=stream: peer.headers_of(stream))
            # Written below HTTP/3, as stock aioquic would not send DATA after the end of its message.
            if ending == "reset":
                peer.quic.reset_stream(stream, 0x10C)
            elif ending == "stop":
                peer.quic.stop_stream(stream, 0x10C)
                peer.write(stream, b"\x00\x47\xd0" + bytes(2000), end=True)
            else:
                peer.write(stream, b"\x00\x47\xd0" + bytes(2000), end=True)
            peer.flush()
        stream = peer.request("/")
        assert (await peer.answer(stream))[1].endswith(b"end")
        assert peer.closed_code is None
