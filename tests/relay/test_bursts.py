"""Many announcements at once: a relay passes them on together."""

from __future__ import annotations

from contextlib import AsyncExitStack

import moqt_trio as moqt
from moqt_trio.session.publisher.announce import AnnounceServer
from tests.relay.relays import linked, relay
from tests.transport.recorders import eventually

BROADCASTS = 50


async def test_what_a_link_brings(monkeypatch):
    """The broadcasts of another relay come at once, and reach a viewer in few writes. So do their ends."""
    writes = 0
    announce_changes = AnnounceServer._announce_changes

    def counted(server: AnnounceServer) -> None:
        nonlocal writes
        writes += 1
        announce_changes(server)

    async with (
        relay() as upstream,
        relay() as downstream,
        downstream.connect() as viewer,
        viewer.announcements() as announcements,
    ):
        await announcements.wait_initial()
        wanted = {f"room/{number}" for number in range(BROADCASTS)}
        async with AsyncExitStack() as published:
            for path in sorted(wanted):
                await published.enter_async_context(upstream.origin.publish(path, moqt.Broadcast()))
            monkeypatch.setattr(AnnounceServer, "_announce_changes", counted)
            async with linked(upstream, downstream):
                assert {str((await announcements.receive()).path) for _ in wanted} == wanted
                assert writes <= 3
                writes = 0
                await published.aclose()
                await eventually(lambda: not announcements.active)
        # Those of both relays.
        assert writes <= 6
