"""A peer that leaves, in whatever way, is one INFO line of the server, and its readers get SessionClosed."""

from __future__ import annotations

import logging
from functools import partial

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from tests.api.staged import subscribed
from tests.api.test_blame import AppError, listening, records
from tests.http.serving import CERTIFICATE

SCHEMES = pytest.mark.parametrize("scheme", ["https", "moqt"])
CLIENTS = 4
"""Clients of each kind: what a client sends last arrives in one packet or in several."""


# -- servers: what is natural to write ---------------------------------------------------------------------


async def read_frames(session, path, seen):
    try:
        async with session.subscribe(path, "chat") as subscription:
            async for group in subscription:
                async for _ in group:
                    pass
    except Exception as error:
        seen.append(error)
        raise


async def bare(request, seen):
    """Read the first member's track, with no nursery around."""
    async with request.accept() as session:
        async with session.announcements() as announcements:
            path = (await announcements.receive()).path
        await read_frames(session, path, seen)


async def in_a_nursery(request, seen):
    """Read each member's track in a task of its own, inside the session."""
    async with request.accept() as session, trio.open_nursery() as nursery, session.announcements() as announcements:
        async for announcement in announcements:
            if announcement.active:
                nursery.start_soon(read_frames, session, announcement.path, seen)


async def around_the_session(request, seen):
    """The same with a nursery around the session."""
    async with trio.open_nursery() as outer:
        outer.start_soon(partial(in_a_nursery, request, seen))


SERVERS = [bare, in_a_nursery, around_the_session]


# -- clients: how they leave -------------------------------------------------------------------------------


async def stay_in(session, opened, pause=0.0):
    """Publish a group that stays open, until cancelled."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("chat")
    try:
        async with session.publish("room/ada", broadcast), track.open_group() as group:
            await group.send(b"hello")
            await track.wait_subscribed()
            opened.set()
            await trio.sleep_forever()
    finally:
        # The session's end comes after the resets, as from a process that is busy or far away.
        with trio.CancelScope(shield=True):
            await trio.sleep(pause)


async def is_cancelled(url, pause=0.0):
    async with trio.open_nursery() as nursery:
        opened = trio.Event()

        async def run():
            async with moqt.connect(url, fingerprint=CERTIFICATE.fingerprint) as session:
                await stay_in(session, opened, pause)

        nursery.start_soon(run)
        await opened.wait()
        await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def raises(url):
    async def run():
        async with moqt.connect(url, fingerprint=CERTIFICATE.fingerprint) as session, trio.open_nursery() as nursery:
            opened = trio.Event()
            nursery.start_soon(stay_in, session, opened)
            await opened.wait()
            raise AppError

    with pytest.RaisesGroup(AppError, allow_unwrapped=True, flatten_subgroups=True):
        await run()


async def closes(url):
    async with moqt.connect(url, fingerprint=CERTIFICATE.fingerprint) as session, trio.open_nursery() as nursery:
        opened = trio.Event()
        nursery.start_soon(stay_in, session, opened)
        await opened.wait()
        session.close(77, "bye")
        nursery.cancel_scope.cancel()


CLIENT_WAYS = {
    "cancelled": is_cancelled,
    "cancelled, the end comes later": partial(is_cancelled, pause=0.04),
    "cancelled, the end comes much later": partial(is_cancelled, pause=0.3),
    "raises": raises,
    "closes": closes,
}


async def no_sessions(listener):
    """Wait until the listener has no session and no handler."""
    while listener.statistics().sessions:  # noqa: ASYNC110 - the listener has no such event
        await trio.sleep(0.01)
    await listener.aclose()


@pytest.mark.parametrize("leave", CLIENT_WAYS)
@pytest.mark.parametrize("server", SERVERS, ids=lambda value: value.__name__)
@SCHEMES
async def test_one_line(scheme, server, leave, caplog):
    """One INFO line for each client that leaves, whatever the handler's shape."""
    caplog.set_level(logging.INFO)
    seen: list[Exception] = []
    with trio.fail_after(20):
        async with listening(partial(server, seen=seen)) as listener:
            for _ in range(CLIENTS):
                await CLIENT_WAYS[leave](f"{scheme}://localhost:{listener.port}/")
            await no_sessions(listener)
    lines = records(caplog, logging.INFO)
    assert [(line.levelno, line.exc_info) for line in lines] == [(logging.INFO, None)] * CLIENTS, caplog.text
    assert all(" ended after " in line.getMessage() for line in lines)
    if "later" not in leave:
        assert {type(error) for error in seen} <= {moqt.SessionClosed}


SESSION_GONE = 0x170D7B68
"""The code of WebTransport itself for the streams of a session that has ended; aiomoqt resets them with it first."""


@pytest.mark.parametrize("after", [0.0, 0.09, 0.2])
@pytest.mark.parametrize("code", [moqt.StreamCode.CANCELLED, SESSION_GONE])
async def test_a_reset_and_the_end_of_the_session(after, code, autojump_clock):
    """A reader of a stream that was reset gets the end of the session, if that follows within a tenth of a second."""
    async with (
        subscribed(delivery="reliable") as (_, server, track, subscription),
        trio.open_nursery() as nursery,
    ):
        group = track.open_group()
        await group.send(b"x")
        reader = await subscription.receive()
        await reader.receive()
        began = trio.current_time()

        async def read():
            with pytest.raises(moqt.SessionClosed if after < 0.1 else moqt.StreamReset):
                await reader.receive()
            assert trio.current_time() - began == pytest.approx(min(after, 0.1), abs=1e-3)

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        group.reset(code)
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(after)
        server.close()


async def test_leaving_before_a_subscription(caplog):
    """A broadcast that went away with its session, before the server asked for it, is no failure of the handler."""
    caplog.set_level(logging.INFO)

    async def handler(request):
        async with request.accept() as session:
            await read_frames(session, "nothing here", [])

    async with listening(handler) as listener:
        with trio.fail_after(10):
            async with moqt.connect(listener.urls[1], fingerprint=CERTIFICATE.fingerprint):
                await trio.sleep(0.1)
            await no_sessions(listener)
    [line] = [line for line in records(caplog, logging.INFO) if line.name.startswith("moqt_trio.server")]
    assert (line.levelno, line.exc_info) == (logging.INFO, None)


@SCHEMES
async def test_asked_after_goaway(scheme, caplog):
    """A client that has sent GOAWAY is leaving: a handler that asks it for more ends without a failure."""
    caplog.set_level(logging.INFO)

    async def handler(request):
        async with request.accept() as session:
            await session.wait_goaway()
            async with session.announcements():
                pass

    async with listening(handler) as listener:
        with trio.fail_after(10):
            url = f"{scheme}://localhost:{listener.port}/"
            async with moqt.connect(url, fingerprint=CERTIFICATE.fingerprint) as session:
                await session.goaway()
                ended = await session.wait_closed()
            await no_sessions(listener)
    [line] = records(caplog, logging.INFO)
    assert (line.levelno, line.exc_info) == (logging.INFO, None)
    assert ended.remote_code == moqt.SessionCode.NO_ERROR


async def raise_beside(request):
    """An application's failure at the moment at which the client leaves."""
    async with request.accept() as session:
        await session.wait_closed()
        raise AppError


async def raise_in_a_group(request):
    async with request.accept() as session:
        ended = await session.wait_closed()
        raise ExceptionGroup("two", [ended, AppError()])


@pytest.mark.parametrize("handler", [raise_beside, raise_in_a_group], ids=lambda value: value.__name__)
async def test_an_applications_failure(handler, caplog):
    """An application's own exception stays an ERROR with its traceback, also while its client leaves."""
    async with listening(handler) as listener:
        with trio.fail_after(10):
            async with moqt.connect(listener.urls[1], fingerprint=CERTIFICATE.fingerprint):
                pass
            await no_sessions(listener)
    [record] = records(caplog, logging.WARNING)
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None


async def test_a_reset_without_a_departure(caplog):
    """A client withdraws its broadcast and stays: the handler that did not expect that has failed."""
    async with listening(partial(bare, seen=[])) as listener:
        with trio.fail_after(10):
            async with moqt.connect(listener.urls[1], fingerprint=CERTIFICATE.fingerprint) as session:
                async with trio.open_nursery() as nursery:
                    opened = trio.Event()
                    nursery.start_soon(stay_in, session, opened)
                    await opened.wait()
                    nursery.cancel_scope.cancel()
                ended = await session.wait_closed()
            await no_sessions(listener)
    assert ended.remote_code == moqt.SessionCode.INTERNAL_ERROR
    [record] = records(caplog, logging.WARNING)
    assert record.levelno == logging.ERROR
    assert record.exc_info[0] is moqt.StreamReset


@SCHEMES
async def test_a_server_that_leaves(scheme):
    """The readers of a client get SessionClosed, too, when the server's handler is cancelled."""

    async def handler(request):
        with trio.CancelScope() as scope:
            async with request.accept() as session, trio.open_nursery() as nursery:
                opened = trio.Event()
                nursery.start_soon(stay_in, session, opened, 0.03)
                await opened.wait()
                scope.cancel()

    seen: list[Exception] = []
    with trio.fail_after(20):
        async with listening(handler) as listener:
            for _ in range(CLIENTS):
                url = f"{scheme}://localhost:{listener.port}/"
                async with moqt.connect(url, fingerprint=CERTIFICATE.fingerprint) as session:
                    with pytest.raises(moqt.SessionClosed):
                        await read_frames(session, "room/ada", seen)
    assert len(seen) == CLIENTS


@SCHEMES
async def test_a_publisher_that_leaves_when_it_is_done(scheme):
    """The end of a track that was finished just before its publisher left arrives before the end of the session."""
    seen: list[bytes] = []
    ended = 0

    async def handler(request):
        nonlocal ended
        async with request.accept() as session:
            await session.wait_announced("room/ada")
            async with session.subscribe("room/ada", "t") as subscription:
                async for group in subscription:
                    seen.extend(await group.read_all())
            ended += 1

    with trio.fail_after(20):
        async with listening(handler) as listener:
            for _ in range(5 * CLIENTS):
                url = f"{scheme}://localhost:{listener.port}/"
                async with moqt.connect(url, fingerprint=CERTIFICATE.fingerprint) as session:
                    track = (broadcast := moqt.Broadcast()).track("t")
                    async with session.publish("room/ada", broadcast):
                        await track.wait_subscribed()
                        await track.write(b"x")
                        track.finish()
            await no_sessions(listener)
    assert (len(seen), ended) == (5 * CLIENTS, 5 * CLIENTS)
