"""@moq/net in Chromium at a relay: a page publishes to viewers and views publishers, of this library and in a page.

The page speaks each version that both have, over WebTransport; the library's own side moq-lite-06 over raw QUIC.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

import moqt_trio as moqt
from tests.browser.chromium import CALL_TIMEOUT, bundle

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from tests.browser.chromium import Browser, Page

SOURCE = Path(__file__).with_name("moq_relay.js")
VERSIONS = ["moq-lite-05", "moq-lite-04", "moq-lite-03"]
PATH, TRACK = "live/cam", "text"
# Small groups, a group of many frames, and one that is larger than the window of a stream.
GROUPS = [
    *([f"group {number}"] for number in range(5)),
    [f"frame {number}" for number in range(40)],
    ["a" * 200_000, "b" * 200_000],
]

each_version = pytest.mark.parametrize("version", VERSIONS)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's script in one file, with the library in it."""
    return bundle(SOURCE, tmp_path_factory.mktemp("bundle"))


@attrs.frozen
class Visitor:
    """A page with a session at the relay."""

    page: Page

    async def run(self, function: str, **argument: Any) -> Any:
        """Runs one of the page's functions, in a thread: the call blocks, and the relay is in this process."""
        return await trio.to_thread.run_sync(self.page.run, f"(argument) => moq.{function}(argument)", argument)


@attrs.frozen
class Relay:
    """A relay on a port, and the browser of its visitors."""

    listener: moqt.Listener
    browser: Browser
    script: Path

    @asynccontextmanager
    async def visit(self, version: str) -> AsyncIterator[Visitor]:
        """Opens a page that has a session of this version with the relay."""
        url = f"https://localhost:{self.listener.port}/"
        opened = self.browser.open(url, scripts=[self.script], blank=True)
        visitor = Visitor(await trio.to_thread.run_sync(opened.__enter__))
        try:
            where = {"url": url, "fingerprint": self.listener.fingerprint, "version": version}
            assert await visitor.run("connect", **where) == version
            yield visitor
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(opened.__exit__, None, None, None)

    def connect(self) -> AbstractAsyncContextManager[moqt.Session]:
        """Opens a session of this library with the relay."""
        url = f"moqt://localhost:{self.listener.port}/"
        return moqt.connect(url, fingerprint=self.listener.fingerprint)


@pytest.fixture
async def relay(browser: Browser, script: Path) -> AsyncIterator[Relay]:
    """A relay, and what opens sessions with it."""
    origin = moqt.Origin()

    async def handle(request: moqt.SessionRequest) -> None:
        async with request.accept(view=origin.view(request.path)) as session:
            await session.wait_closed()

    with trio.fail_after(4 * CALL_TIMEOUT):
        async with trio.open_nursery() as nursery:
            router = moqt.Router(fallback=handle, default="/")
            serve = partial(moqt.serve, router, "localhost", 0, hop_id=origin.hop_id)
            listener = await nursery.start(serve)
            yield Relay(listener, browser, script)
            await listener.aclose()


async def groups_of(subscription: moqt.Subscription, count: int) -> dict[int, list[str]]:
    """Returns so many groups by their sequences, each whole."""
    groups = {}
    for _ in range(count):
        group = await subscription.receive()
        groups[group.sequence] = [bytes(frame).decode() for frame in await group.read_all()]
    return groups


@each_version
async def test_a_page_publishes(relay: Relay, version: str):
    """A viewer of this library is told of the page's broadcast, gets each frame of each group, and is told of its
    end."""
    async with AsyncExitStack() as stack:
        page = await stack.enter_async_context(relay.visit(version))
        viewer = await stack.enter_async_context(relay.connect())
        announcements = await stack.enter_async_context(viewer.announcements("live"))
        await page.run("publish", path=PATH, track=TRACK)
        announcement = await announcements.receive()
        assert (announcement.path, announcement.active) == (PATH, True)
        # The page's latest group is there for a viewer that comes later; by it the page is known to be subscribed to.
        await page.run("write", groups=GROUPS[:1], first=0)
        subscription = await stack.enter_async_context(viewer.subscribe(PATH, TRACK, max_age=60))
        assert await groups_of(subscription, 1) == {0: GROUPS[0]}
        await page.run("write", groups=GROUPS[1:], first=1)
        assert await groups_of(subscription, len(GROUPS) - 1) == dict(enumerate(GROUPS[1:], 1))
        await page.run("end")
        announcement = await announcements.receive()
        assert (announcement.path, announcement.active) == (PATH, False)


@each_version
async def test_a_page_views(relay: Relay, version: str):
    """A page is told of the broadcast of a publisher of this library, gets each frame of each group, and is told of its
    end."""
    broadcast = moqt.Broadcast()
    track = broadcast.track(TRACK)
    async with relay.visit(version) as page, relay.connect() as publisher:
        await page.run("follow", prefix="live")
        async with publisher.publish(PATH, broadcast):
            assert await page.run("next") == {"path": "cam", "active": True}
            await page.run("subscribe", path=PATH, track=TRACK)
            await track.wait_subscribed()
            for frames in GROUPS:
                async with track.open_group() as group:
                    for frame in frames:
                        await group.send(frame.encode())
            found = await page.run("read", count=len(GROUPS))
            assert sorted(found) == [[number, frames] for number, frames in enumerate(GROUPS)]
        assert await page.run("next") == {"path": "cam", "active": False}


@each_version
async def test_a_page_views_another(relay: Relay, version: str):
    """Two pages meet at the relay, each in a session of its own."""
    async with relay.visit(version) as publisher, relay.visit(version) as viewer:
        await viewer.run("follow", prefix="live")
        await publisher.run("publish", path=PATH, track=TRACK)
        assert await viewer.run("next") == {"path": "cam", "active": True}
        await publisher.run("write", groups=GROUPS[:1], first=0)
        await viewer.run("subscribe", path=PATH, track=TRACK)
        assert await viewer.run("read", count=1) == [[0, GROUPS[0]]]
        await publisher.run("write", groups=GROUPS[1:], first=1)
        found = await viewer.run("read", count=len(GROUPS) - 1)
        assert sorted(found) == [[number, frames] for number, frames in enumerate(GROUPS) if number]
        await publisher.run("end")
        assert await viewer.run("next") == {"path": "cam", "active": False}
