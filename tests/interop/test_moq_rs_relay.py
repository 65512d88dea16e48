"""Two sessions of moq-rs that meet at our relay, and at two relays of ours that are linked."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial

import pytest
import trio

import moqt_trio as moqt
from tests.interop.moq_rs import PASSED_ON, SCHEMES, VERSIONS, MoqRs, MoqRsSession, check_passed_on, needs_moq_rs

pytestmark = needs_moq_rs

each_version = pytest.mark.parametrize("version", VERSIONS)
each_scheme = pytest.mark.parametrize("scheme", SCHEMES)


class Relay:
    """A relay on a port.

    Attributes:
        origin: What its sessions share.
        listener: Its listener.
    """

    def __init__(self, origin: moqt.Origin, listener: moqt.Listener) -> None:
        self.origin = origin
        self.listener = listener

    def url(self, scheme: str) -> str:
        return f"{scheme}://localhost:{self.listener.port}/"


@asynccontextmanager
async def relay(version: str) -> AsyncIterator[Relay]:
    """Run a relay that speaks one version."""
    origin = moqt.Origin()

    async def handle(request: moqt.SessionRequest) -> None:
        async with request.accept(view=origin.view(request.path)) as session:
            await session.wait_closed()

    async with trio.open_nursery() as nursery:
        router = moqt.Router(fallback=handle, default="/")
        serve = partial(moqt.serve, router, port=0, versions=[version], hop_id=origin.hop_id)
        listener = await nursery.start(serve)
        yield Relay(origin, listener)
        await listener.aclose(grace=0)


def joined(moq_rs: MoqRs, at: Relay, scheme: str) -> AbstractAsyncContextManager[MoqRsSession]:
    """Yield a session of moq-rs with a relay."""
    return moq_rs.joined(at.url(scheme), at.listener.fingerprint)


@each_scheme
@each_version
async def test_contents(moq_rs: MoqRs, version: str, scheme: str):
    """What one publishes is announced to the other, and every frame of every group arrives as it was written; then the
    end of the announcement arrives."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(moq_rs.reporting())
        at = await stack.enter_async_context(relay(version))
        publisher, viewer = [await stack.enter_async_context(joined(moq_rs, at, scheme)) for _ in range(2)]
        viewer.tell("discover", prefix="")
        publisher.tell("publish", path="theirs/out", track="bytes")
        await publisher.settle()
        await check_passed_on(publisher, viewer)
        publisher.tell("finish", path="theirs/out")
        publisher.tell("unannounce", path="theirs/out")
        await publisher.wait("unannounced")
        began = time.monotonic()
        assert (await viewer.wait("announced", active=False))["path"] == "theirs/out"
        print(f"\n{version} over {scheme}: the end was announced after {1000 * (time.monotonic() - began):.0f} ms")


@each_scheme
@each_version
async def test_a_late_viewer(moq_rs: MoqRs, version: str, scheme: str):
    """A group that was written before the viewer came is there: at the relay once another one has read it, too."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(moq_rs.reporting())
        at = await stack.enter_async_context(relay(version))
        publisher = await stack.enter_async_context(joined(moq_rs, at, scheme))
        publisher.tell("publish", path="theirs/out", track="listing")
        publisher.write("theirs/out", 0, PASSED_ON[3])
        await publisher.settle()
        for _ in range(2):
            viewer = await stack.enter_async_context(joined(moq_rs, at, scheme))
            viewer.tell("discover", prefix="")
            await viewer.wait("announced", active=True)
            viewer.tell("subscribe", path="theirs/out", track="listing", max_age=60)
            assert await viewer.wait_frames("group") == (0, PASSED_ON[3])


@each_scheme
@pytest.mark.parametrize("version", [name for name in VERSIONS if name >= "moq-lite-05"])
async def test_fetch(moq_rs: MoqRs, version: str, scheme: str):
    """A group of the past is fetched through the relay, from the publisher, which alone has it."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(moq_rs.reporting())
        at = await stack.enter_async_context(relay(version))
        publisher, viewer = [await stack.enter_async_context(joined(moq_rs, at, scheme)) for _ in range(2)]
        publisher.tell("publish", path="theirs/out", track="bytes")
        for sequence in PASSED_ON:
            publisher.write("theirs/out", sequence, PASSED_ON[sequence])
        await publisher.settle()
        viewer.tell("discover", prefix="")
        await viewer.wait("announced", active=True)
        for sequence in (1, 4):
            viewer.tell("fetch", path="theirs/out", track="bytes", sequence=sequence)
            assert await viewer.wait_frames("fetched") == (sequence, PASSED_ON[sequence])


@each_scheme
@each_version
async def test_a_chain(moq_rs: MoqRs, version: str, scheme: str):
    """Two relays, linked by a session of ours, with moq-rs at either end."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(moq_rs.reporting())
        first = await stack.enter_async_context(relay(version))
        last = await stack.enter_async_context(relay(version))
        link = moqt.connect(
            first.url(scheme),
            versions=[version],
            fingerprint=first.listener.fingerprint,
            view=last.origin.view(),
            hop_id=last.origin.hop_id,
        )
        await stack.enter_async_context(link)
        publisher = await stack.enter_async_context(joined(moq_rs, first, scheme))
        viewer = await stack.enter_async_context(joined(moq_rs, last, scheme))
        viewer.tell("discover", prefix="")
        publisher.tell("publish", path="theirs/out", track="bytes")
        await check_passed_on(publisher, viewer)
