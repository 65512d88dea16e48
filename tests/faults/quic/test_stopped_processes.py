"""Processes that are stopped (SIGSTOP) and go on (SIGCONT), as a suspended machine or a debugger has it: for less than
the idle timeout, and for more."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trio

import moqt_trio as moqt
from tests.faults.counting import (
    PERIOD,
    client_process,
    counting_client,
    counting_server,
    happens,
    is_whole,
    server_process,
)
from tests.transport.recorders import eventually

if TYPE_CHECKING:
    from tests.faults.counting import Side
    from tests.interop.processes import Child

TRANSPORTS = ("moqt", "https")
SCHEMES = pytest.mark.parametrize("scheme", TRANSPORTS)
STOP = 3.0
"""Seconds of a short stop: six of the client's keep-alives, and half of the idle timeout."""
PATIENT = {"idle_timeout": 6.0, "keep_alive": 0.5}
IDLE = 2.0
"""Seconds of the idle timeout where the stop is longer."""
HASTY = {"idle_timeout": IDLE}
MARGIN = 3.0
"""Seconds for probe timeouts and a busy machine."""
UNDISTURBED = 1.0
"""Seconds that a group takes at the most to another client of a server while one is stopped."""


async def exit_code(child: Child) -> int:
    return await trio.to_thread.run_sync(child.wait_ended)


def grown(sides: list[Side], before: list[int]) -> list[int]:
    """Return how many numbers each side has received since."""
    return [len(side.received) - count for side, count in zip(sides, before, strict=True)]


@SCHEMES
async def test_a_client_that_is_stopped_for_a_while(scheme):
    """The session goes on, and both sides get every group; the server's other client gets its own as they come."""
    with trio.fail_after(40):
        async with counting_server(**PATIENT) as (server, listener):
            url = f"{scheme}://127.0.0.1:{listener.port}/a"
            async with counting_client(url, **PATIENT) as other:
                with client_process(url, **PATIENT) as client:
                    await happens(client, "running")
                    _, side = server.sides
                    await side.running.wait()
                    client.send_signal(signal.SIGSTOP)
                    before = len(side.received)
                    await trio.sleep(STOP)
                    assert len(side.received) - before < STOP / PERIOD / 2
                    client.send_signal(signal.SIGCONT)
                    before = len(side.received)
                    await eventually(lambda: len(side.received) > before + 10)
                    server.numbers.finish()
                    ended = await happens(client, "ended")
                    assert ended["how"] is None
                    assert is_whole(ended["received"], server.numbers.sent)
                    await side.ended.wait()
                    assert is_whole(side.received, ended["sent"])
                    assert await exit_code(client) == 0
                    assert client.errors == []
            print(f"\nbeside it a group took {other.slowest * 1000:.0f} ms at the most")
            assert is_whole(other.received, server.numbers.sent)
            assert other.slowest < UNDISTURBED


@SCHEMES
async def test_a_client_that_is_stopped_for_too_long(scheme):
    """The server ends its session after the idle timeout, beside others that go on. The client learns that when it goes
    on itself, and ends without a fault."""
    with trio.fail_after(40):
        async with counting_server(**HASTY) as (server, listener):
            url = f"{scheme}://127.0.0.1:{listener.port}/a"
            async with counting_client(url, **HASTY) as other:
                with client_process(url, **HASTY) as client:
                    await happens(client, "running")
                    _, side = server.sides
                    await side.running.wait()
                    client.send_signal(signal.SIGSTOP)
                    began = trio.current_time()
                    with trio.fail_after(IDLE + MARGIN):
                        await side.ended.wait()
                    noticed = trio.current_time() - began
                    assert noticed > IDLE / 2
                    assert isinstance(side.end, moqt.SessionClosed)
                    assert not side.end.by_peer
                    await eventually(lambda: listener.statistics().connections == 1)
                    began = trio.current_time()
                    client.send_signal(signal.SIGCONT)
                    with trio.fail_after(IDLE + MARGIN):
                        ended = await happens(client, "ended")
                    print(
                        f"\nserver {noticed:.2f} s after SIGSTOP: {side.end}; "
                        f"client {trio.current_time() - began:.2f} s after SIGCONT: {ended['how']}"
                    )
                    assert ended["how"] is not None
                    assert await exit_code(client) == 0
                    assert client.errors == []
                server.numbers.finish()
            assert other.end is None
            assert is_whole(other.received, server.numbers.sent)
            assert other.slowest < UNDISTURBED


async def test_a_server_that_is_stopped_for_a_while():
    """The sessions of its clients, over both transports, go on afterwards, and every group arrives."""
    with server_process(**PATIENT) as server, trio.fail_after(40):
        port = (await happens(server, "listening"))["port"]
        async with AsyncExitStack() as clients:
            sides = [
                await clients.enter_async_context(counting_client(f"{scheme}://127.0.0.1:{port}/a", **PATIENT))
                for scheme in TRANSPORTS
            ]
            server.send_signal(signal.SIGSTOP)
            before = [len(side.received) for side in sides]
            await trio.sleep(STOP)
            assert all(
                len(side.received) < number + STOP / PERIOD / 2 for side, number in zip(sides, before, strict=True)
            )
            server.send_signal(signal.SIGCONT)
            before = [len(side.received) for side in sides]
            await eventually(
                lambda: all(len(side.received) > number + 10 for side, number in zip(sides, before, strict=True))
            )
            server.tell("finish")
        ended = [await happens(server, "ended") for _ in sides]
        assert [end["how"] for end in ended] == [side.end for side in sides] == [None, None]
        assert all(is_whole(side.received, ended[0]["sent"]) for side in sides)
        # The server says in which order they ended, and not whose end it is.
        assert all(any(is_whole(end["received"], side.numbers.sent) for end in ended) for side in sides)
        assert server.errors == []


async def test_a_server_that_is_stopped_for_too_long():
    """Its clients, over both transports, notice after the idle timeout. When the server goes on, it drops their
    sessions without a fault, and serves new ones."""
    with server_process(**HASTY) as server, trio.fail_after(40):
        port = (await happens(server, "listening"))["port"]
        urls = [f"{scheme}://127.0.0.1:{port}/a" for scheme in TRANSPORTS]
        async with AsyncExitStack() as clients:
            sides = [await clients.enter_async_context(counting_client(url, **HASTY)) for url in urls]
            server.send_signal(signal.SIGSTOP)
            began = trio.current_time()
            noticed = []
            for side in sides:
                with trio.fail_after(IDLE + MARGIN):
                    await side.ended.wait()
                noticed.append(trio.current_time() - began)
                assert isinstance(side.end, moqt.SessionClosed)
                assert not side.end.by_peer
        assert noticed[0] > IDLE / 2
        async with AsyncExitStack() as clients:
            began = trio.current_time()
            server.send_signal(signal.SIGCONT)
            fresh = [await clients.enter_async_context(counting_client(url)) for url in urls]
            served = trio.current_time() - began
            with trio.fail_after(IDLE + MARGIN):
                ends = [(await happens(server, "ended"))["how"] for _ in sides]
            took = trio.current_time() - began
            assert None not in ends
            server.tell("finish")
        assert [side.end for side in fresh] == [None, None]
        print(
            f"\nclients {noticed[0]:.2f}, {noticed[1]:.2f} s after SIGSTOP: {sides[0].end}\n"
            f"after SIGCONT: others served within {served:.2f} s; both sessions ended within {took:.2f} s: {ends}"
        )
        assert served < MARGIN
        assert [(await happens(server, "ended"))["how"] for _ in fresh] == [None, None]
        assert server.errors == []
