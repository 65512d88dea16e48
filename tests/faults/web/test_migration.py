"""Clients of WebTransport whose address or connection id changes, and packets that are of no connection."""

from __future__ import annotations

import os
import socket
from contextlib import asynccontextmanager
from functools import partial

import trio

import moqt_trio as moqt
from tests.faults.udp_proxy import udp_proxy
from tests.faults.web.test_floods import first_flight
from tests.peers.aioquic_http3 import connect_http3
from tests.transport.awaiting import accept_bidi, receive_datagram
from tests.transport.recorders import eventually
from tests.transport.webtransport.serving import read_all, serving, session_to

CERTIFICATE = moqt.development_certificate()


@asynccontextmanager
async def publishing():
    """Run a server that publishes track `t` of broadcast `b` on every session; yield its listener and the track."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")

    async def publish(request):
        async with request.accept() as session, session.publish("b", broadcast):
            await session.wait_closed()

    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(moqt.serve, publish, "127.0.0.1", 0, certificate=CERTIFICATE))
        yield listener, track
        nursery.cancel_scope.cancel()


async def test_groups_across_new_addresses():
    """While groups flow over WebTransport the client's address changes three times: none of them is lost, on the same
    session and without a new handshake."""
    count = 120
    async with publishing() as (listener, track), udp_proxy(listener.port) as proxy:
        url = f"https://127.0.0.1:{proxy.port}/"
        async with moqt.connect(url, fingerprint=CERTIFICATE.fingerprint) as session:
            async with session.subscribe("b", "t", max_age=60, ordered=True) as subscription:
                await track.wait_subscribed()
                for sequence in range(count):
                    if sequence in (20, 50, 80):
                        proxy.rebind()
                        # The server learns of the new address by a packet of the client's.
                        await ask_something(session)
                    await track.write(b"%d" % sequence * 500)
                    with trio.fail_after(10):
                        group = await subscription.receive()
                        assert (group.sequence, b"".join(await group.read_all())) == (sequence, b"%d" % sequence * 500)
            assert session.closed is None
        assert listener.statistics().sessions_accepted == 1


async def ask_something(session: moqt.Session) -> None:
    """Make the client send something."""
    async with session.announcements("nothing"):
        await trio.lowlevel.checkpoint()


async def echo(request):
    """Echo the streams and the datagrams of a session."""
    session = request.accept()

    async def streams():
        while True:
            stream = await accept_bidi(session)
            stream.write(await read_all(stream), True)

    async def datagrams():
        while True:
            session.send_datagram(await receive_datagram(session))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(streams)
        nursery.start_soon(datagrams)


async def app(scope, receive, send):
    """Answer with the size of the body."""
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % size})


async def check(peer, session):
    """A stream and a datagram of the session are echoed, and a request is answered."""
    stream = peer.open_stream(session, b"still there?", end=True)
    await peer.wait(lambda: stream in peer.raw_ended)
    before = len(peer.datagrams)
    peer.h3.send_datagram(session, b"and here?")
    peer.flush()
    await peer.wait(lambda: len(peer.datagrams) > before)
    assert await peer.answer(peer.request("/", method="POST", body=bytes(5000))) == (200, b"5000")


async def test_new_addresses_of_another_implementation():
    """An aioquic client behind a NAT that forgets it keeps its session, an upload in mid-flight included."""
    async with serving(echo, app=app) as served, udp_proxy(served.port) as proxy, connect_http3(proxy.port) as peer:
        session = peer.connect("/")
        assert await peer.status(session) == 200
        for _ in range(3):
            upload = peer.request("/", method="POST", body=bytes(300_000), end=False)
            proxy.rebind()
            peer.h3.send_data(upload, bytes(300_000), end_stream=True)
            peer.flush()
            await check(peer, session)
            assert await peer.answer(upload) == (200, b"600000")
        assert served.listener.statistics().accepted == 1


async def test_new_connection_ids():
    """A client that changes its connection id again and again, with its address and without, is served throughout;
    the ids that it has given up are forgotten by the server."""
    async with serving(echo, app=app) as served, udp_proxy(served.port) as proxy, connect_http3(proxy.port) as peer:
        session = peer.connect("/")
        await peer.status(session)
        used = set()
        for number in range(20):
            used.add(peer.quic._peer_cid.cid)
            peer.quic.change_connection_id()
            if number % 3 == 0:
                proxy.rebind()
            await check(peer, session)
        assert len(used) == 20
        assert served.listener.statistics().connections == 1
        routes = served.listener._routes
        await eventually(lambda: not used & set(routes))
        assert peer.quic._peer_cid.cid in routes
        assert len(routes) <= 16


async def test_an_attacker_who_moves_packets():
    """A packet of a client's that is sent again from another address does not take the session there."""
    async with serving(echo, app=app) as served, udp_proxy(served.port) as proxy, connect_http3(proxy.port) as peer:
        session = peer.connect("/")
        await peer.status(session)
        recorded: list[bytes] = []

        def record(data: bytes, from_client: bool) -> list[tuple[float, bytes]]:
            if from_client:
                recorded.append(data)
            return [(0.0, data)]

        proxy.forward = record
        await check(peer, session)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
            attacker.setblocking(False)
            attacker.connect(("127.0.0.1", served.port))
            for data in recorded:
                attacker.send(data)
            await check(peer, session)
            # What it gets is at most the probe of a path, never the answers.
            received = 0
            with trio.move_on_after(0.1):
                while True:
                    await trio.lowlevel.wait_readable(attacker)
                    received += len(attacker.recv(65535))
            assert received <= 3 * sum(map(len, recorded))


async def test_packets_of_unknown_connections():
    """Short packets with ids that were never given out, a real one's with a bit changed among them, are dropped
    without a word that is larger than they are, and harm no session."""
    async with serving(echo, app=app) as served, connect_http3(served.port) as peer:
        session = peer.connect("/")
        await peer.status(session)
        known = peer.quic._peer_cid.cid
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", served.port))
            sent = received = 0
            for number in range(500):
                cid = os.urandom(8) if number % 2 else bytes([known[0] ^ 1]) + known[1:]
                sent += sock.send(b"\x40" + cid + os.urandom(number % 60 + 1))
                if number % 50 == 0:
                    await check(peer, session)
            # The right id on rubbish: the packet does not decrypt.
            for _ in range(100):
                sent += sock.send(b"\x40" + known + os.urandom(40))
            await check(peer, session)
            with trio.move_on_after(0.1):
                while True:
                    await trio.lowlevel.wait_readable(sock)
                    received += len(sock.recv(65535))
        assert received <= sent
        assert served.listener.statistics().connections == 1


async def test_a_client_that_must_prove_its_address():
    """Past half of `max_half_open` a client of WebTransport gets a Retry, sends its token, and has its session, also
    through a NAT that rebinds afterwards; the session's groups flow as ever."""
    limits = moqt.Limits(max_half_open=2)
    async with serving(echo, app=app, limits=limits) as served, udp_proxy(served.port) as proxy:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stale:
            stale.connect(("127.0.0.1", served.port))
            stale.send(first_flight(served.port))
            await eventually(lambda: served.listener.statistics().half_open == 1)
            with trio.fail_after(5):
                async with session_to(proxy.port) as session:
                    assert served.listener.statistics().retried == 1
                    for _ in range(2):
                        stream = await session.open_bidi()
                        stream.write(b"proved", True)
                        assert await read_all(stream) == b"proved"
                        proxy.rebind()
