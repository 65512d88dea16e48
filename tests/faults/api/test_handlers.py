"""Handlers that fail, return early or are cancelled, and a server that is stopped under load."""

from __future__ import annotations

import contextlib
from functools import partial

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from tests.api.interrupting import until

SCHEMES = pytest.mark.parametrize("scheme", ["https", "moqt"])


class AppError(Exception):
    """An application's own failure."""


async def raises(request: moqt.SessionRequest) -> None:
    async with request.accept():
        raise AppError("within the session")


async def raises_a_group(request: moqt.SessionRequest) -> None:
    async with request.accept(), trio.open_nursery() as nursery:

        async def fail() -> None:
            raise AppError("in a task")

        nursery.start_soon(fail)
        nursery.start_soon(fail)


async def raises_afterwards(request: moqt.SessionRequest) -> None:
    async with request.accept():
        pass
    raise AppError("after the session")


async def returns_early(request: moqt.SessionRequest) -> None:
    async with request.accept():
        return


async def cancels_itself(request: moqt.SessionRequest) -> None:
    with trio.CancelScope() as scope:
        async with request.accept(), trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()


async def closes_with_a_code(request: moqt.SessionRequest) -> None:
    async with request.accept() as session:
        session.close(99, "my reason")


async def stays(request: moqt.SessionRequest) -> None:
    async with request.accept() as session:
        await session.wait_closed()


@SCHEMES
@pytest.mark.parametrize(
    ("handler", "code"),
    [
        (raises, moqt.SessionCode.INTERNAL_ERROR),
        (raises_a_group, moqt.SessionCode.INTERNAL_ERROR),
        (raises_afterwards, moqt.SessionCode.NO_ERROR),
        (returns_early, moqt.SessionCode.NO_ERROR),
        (cancels_itself, moqt.SessionCode.NO_ERROR),
        (closes_with_a_code, 99),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_what_a_handler_does_concerns_its_own_session_only(scheme, handler, code, caplog):
    """The client of a failing handler gets the code for it, it is logged once, and the other sessions go on."""
    async with trio.open_nursery() as nursery:
        router = moqt.Router({"/": stays, "/faulty": handler})
        listener = await nursery.start(partial(moqt.serve, router, "127.0.0.1", 0))
        options = {"fingerprint": listener.fingerprint}
        url = f"{scheme}://127.0.0.1:{listener.port}/"
        async with moqt.connect(url, **options) as neighbour:
            tasks = None
            for _ in range(2):
                with trio.fail_after(5):
                    try:
                        async with moqt.connect(url + "faulty", **options) as session:
                            error = await session.wait_closed()
                    except moqt.SessionClosed as closed:
                        error = closed
                    await until(lambda: listener.statistics().sessions == 1)
                assert isinstance(error, moqt.SessionClosed)
                assert (error.remote_code, error.by_peer) == (code, True)
                await trio.testing.wait_all_tasks_blocked(0.02)
                tasks = tasks or trio.lowlevel.current_statistics().tasks_living
            assert trio.lowlevel.current_statistics().tasks_living == tasks
            assert neighbour.closed is None
            async with moqt.connect(url, **options) as fresh:
                assert fresh.closed is None
        nursery.cancel_scope.cancel()
    failures = [record for record in caplog.records if record.exc_info]
    assert len(failures) == (2 if handler.__name__.startswith("raises") else 0)


async def busy_server(
    server: trio.Nursery, readers: trio.Nursery, clients: int
) -> tuple[moqt.Listener, list[moqt.MoqtError]]:
    """Start a server that publishes without end, and clients of both transports that read; return how these end."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    ends: list[moqt.MoqtError] = []
    reading: list[int] = []

    async def publish(request: moqt.SessionRequest) -> None:
        async with request.accept() as session, session.publish("b", broadcast):
            await session.wait_closed()

    async def write() -> None:
        while True:
            await track.write(bytes(2000))
            await trio.sleep(0.002)

    async def read(url: str, fingerprint: str) -> None:
        async with moqt.connect(url, fingerprint=fingerprint) as session:
            async with session.announcements() as announcements:
                await announcements.receive()
            async with session.subscribe("b", "t") as subscription:
                reading.append((await subscription.receive()).sequence)
                with contextlib.suppress(moqt.SessionClosed, moqt.StreamReset):
                    async for group in subscription:
                        await group.read_all()
            ends.append(await session.wait_closed())

    readers.start_soon(write)
    listener = await server.start(partial(moqt.serve, publish, "127.0.0.1", 0))
    for number in range(clients):
        scheme = ("https", "moqt")[number % 2]
        readers.start_soon(read, f"{scheme}://127.0.0.1:{listener.port}/", listener.fingerprint)
    await until(lambda: listener.statistics().sessions == clients and len(reading) == clients)
    return listener, ends


async def test_a_server_that_is_cancelled_under_load():
    """Cancelling `serve` ends at once, closes every client's session, and leaves no task."""
    before = trio.lowlevel.current_statistics().tasks_living
    async with trio.open_nursery() as clients:
        async with trio.open_nursery() as server:
            _, ends = await busy_server(server, clients, 12)
            began = trio.current_time()
            server.cancel_scope.cancel()
        assert trio.current_time() - began < 1
        await until(lambda: len(ends) == 12)
        clients.cancel_scope.cancel()
    assert all(isinstance(error, moqt.SessionClosed) and error.by_peer for error in ends)
    assert {error.remote_code for error in ends} == {0}
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_a_server_that_is_drained_under_load():
    """A shutdown with a grace ends soon after it, and every client gets a GOAWAY or a close."""
    before = trio.lowlevel.current_statistics().tasks_living
    async with trio.open_nursery() as nursery:
        listener, ends = await busy_server(nursery, nursery, 12)
        began = trio.current_time()
        await listener.aclose(grace=0.3)
        assert 0.3 <= trio.current_time() - began < 2
        await until(lambda: len(ends) == 12)
        assert listener.statistics().sessions == 0
        nursery.cancel_scope.cancel()
    assert trio.lowlevel.current_statistics().tasks_living == before
