"""Cancellation at every await of what touches sockets: connecting, accepting, serving and shutting down."""

from __future__ import annotations

import socket
from functools import partial

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from tests.api.interrupting import cancel_everywhere, until

SCHEMES = pytest.mark.parametrize("scheme", ["https", "moqt"])
QUICK = moqt.Limits(close_timeout=0.5)


async def hold(request: moqt.SessionRequest) -> None:
    async with request.accept() as session:
        await session.wait_closed()


@SCHEMES
async def test_connect(scheme):
    """A connect that is cancelled anywhere leaves no task, and no session on the server."""
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(moqt.serve, hold, "127.0.0.1", 0, limits=QUICK))
        url = f"{scheme}://127.0.0.1:{listener.port}/"

        async def scenario(attempt):
            before = trio.lowlevel.current_statistics().tasks_living

            async def work():
                async with moqt.connect(url, fingerprint=listener.fingerprint, limits=QUICK) as session:
                    assert session.closed is None

            await attempt(work)
            # The server's tasks end when the close has arrived.
            await until(lambda: trio.lowlevel.current_statistics().tasks_living <= before)
            assert listener.statistics().sessions == 0

        assert await cancel_everywhere(scenario) >= 6
        async with moqt.connect(url, fingerprint=listener.fingerprint) as session:
            assert session.closed is None
        nursery.cancel_scope.cancel()


@SCHEMES
async def test_accept(scheme):
    """A handler that is cancelled anywhere ends its session with NO_ERROR or a refusal, and the listener goes on."""
    rounds: list[object] = []

    async def scenario(attempt):
        async def handler(request: moqt.SessionRequest) -> None:
            async def work():
                async with request.accept() as session, session.publish("b", moqt.Broadcast()):
                    await trio.lowlevel.checkpoint()

            await attempt(work)

        async with trio.open_nursery() as nursery:
            listener = await nursery.start(partial(moqt.serve, handler, "127.0.0.1", 0, limits=QUICK))
            url = f"{scheme}://127.0.0.1:{listener.port}/"
            with trio.fail_after(5):
                try:
                    async with moqt.connect(url, fingerprint=listener.fingerprint, limits=QUICK) as session:
                        rounds.append(await session.wait_closed())
                except (moqt.SessionClosed, moqt.Rejected) as error:
                    rounds.append(error)
            await until(lambda: listener.statistics().sessions == 0)
            nursery.cancel_scope.cancel()

    assert await cancel_everywhere(scenario) >= 3
    for error in rounds:
        if isinstance(error, moqt.SessionClosed):
            assert error.by_peer
            assert error.remote_code == moqt.SessionCode.NO_ERROR
        else:
            assert isinstance(error, moqt.Rejected)


async def test_listener_aclose():
    """However early a shutdown is cancelled, the listener ends: its clients are closed and its port is free."""

    async def scenario(attempt):
        async with trio.open_nursery() as nursery:
            listener = await nursery.start(partial(moqt.serve, hold, "127.0.0.1", 0, limits=QUICK))
            url = f"moqt://127.0.0.1:{listener.port}/"
            async with moqt.connect(url, fingerprint=listener.fingerprint, limits=QUICK) as session:
                await attempt(partial(listener.aclose, grace=0.05))
                with trio.fail_after(2):
                    await session.wait_closed()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(("127.0.0.1", listener.port))

    await cancel_everywhere(scenario, least=2)


async def test_serve():
    """A start of `serve` that is cancelled leaves no socket bound."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def scenario(attempt):
        async def work():
            async with trio.open_nursery() as nursery:
                await nursery.start(moqt.serve, hold, "127.0.0.1", port)
                await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()

        await attempt(work)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(("127.0.0.1", port))

    await cancel_everywhere(scenario, least=2)
