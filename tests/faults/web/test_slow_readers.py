"""A reader that stops over WebTransport or HTTP/3 stops its own peer at the window, and no other.

The figures are those of `Limits` as it stands: 256 KiB for a stream and 4 MiB for a connection.
"""

from __future__ import annotations

import contextlib
from functools import partial

import trio

import moqt_trio as moqt
from moqt_trio.limits import KIB, MIB, Limits
from tests.peers.aioquic_http3 import connect_http3
from tests.transport.awaiting import accept_bidi
from tests.transport.recorders import eventually
from tests.transport.webtransport.serving import read_all, serving

LIMITS = Limits()
CERTIFICATE = moqt.development_certificate()


def taken(peer, streams):
    """How many bytes of each stream the server has acknowledged or has on its way."""
    return [peer.quic._streams[stream].sender.highest_offset for stream in streams]


async def test_the_default_windows():
    """The windows are those that the requirement names."""
    assert (LIMITS.stream_window, LIMITS.connection_window) == (256 * KIB, 4 * MIB)


async def test_a_session_that_is_not_read():
    """Unread streams stop at 256 KiB each and 4 MiB together; meanwhile another client is served, and once
    the session is read all of it arrives."""
    resume = trio.Event()
    received = []

    async def handler(request):
        session = request.accept()

        async def echo(stream):
            stream.write(await read_all(stream), True)

        async def drink(stream):
            received.append(len(await read_all(stream)))

        async with trio.open_nursery() as nursery:
            if request.path == "/stalled":
                await resume.wait()
            while True:
                nursery.start_soon(drink if request.path == "/stalled" else echo, await accept_bidi(session))

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    body = bytes(300 * KIB)
    async with (
        serving(handler, app=app) as served,
        connect_http3(served.port) as peer,
        connect_http3(served.port) as other,
    ):
        stalled, alive = peer.connect("/stalled"), other.connect("/alive")
        assert (await peer.status(stalled), await other.status(alive)) == (200, 200)
        stuck = [peer.open_stream(stalled, body, end=True) for _ in range(4)]
        await peer.wait(lambda: taken(peer, stuck) == [LIMITS.stream_window] * 4)
        stuck += [peer.open_stream(stalled, body, end=True) for _ in range(14)]
        await peer.wait(lambda: sum(taken(peer, stuck)) >= LIMITS.connection_window - 64 * KIB)
        for _ in range(10):
            stream = other.open_stream(alive, b"alive?", end=True)
            await other.wait(lambda stream=stream: stream in other.raw_ended)
            assert (await other.answer(other.request("/")))[0] == 204
        counts = taken(peer, stuck)
        print(f"taken from the stalled session: {max(counts)} of a stream, {sum(counts)} of all")
        assert max(counts) <= LIMITS.stream_window
        assert sum(counts) <= LIMITS.connection_window
        resume.set()
        await eventually(lambda: len(received) == len(stuck))
    assert received == [len(body)] * len(stuck)


async def test_an_application_that_reads_slowly():
    """Uploads that an application does not read stop at 256 KiB each; other requests on the same connection are
    answered, and the uploads once they are read."""
    resume = trio.Event()
    sizes = []

    async def app(scope, receive, send):
        size = 0
        if scope["path"] == "/slow":
            await resume.wait()
            while True:
                message = await receive()
                size += len(message.get("body", b""))
                if not message.get("more_body"):
                    break
            sizes.append(size)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % size})

    body = bytes(1 * MIB)
    async with serving(app=app) as served, connect_http3(served.port) as peer:
        slow = [peer.request("/slow", method="POST", body=body) for _ in range(3)]
        await peer.wait(lambda: min(taken(peer, slow)) >= LIMITS.stream_window - 2 * KIB)
        for _ in range(10):
            assert await peer.answer(peer.request("/fast")) == (200, b"0")
        counts = taken(peer, slow)
        print(f"taken from slow uploads: {counts}")
        assert max(counts) <= LIMITS.stream_window
        resume.set()
        for stream in slow:
            assert await peer.answer(stream) == (200, b"%d" % len(body))
    assert sizes == [len(body)] * 3


async def test_a_subscriber_that_does_not_read():
    """Of two WebTransport subscribers of a live track one never reads: the other gets every group, the publisher never
    waits, and the stalled one costs no more than its backlog."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    group_size, count = 64 * KIB, 120

    async def publish(request):
        async with request.accept() as session, session.publish("b", broadcast):
            await session.wait_closed()

    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(moqt.serve, publish, "127.0.0.1", 0, certificate=CERTIFICATE))
        connect = partial(moqt.connect, f"https://127.0.0.1:{listener.port}/", fingerprint=CERTIFICATE.fingerprint)
        async with connect() as stalled, connect() as alive, stalled.subscribe("b", "t"):
            async with alive.subscribe("b", "t", max_age=60, ordered=True) as subscription:
                while track.subscribers < 2:
                    await track.wait_subscribed()
                    await trio.sleep(0.001)
                for sequence in range(count):
                    with trio.fail_after(1):
                        await track.write(bytes(group_size))
                    with trio.fail_after(5):
                        group = await subscription.receive()
                        assert group.sequence == sequence
                        assert sum(map(len, await group.read_all())) == group_size
                assert subscription.statistics().groups_received == count
            assert stalled.closed is None
            received = stalled.statistics().transport.bytes_received
            print(f"received by the stalled subscriber: {received}")
            # What the window takes, and what the headers of groups and packets add to it.
            assert received <= LIMITS.connection_window * 1.1
        nursery.cancel_scope.cancel()


async def test_a_client_that_takes_no_answer():
    """An answer without an end, to a client that grants no credit, is held at the send buffer; the session beside it
    on the same connection is served."""
    sent = 0
    begun = trio.Event()

    async def app(scope, receive, send):
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with contextlib.suppress(OSError):
            while True:
                await send({"type": "http.response.body", "body": bytes(64 * KIB), "more_body": True})
                sent += 64 * KIB
                begun.set()

    async def handler(request):
        session = request.accept()
        while True:
            stream = await accept_bidi(session)
            stream.write(await read_all(stream), True)

    async with serving(handler, app=app) as served, connect_http3(served.port, max_stream_data=64 * KIB) as peer:
        # aioquic raises a stream's window as data arrives; this client does not.
        peer.quic._write_stream_limits = lambda *args, **kwargs: None
        session = peer.connect("/")
        await peer.status(session)
        peer.request("/")
        await begun.wait()
        for _ in range(20):
            stream = peer.open_stream(session, b"alive?", end=True)
            await peer.wait(lambda stream=stream: stream in peer.raw_ended)
        print(f"taken from the application: {sent}")
        assert sent <= LIMITS.send_high + 64 * KIB + 2 * 64 * KIB
