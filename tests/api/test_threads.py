"""What only reads works from any thread: without trio's clock, and while the sessions change."""

from __future__ import annotations

import inspect
import threading
from functools import partial

import pytest
import trio

import moqt_trio as moqt
from tests.http.serving import CERTIFICATE

READING_METHODS = {"statistics": (), "tracks": ("room/ada",)}
"""The public methods that only read, with the arguments for them."""


def read_everything(thing):
    """Read every public attribute, and call what only reads; return the values by name."""
    found = {"repr": repr(thing)}
    for name in dir(thing):
        value = None if name.startswith("_") else getattr(thing, name)
        if name in READING_METHODS and callable(value):
            found[name] = value(*READING_METHODS[name])
        elif value is not None and not inspect.isroutine(value):
            found[name] = value
    return found


@pytest.mark.parametrize("development", [False, True], ids=["given", "development"])
@pytest.mark.parametrize("scheme", ["https", "moqt"])
async def test_every_object(scheme, development):
    """A thread reads the same of every public object as the task that has it."""
    things = []

    async def handler(request):
        things.append(request)
        async with (
            request.accept() as session,
            session.announcements() as announcements,
            session.subscribe("room/ada", "chat") as subscription,
        ):
            things.extend([session, announcements, subscription, await anext(subscription)])
            done.set()
            await session.wait_closed()

    done = trio.Event()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            certificate = None if development else CERTIFICATE
            serve = partial(moqt.serve, certificate=certificate)
            router = moqt.Router({"/": handler})
            listener = await nursery.start(serve, router, "localhost", 0)
            things += [listener, router]
            url = f"{scheme}://localhost:{listener.port}/"
            async with moqt.connect(url, fingerprint=listener.fingerprint) as session:
                things.append(session)
                broadcast = moqt.Broadcast()
                track = broadcast.track("chat", delivery="reliable")
                async with session.publish("room/ada", broadcast) as publication, track.open_group() as group:
                    things.extend([broadcast, track, publication, group])
                    await group.send(b"hello")
                    await done.wait()
                    for thing in things:
                        in_thread = await trio.to_thread.run_sync(read_everything, thing)
                        assert in_thread.keys() == read_everything(thing).keys()
                    assert await trio.to_thread.run_sync(lambda: listener.fingerprint) == listener.fingerprint
            await listener.aclose()
            for thing in things:
                await trio.to_thread.run_sync(read_everything, thing)


async def test_a_thread_without_trio():
    """A plain thread reads a listener, and a certificate that was loaded again."""
    certificates = [CERTIFICATE]
    other = moqt.development_certificate()
    found = []
    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, certificate=lambda: certificates[0])
        listener = await nursery.start(serve, moqt.Router({}), "localhost", 0)
        for certificate in (CERTIFICATE, other):
            certificates[0] = certificate
            thread = threading.Thread(target=lambda: found.append(listener.fingerprint))
            thread.start()
            await trio.to_thread.run_sync(thread.join)
        await listener.aclose()
    assert found == [CERTIFICATE.fingerprint.hex(), other.fingerprint.hex()]


async def test_while_sessions_change():
    """Numbers are read from a thread while subscriptions and sessions come and go."""

    async def handler(request):
        broadcast = moqt.Broadcast()
        broadcast.track("chat")
        async with request.accept() as session, session.publish("room", broadcast):
            sessions.append(session)
            await session.wait_closed()

    sessions: list[moqt.Session] = []
    over = threading.Event()

    def read():
        count = 0
        while not over.is_set():
            listener.statistics(), repr(listener), listener.urls
            for session in list(sessions):
                session.statistics(), repr(session)
                count += 1
        return count

    async def look(task_status):
        task_status.started()
        counts.append(await trio.to_thread.run_sync(read))

    counts = []
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            serve = partial(moqt.serve, certificate=CERTIFICATE)
            listener = await nursery.start(serve, handler, "localhost", 0)
            await nursery.start(look)
            try:
                for _ in range(3):
                    async with moqt.connect(listener.urls[1], fingerprint=listener.fingerprint) as session:
                        for _ in range(40):
                            async with session.subscribe("room", "chat"), session.subscribe("room", "chat"):
                                pass
            finally:
                over.set()
            await listener.aclose()
    assert counts[0] > 0
