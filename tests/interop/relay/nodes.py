"""Relays of ours on real sockets, and what passes through them and a moq-relay."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

import moqt_trio as moqt
from tests.interop.moq_rs import payloads
from tests.machine import seconds

if TYPE_CHECKING:
    from tests.interop.relay.program import MoqRelay

LITE = [f"moq-lite-0{number}" for number in range(6, 0, -1)]
IETF = [f"moqt-{number}" for number in range(22, 13, -1)]
FIRST_LIST_STAYS = ["moq-lite-02", "moq-lite-01"]
"""Where moq-relay never retracts what was announced when its list began."""
SCHEMES = ["https", "moqt"]
each_scheme = pytest.mark.parametrize("scheme", SCHEMES)
each_version = pytest.mark.parametrize("version", [*LITE, *IETF])

OURS, THEIRS = 1001, 2001
"""The hop ids of a relay of ours and of a moq-relay."""
PATH, TRACK = "live/cam", "video"
GROUPS, FRAMES = 5, 4
EXPECTED = {sequence: payloads(sequence, FRAMES) for sequence in range(GROUPS)}
QUICK = moqt.Backoff(retries=None, initial=0.02, factor=1.5, maximum=0.1)


@attrs.frozen(eq=False)
class Node:
    """A relay of ours that listens.

    Attributes:
        origin: What its sessions share.
        listener: Its listener.
    """

    origin: moqt.Origin
    listener: moqt.Listener

    def url(self, scheme: str = "moqt", query: str = "") -> str:
        return f"{scheme}://localhost:{self.listener.port}/{query}"

    def connect(self, version: str = "moq-lite-06", scheme: str = "moqt", **options):
        """Return a session with it."""
        fingerprint = self.listener.fingerprint
        return moqt.connect(self.url(scheme), versions=[version], fingerprint=fingerprint, **options)

    @asynccontextmanager
    async def linked(self, to: MoqRelay, version: str | None = None, scheme: str = "moqt", **options):
        """Run a link to a moq-relay for the length of the block."""
        options = {"retry": QUICK, "fingerprint": to.fingerprint} | options
        versions = None if version is None else [version]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(self.origin.link, to.url(scheme), versions=versions, **options))
            yield
            nursery.cancel_scope.cancel()

    async def wait_session(self) -> moqt.Session:
        """Wait until it has exactly one session, and return that."""
        await until(lambda: len(self.origin._sharing.watchers) == 1)
        [watcher] = self.origin._sharing.watchers
        return watcher.session


@asynccontextmanager
async def node(
    hop_id: int = OURS, *, port: int = 0, versions: list[str] | None = None, **options
) -> AsyncIterator[Node]:
    """Run a relay of ours: the ten lines of an application."""
    origin = moqt.Origin(hop_id=hop_id)

    async def handle(request: moqt.SessionRequest) -> None:
        async with request.accept(view=origin.view(request.path)) as session:
            await session.wait_closed()

    router = moqt.Router(fallback=handle, default="/")
    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, router, "localhost", port, hop_id=hop_id, versions=versions, **options)
        yield Node(origin, await nursery.start(serve))
        nursery.cancel_scope.cancel()


async def until(condition, figure: float = 10.0) -> None:
    """Wait until something holds that another process brings about."""
    with trio.fail_after(seconds(figure)):
        while not condition():  # noqa: ASYNC110 - no event reports what another process does
            await trio.sleep(0.002)


@contextmanager
def showing(*relays: MoqRelay) -> Iterator[None]:
    """Bound the block, and add what each moq-relay has printed to its failure."""
    try:
        with trio.fail_after(seconds(40.0)):
            yield
    except BaseException as error:
        for relay in relays:
            error.add_note(relay.child.output[-6000:])
        raise


async def next_change(news: moqt.Announcements) -> moqt.Announcement:
    """Return the next change that is not another route of what was announced."""
    while True:
        change = await news.receive()
        if not change.updated:
            return change


async def write_group(track: moqt.Track, sequence: int) -> None:
    async with track.open_group(sequence) as group:
        for frame in EXPECTED[sequence]:
            await group.send(frame)


async def read_group(subscription: moqt.Subscription) -> tuple[int, list[bytes]]:
    group = await subscription.receive()
    return group.sequence, [bytes(frame) async for frame in group]


async def meet(publisher: moqt.Session, viewer: moqt.Session) -> None:
    """Wait until what one publishes is announced to the other, over all the sessions between them."""
    async with publisher.publish("ready", moqt.Broadcast()):
        await viewer.wait_announced("ready")


async def check_contents(publisher: moqt.Session, viewer: moqt.Session) -> None:
    """Check announcement, contents and the announcement's end: what one publishes is there for the other."""
    broadcast = moqt.Broadcast()
    track = broadcast.track(TRACK, max_age=60)
    await meet(publisher, viewer)
    async with viewer.announcements(PATH) as news:
        if viewer.version in FIRST_LIST_STAYS:
            await news.wait_initial()
        async with publisher.publish(PATH, broadcast):
            change = await next_change(news)
            assert (str(change.path), change.active) == (PATH, True)
            async with viewer.subscribe(PATH, TRACK, max_age=60) as subscription:
                await track.wait_subscribed()
                # The relay at the publisher asks for the track before a viewer beyond it has begun with a group.
                await write_group(track, 0)
                received = dict([await read_group(subscription)])
                for sequence in range(1, GROUPS):
                    await write_group(track, sequence)
                received |= dict([await read_group(subscription) for _ in range(1, GROUPS)])
                assert received == EXPECTED
            await until(lambda: not track.subscribers)
        with trio.fail_after(seconds(2.0)):
            change = await next_change(news)
        assert (str(change.path), change.active) == (PATH, False)


async def check_late_viewer(publisher: moqt.Session, first: moqt.Session, late: moqt.Session) -> None:
    """Check that a viewer which comes in the middle of a group has it from its start, and its rest."""
    broadcast = moqt.Broadcast()
    track = broadcast.track(TRACK, max_age=60)
    async with publisher.publish(PATH, broadcast):
        await first.wait_announced(PATH)
        async with first.subscribe(PATH, TRACK) as early:
            await track.wait_subscribed()
            async with track.open_group(0) as group:
                for frame in EXPECTED[0][:2]:
                    await group.send(frame)
                begun = await early.receive()
                assert [bytes(await begun.receive()) for _ in range(2)] == EXPECTED[0][:2]
                async with late.subscribe(PATH, TRACK) as subscription:
                    received = await subscription.receive()
                    assert received.sequence == 0
                    assert [bytes(await received.receive()) for _ in range(2)] == EXPECTED[0][:2]
                    for frame in EXPECTED[0][2:]:
                        await group.send(frame)
                    assert [bytes(await received.receive()) for _ in range(FRAMES - 2)] == EXPECTED[0][2:]
                    assert [bytes(await begun.receive()) for _ in range(FRAMES - 2)] == EXPECTED[0][2:]


async def check_fetch(publisher: moqt.Session, viewer: moqt.Session) -> None:
    """Check that a group of the past, which no relay has, is fetched from its publisher."""
    broadcast = moqt.Broadcast()
    track = broadcast.track(TRACK, max_age=60)
    for sequence in EXPECTED:
        await write_group(track, sequence)
    async with publisher.publish(PATH, broadcast):
        await viewer.wait_announced(PATH)
        for sequence in (1, 4):
            async with viewer.fetch(PATH, TRACK, sequence) as group:
                assert [bytes(frame) for frame in await group.read_all()] == EXPECTED[sequence]
