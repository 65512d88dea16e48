"""Clients of several workers: each keeps its worker, whatever happens to its address, and to others' packets."""

from __future__ import annotations

import os
import socket
from contextlib import AsyncExitStack, contextmanager

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.transport.quic.steering import IdShare, can_steer, steer
from moqt_trio.transport.sockets import bind_udp_shared
from tests.faults.udp_proxy import UdpProxy
from tests.machine import seconds
from tests.workers.clients import LINUX, SCHEMES, ask, workers

pytestmark = LINUX


@pytest.mark.parametrize(("count", "index"), [(1, 0), (2, 1), (3, 0), (7, 6), (200, 199), (256, 255)])
def test_chosen_ids(count, index):
    """An id leads to the process that chose it and to no other, and is random."""
    ids = {IdShare(index, count).new_id(8) for _ in range(64)}
    assert len(ids) == 64
    assert {len(each) for each in ids} == {8}
    assert all([other for other in range(count) if IdShare(other, count).owns(each)] == [index] for each in ids)
    assert len({each[0] for each in ids}) > (1 if count <= 64 else 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", None])
def test_where_datagrams_go(host):
    """The kernel sends a datagram to the socket of its id, in both forms of the header, and garbage to the first."""
    count = 3
    [group] = bind_udp_shared(host, 0, count)
    with closing(group):
        steer(group[0], count)
        port = group[0].getsockname()[1]
        for way in ("127.0.0.1", "::1") if host is None else (host,):
            with socket.socket(socket.AF_INET6 if ":" in way else socket.AF_INET, socket.SOCK_DGRAM) as client:
                for index in range(count):
                    for _ in range(8):
                        connection_id = IdShare(index, count).new_id(8)
                        short = b"\x40" + connection_id + bytes(20)
                        long = b"\xc0\x00\x00\x00\x01\x08" + connection_id + bytes(20)
                        for datagram in (short, long):
                            client.sendto(datagram, (way, port))
                            assert arrived(group) == [(index, datagram)]
                for garbage in (b"", b"\x40", b"\xff", b"\xc0\x00\x00\x00\x01", b"\xc0\x00\x00\x00\x01\x00"):
                    client.sendto(garbage, (way, port))
                    assert arrived(group) == [(0, garbage)]


@contextmanager
def closing(sockets):
    """Closes sockets at the end of a block."""
    try:
        yield
    finally:
        for sock in sockets:
            sock.close()


def arrived(group):
    found = []
    for index, sock in enumerate(group):
        try:
            found.append((index, sock.recv(2048)))
        except BlockingIOError:
            continue
    return found


def test_a_port_that_is_shared_already():
    """A second program cannot join the sockets of the first one, although these allow others."""
    [group] = bind_udp_shared("127.0.0.1", 0, 2)
    with closing(group):
        port = group[0].getsockname()[1]
        with pytest.raises(OSError, match=rf"cannot listen on 127.0.0.1:{port} \(UDP\): Address already in use"):
            bind_udp_shared("127.0.0.1", port, 2)


def test_this_system_can():
    """Linux can do it, and the program has seven instructions, which its checker accepts for every count."""
    assert can_steer()
    for count in (1, 2, 256):
        [group] = bind_udp_shared("127.0.0.1", 0, count)
        with closing(group):
            steer(group[0], count)


@SCHEMES
async def test_clients_keep_their_worker(tmp_path, scheme):
    """40 clients spread over three workers, and each has the same one for as long as it is connected."""
    with workers(tmp_path) as served, trio.fail_after(seconds(60)):
        async with AsyncExitStack() as stack:
            sessions = [await stack.enter_async_context(served.connect(scheme)) for _ in range(40)]
            first = [await ask(session) for session in sessions]
            again = [await ask(session) for session in sessions]
        assert [who[:2] for who in first] == [who[:2] for who in again]
        assert {who.index: who.pid for who in first} == served.pids


async def moved(served, scheme):
    """Returns how many of ten clients can still ask their worker after their port has changed."""
    survivors = 0
    async with trio.open_nursery() as nursery:

        async def client():
            nonlocal survivors
            proxy = UdpProxy(served.port)
            try:
                async with trio.open_nursery() as proxying:
                    proxying.start_soon(proxy.run)
                    try:
                        async with served.connect(scheme, port=proxy.port) as session:
                            before = await ask(session)
                            proxy.rebind()
                            with trio.move_on_after(seconds(4)):
                                after = await ask(session)
                                survivors += before[:2] == after[:2]
                    except moqt.MoqtError:
                        pass
                    proxying.cancel_scope.cancel()
            finally:
                proxy.close()

        for _ in range(10):
            nursery.start_soon(client)
    return survivors


@SCHEMES
async def test_clients_whose_address_changes(tmp_path, scheme):
    """All of ten clients stay with their worker when their port changes, as behind a NAT."""
    with workers(tmp_path) as served, trio.fail_after(seconds(60)):
        assert await moved(served, scheme) == 10


async def test_without_steering_they_are_lost(tmp_path):
    """The control: by address and port, the kernel's own choice, some of ten clients do not find their worker again."""
    with workers(tmp_path, steered=False) as served, trio.fail_after(seconds(60)):
        assert await moved(served, "moqt") < 10


@SCHEMES
async def test_clients_that_prove_their_address(tmp_path, scheme):
    """Under load a client gets a Retry first, and comes back to the worker that can read its token."""
    # Half of the bound is 0: every client has to prove its address.
    with workers(tmp_path, limits={"max_half_open": 1}) as served, trio.fail_after(seconds(60)):
        found = []
        for _ in range(20):
            async with served.connect(scheme) as session:
                found.append(await ask(session))
        for index, pid in served.pids.items():
            its = [who for who in found if who.pid == pid]
            assert [who.index for who in its] == [index] * len(its)
            # One more for each; on a slow machine a first packet is repeated, and counts twice.
            counts = [0, *(who.retried for who in its)]
            assert counts == sorted(set(counts))


async def test_what_no_client_sends(tmp_path):
    """Other QUIC versions get an answer from every worker; garbage gets none. Nothing of it ends a worker."""
    with workers(tmp_path) as served, trio.fail_after(seconds(60)):
        sock = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sock:
            await sock.connect(("127.0.0.1", served.port))
            for index in range(3):
                connection_id = IdShare(index, 3).new_id(8)
                hello = b"\xc0\x1a\x2a\x3a\x4a\x08" + connection_id + b"\x08" + bytes(8)
                await sock.send(hello.ljust(1200, b"\0"))
                answer = await sock.recv(2048)
                # Version Negotiation: version 0, and the ids the other way round (RFC 9000, section 17.2.1).
                assert answer[1:5] == bytes(4)
                assert answer[14:23] == b"\x08" + connection_id
            for _ in range(50):
                for size in (0, 1, 5, 6, 7, 20, 21, 1200):
                    await sock.send(os.urandom(size))
                    await sock.send(bytes(size))
                    await sock.send(b"\xff" * size)
        async with AsyncExitStack() as stack:
            sessions = [await stack.enter_async_context(served.connect("moqt")) for _ in range(20)]
            assert {(await ask(session)).pid for session in sessions} == set(served.pids.values())
        assert served.child.errors == []
