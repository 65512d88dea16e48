"""Structured concurrency: the owners of tasks, the propagation of failures, and the guarantees of closing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import session_pair


class AppError(Exception):
    """An application's own failure."""


async def echo_forever(request: moqt.SessionRequest) -> None:
    async with request.accept() as session:
        await session.wait_closed()


def living_tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


@pytest.mark.parametrize("scheme", [0, 1], ids=["webtransport", "quic"])
async def test_no_task_outlives_its_block(scheme):
    """connect() and serve() own their tasks: after the blocks as many run as before."""
    before = living_tasks()
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(moqt.serve, echo_forever, "localhost", 0)
        serving = living_tasks()
        async with (
            moqt.connect(listener.urls[scheme], fingerprint=listener.fingerprint) as session,
            session.publish("b", moqt.Broadcast()),
            session.announcements() as announcements,
        ):
            assert announcements.active == ()
            assert living_tasks() > serving
        with trio.fail_after(5):
            await listener.aclose()
    assert living_tasks() == before


@pytest.mark.parametrize("scheme", [0, 1], ids=["webtransport", "quic"])
async def test_a_single_failure_is_raised_without_a_group(scheme):
    """An exception of the block leaves connect() as itself, not in a group, and the server sees INTERNAL_ERROR."""
    ended: list[moqt.MoqtError] = []
    done = trio.Event()

    async def handler(request: moqt.SessionRequest) -> None:
        async with request.accept() as session:
            ended.append(await session.wait_closed())
            done.set()

    async with trio.open_nursery() as nursery:
        listener = await nursery.start(moqt.serve, handler, "localhost", 0)
        with pytest.raises(AppError, match="mine"):
            async with moqt.connect(listener.urls[scheme], fingerprint=listener.fingerprint):
                raise AppError("mine")
        with trio.fail_after(5):
            await done.wait()
        nursery.cancel_scope.cancel()
    error = ended[0]
    assert isinstance(error, moqt.SessionClosed)
    assert error.by_peer
    assert error.remote_code == moqt.SessionCode.INTERNAL_ERROR


async def test_several_failures_are_a_group():
    """When several tasks of the application really fail, both failures are there."""

    async def fail_twice() -> None:
        async with session_pair(), trio.open_nursery() as nursery:

            async def fail(text: str) -> None:
                try:
                    await trio.sleep_forever()
                finally:
                    raise AppError(text)

            nursery.start_soon(fail, "one")
            nursery.start_soon(fail, "two")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    with pytest.raises(ExceptionGroup) as caught:
        await fail_twice()
    matched = caught.value.split(AppError)[0]
    assert matched is not None


@pytest.mark.parametrize("scheme", [0, 1], ids=["webtransport", "quic"])
async def test_a_handler_that_fails_ends_its_session_only(scheme, caplog):
    """The client of a handler that raises gets INTERNAL_ERROR; another session goes on; the failure is logged."""
    failing = trio.Event()

    async def handler(request: moqt.SessionRequest) -> None:
        async with request.accept() as session:
            if request.query == "fail":
                failing.set()
                raise AppError("handler")
            await session.wait_closed()

    router = moqt.Router({"/": handler}, default="/")
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(moqt.serve, router, "localhost", 0)
        url = listener.urls[scheme]
        async with moqt.connect(url, fingerprint=listener.fingerprint) as other:
            with trio.fail_after(5):
                try:
                    async with moqt.connect(url + "?fail", fingerprint=listener.fingerprint) as session:
                        error = await session.wait_closed()
                except moqt.SessionClosed as closed:
                    error = closed
            assert isinstance(error, moqt.SessionClosed)
            assert error.remote_code == moqt.SessionCode.INTERNAL_ERROR
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert other.closed is None
        nursery.cancel_scope.cancel()
    assert any("failed" in record.message and record.exc_info for record in caplog.records)


async def test_aclose_is_idempotent():
    """Closing twice, or after the peer has closed, does nothing more and raises nothing."""
    async with session_pair() as (client, server):
        await client.aclose()
        await client.aclose()
        await server.aclose()
        assert isinstance(client.closed, moqt.SessionClosed)
        assert client.closed.local_code == 0


async def test_aclose_finishes_when_cancelled(autojump_clock):
    """A cancelled aclose() still closes, and the peer gets the close."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable")
    async with session_pair() as (client, server), server.publish("b", broadcast), client.subscribe("b", "t"):
        await track.wait_subscribed()
        track.open_group()
        with trio.CancelScope() as scope:
            scope.cancel()
            await server.aclose()
        assert server.closed is not None
        with trio.fail_after(1):
            error = await client.wait_closed()
    assert isinstance(error, moqt.SessionClosed)
    assert error.by_peer


async def test_aclose_is_bounded_by_the_close_timeout(autojump_clock):
    """A subscriber that does not read cannot keep a session from closing longer than Limits.close_timeout."""
    limits = moqt.Limits(stream_window=1024, connection_window=4096, close_timeout=2)
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with (
        session_pair(limits=limits) as (client, server),
        server.publish("b", broadcast),
        client.subscribe("b", "t"),
    ):
        await track.wait_subscribed()
        await track.write(bytes(100_000))
        began = trio.current_time()
        await server.aclose()
        assert trio.current_time() - began <= 2 * limits.close_timeout


async def test_everyone_learns_of_the_end():
    """When the session ends, every task that waits on it gets SessionClosed."""
    broadcast = moqt.Broadcast()
    broadcast.track("t")
    seen: list[str] = []
    async with (
        session_pair() as (client, server),
        server.publish("b", broadcast),
        client.announcements() as announcements,
        client.subscribe("b", "t") as subscription,
    ):
        await announcements.receive()
        async with trio.open_nursery() as nursery:

            async def expect_end(name: str, receive: object) -> None:
                with pytest.raises(moqt.SessionClosed):
                    await receive()  # type: ignore[operator]
                seen.append(name)

            nursery.start_soon(expect_end, "announcements", announcements.receive)
            nursery.start_soon(expect_end, "subscription", subscription.receive)
            await trio.testing.wait_all_tasks_blocked()
            server.close(7, "enough")
            error = await client.wait_closed()
        with pytest.raises(moqt.SessionClosed):
            async with client.subscribe("b", "t"):
                pass
    assert sorted(seen) == ["announcements", "subscription"]
    assert isinstance(error, moqt.SessionClosed)
    assert (error.remote_code, error.reason, error.by_peer) == (7, "enough", True)


def task_tree(root: trio.lowlevel.Task) -> set[trio.lowlevel.Task]:
    """Return a task with all that run in its nurseries, at any depth."""
    found = {root}
    for nursery in root.child_nurseries:
        for child in nursery.child_tasks:
            found |= task_tree(child)
    return found


@pytest.mark.parametrize("scheme", [0, 1], ids=["webtransport", "quic"])
async def test_every_task_belongs_to_the_caller(scheme, monkeypatch):
    """Nothing is started or hooked in beside the caller's own tasks, while sessions run and after."""

    def forbidden(*arguments: object, **options: object) -> None:
        raise AssertionError("beside the task tree of the caller")

    for name in ("spawn_system_task", "add_instrument", "start_guest_run"):
        monkeypatch.setattr(trio.lowlevel, name, forbidden)
    root = trio.lowlevel.current_root_task()
    assert root is not None
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")

    async def publish(request: moqt.SessionRequest) -> None:
        async with request.accept() as session, session.publish("b", broadcast):
            await session.wait_closed()

    own = trio.lowlevel.current_task()
    beside = task_tree(root) - task_tree(own)
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(moqt.serve, publish, "localhost", 0)
        async with (
            moqt.connect(listener.urls[scheme], fingerprint=listener.fingerprint) as session,
            session.subscribe("b", "t") as subscription,
        ):
            await track.wait_subscribed()
            await track.write(b"x")
            assert await (await subscription.receive()).read_all() == [b"x"]
            assert task_tree(root) - task_tree(own) == beside
            assert len(task_tree(own)) > 1
        await listener.aclose()
    assert task_tree(own) == {own}
    assert task_tree(root) - {own} == beside


def test_no_class_relies_on_the_garbage_collector():
    """No class has a `__del__`, and nothing is finalized when an object goes away or when the interpreter ends."""
    forbidden = {"__del__", "finalize", "atexit", "spawn_system_task"}
    found = []
    for path in sorted(Path(moqt.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = {
                name
                for name in (getattr(node, "name", None), getattr(node, "attr", None), getattr(node, "id", None))
                if name in forbidden
            }
            found += [f"{path.name}: {name}" for name in names]
    assert found == []
