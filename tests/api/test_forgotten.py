"""A block that was made and never entered says so, and which line to write; entering it costs no warning."""

from __future__ import annotations

import asyncio
import gc
import warnings

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.testing import session_pair
from tests.api.test_blame import listening
from tests.http.serving import CERTIFICATE

with warnings.catch_warnings():
    # Of Python 3.12 and 3.13, whose child watchers trio-asyncio replaces while they are there.
    warnings.simplefilter("ignore", DeprecationWarning)
    import trio_asyncio

URL = "moqt://localhost:1/"

BLOCKS = {
    "publish": (
        lambda session: session.publish("room/ada", moqt.Broadcast()),
        "session.publish('room/ada', broadcast)",
    ),
    "announcements": (lambda session: session.announcements("room"), "session.announcements('room') as announcements"),
    "subscribe": (
        lambda session: session.subscribe("room/ada", "chat"),
        "session.subscribe('room/ada', 'chat') as subscription",
    ),
    "fetch": (lambda session: session.fetch("room/ada", "chat", 3), "session.fetch('room/ada', 'chat', 3) as group"),
    "probe": (lambda session: session.probe(), "session.probe() as reports"),
    "connect": (lambda session: moqt.connect(URL), "moqt_trio.connect(url) as session"),
    "session_pair": (lambda session: session_pair(), "session_pair() as (client, server)"),
    "open_group": (lambda session: moqt.Broadcast().track("chat").open_group(), "track.open_group() as group"),
}
"""How each block is made, and the line to write."""


async def awaits(block):
    await block


async def enters(block):
    with block:
        pass


USES = {"await": awaits, "with": enters}


@pytest.mark.parametrize("kind", BLOCKS)
async def test_never_entered(kind):
    """A block that is dropped is a ResourceWarning at the line that dropped it, with the line to write."""
    make, line = BLOCKS[kind]
    async with session_pair() as (client, _):
        with pytest.warns(ResourceWarning) as caught:
            make(client)
    [warning] = caught
    assert warning.filename == __file__
    assert f"write: async with {line}:" in str(warning.message)


async def test_accept_never_entered():
    """The same for a request that a handler accepts."""
    caught = []

    async def handler(request):
        with pytest.warns(ResourceWarning, match=r"write: async with request\.accept\(\) as session:") as found:
            request.accept()
        caught.extend(found)
        scope.cancel()

    async with listening(handler) as listener:
        with trio.move_on_after(5) as scope:
            async with moqt.connect(listener.urls[1], fingerprint=CERTIFICATE.fingerprint):
                pass
    assert len(caught) == 1


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("use", USES)
async def test_used_in_another_way(kind, use):
    """`await` and `with` are a TypeError that says what is wanted, and no second complaint follows."""
    make, _ = BLOCKS[kind]
    async with session_pair() as (client, _server):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(TypeError, match=r"'(await|with)' is wrong here: .*async with"):
                await USES[use](make(client))
            gc.collect()


async def test_no_warning():
    """Blocks that are entered, that fail as they are entered, or groups that are ended otherwise warn of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with session_pair() as (client, server):
            broadcast = moqt.Broadcast()
            track = broadcast.track("chat")
            async with server.publish("room/ada", broadcast), client.announcements() as announcements:
                with pytest.raises(ValueError, match="published on this session already"):
                    async with server.publish("room/ada", broadcast):
                        pass
                await announcements.receive()
                async with client.subscribe("room/ada", "chat") as subscription, client.probe():
                    await track.wait_subscribed()
                    async with track.open_group() as group:
                        await group.send(b"x")
                    track.open_group().finish()
                    track.open_group().reset()
                    await subscription.receive()
                aborted = track.open_group()
                track.abort()
                del aborted
            client.close()
            await client.wait_closed()
            with pytest.raises(moqt.SessionClosed):
                async with client.announcements():
                    pass
        gc.collect()


async def entering():
    async with moqt.connect(URL):
        pass


async def pairing():
    async with session_pair():
        pass


async def serving():
    await moqt.serve(entering)


async def staying():
    async def handler(session):
        pass

    await moqt.stay_connected(URL, handler)


async def opening():
    moqt.Broadcast().track("chat").open_group()


async def writing():
    await moqt.Broadcast().track("chat").write(b"x")


async def writing_at_once():
    moqt.Broadcast().track("chat").write_nowait(b"x")


async def waiting():
    await moqt.Broadcast().track("chat").wait_subscribed()


@pytest.mark.parametrize(
    "use",
    [entering, pairing, serving, staying, opening, writing, writing_at_once, waiting],
    ids=lambda value: value.__name__,
)
def test_from_asyncio(use):
    """Under asyncio each entry point is a RuntimeError that says that the library runs on Trio."""
    # Once trio_asyncio is imported, `asyncio.run` takes a loop of its own, which runs on Trio.
    with (
        pytest.raises(RuntimeError, match=r"moqt_trio runs on Trio: start the program with trio\.run"),
        asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner,
    ):
        runner.run(use())


@pytest.mark.parametrize("use", [entering, pairing, serving, staying, waiting], ids=lambda value: value.__name__)
async def test_from_an_asyncio_task_on_trio(use):
    """So is each that waits in a task of trio_asyncio's, where only asyncio can be awaited."""
    async with trio_asyncio.open_loop():
        with pytest.raises(RuntimeError, match=r"moqt_trio runs on Trio: .*trio_asyncio\.trio_as_aio"):
            await trio_asyncio.aio_as_trio(use)()
