"""The echo server as a process, stopped by a signal while browsers' kind of clients keep it busy: it exits with 0, at
once when they leave, and soon after its grace of five seconds when they do not."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

import moqt_trio as moqt
from tests.faults.talking import GRACE, MARGIN, EchoServer, Talker, echo_server, wait_ended
from tests.http.test_shutdown import goaways
from tests.peers.aioquic_http3 import Http3Peer, connect_http3
from tests.transport.recorders import eventually

SESSIONS = 6
OFFER = ((b"wt-available-protocols", b'"moq-lite-06"'),)


def port_of(server: EchoServer) -> int:
    return int(server.urls["https"].rpartition(":")[2].partition("/")[0])


@contextmanager
def clogged(peer: Http3Peer) -> Iterator[None]:
    """Make a client take no further bytes of its answers, for as long as the block lasts."""
    write_limits = peer.quic._write_stream_limits
    peer.quic._write_stream_limits = lambda *args, **kwargs: None
    yield
    peer.quic._write_stream_limits = write_limits
    peer.quic.send_ping(1)
    peer.flush()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_clients_that_leave(number):
    """Under load, with an answer that is on its way: GOAWAY and DRAIN go out, the answer arrives whole, later requests
    are refused, the sessions leave, and the exit code is 0 long before the grace is over."""
    with echo_server() as server:
        talkers = [Talker(server, obedient=True) for _ in range(SESSIONS)]
        async with trio.open_nursery() as nursery, connect_http3(port_of(server), max_stream_data=1024) as peer:
            for talker in talkers:
                nursery.start_soon(talker.run)
            await eventually(lambda: all(talker.echoed > 3 for talker in talkers))
            session = peer.connect("/echo", headers=OFFER)
            assert await peer.status(session) == 200
            whole = await peer.answer(peer.request("/style.css"))
            with clogged(peer):
                unfinished = peer.request("/style.css")
                assert await peer.status(unfinished) == 200
                began = trio.current_time()
                server.process.send_signal(number)
                await peer.wait(lambda: goaways(peer))
                await peer.wait(lambda: (0x78AE, b"") in peer.capsules(session))
                refused = peer.request("/")
                assert await peer.wait(lambda: peer.reset_code(refused)) == 0x10B
                assert not peer.ended(unfinished)
            assert await peer.answer(unfinished) == whole
            peer.h3.send_data(session, bytes.fromhex("6843 04 00000000"), end_stream=True)
            peer.flush()
            assert await wait_ended(server, GRACE) == 0
            took = trio.current_time() - began
            for talker in talkers:
                with trio.fail_after(2):
                    await talker.asked.wait()
        print(f"{SESSIONS} sessions, {sum(t.echoed for t in talkers)} echoes; ended {took:.2f} s after the signal")
        assert took < GRACE / 2
        assert "Traceback" not in server.process.output


async def test_clients_that_stay():
    """Sessions that go on echoing, one that ignores DRAIN, and a client that reads nothing of its response do
    not hold the server up: the exit code is 0 soon after the grace, and every client learned that it is over."""
    with echo_server() as server:
        talkers = [Talker(server, obedient=False) for _ in range(SESSIONS)]
        async with trio.open_nursery() as nursery, connect_http3(port_of(server), max_stream_data=1024) as peer:
            for talker in talkers:
                nursery.start_soon(talker.run)
            await eventually(lambda: all(talker.echoed > 3 for talker in talkers))
            session = peer.connect("/echo", headers=OFFER)
            assert await peer.status(session) == 200
            with clogged(peer):
                stuck = [peer.request("/style.css") for _ in range(3)]
                await peer.wait(lambda: all(peer.headers_of(stream) for stream in stuck))
                echoed = [talker.echoed for talker in talkers]
                began = trio.current_time()
                server.process.send_signal(signal.SIGTERM)
                assert await wait_ended(server, GRACE + MARGIN) == 0
                took = trio.current_time() - began
                await eventually(lambda: all(talker.end is not None for talker in talkers))
                await peer.wait(lambda: peer.closed_code is not None)
                assert not any(peer.ended(stream) for stream in stuck)
        print(f"ended {took:.2f} s after the signal")
        assert GRACE <= took <= GRACE + MARGIN
        for talker, before in zip(talkers, echoed, strict=True):
            assert talker.asked.is_set()
            assert talker.echoed > before
            assert isinstance(talker.end, moqt.SessionClosed)
            assert talker.end.by_peer
        assert "Traceback" not in server.process.output


async def test_a_second_signal():
    """A second signal does not wait for the grace."""
    with echo_server() as server:
        talker = Talker(server, obedient=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talker.run)
            await eventually(lambda: talker.echoed > 3)
            server.process.send_signal(signal.SIGTERM)
            with trio.fail_after(2):
                await talker.asked.wait()
            began = trio.current_time()
            server.process.send_signal(signal.SIGTERM)
            assert await wait_ended(server, GRACE) == 0
        assert trio.current_time() - began < GRACE / 2
        assert "Traceback" not in server.process.output
