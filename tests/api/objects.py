"""Tracks whose groups have subgroups, object ids and properties: published, behind a relay, played byte by byte."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import session_pair

DRAFTS = ["moqt-17", "moqt-18", "moqt-19", "moqt-20", "moqt-21", "moqt-22"]
EACH_DRAFT = pytest.mark.parametrize("version", DRAFTS)
STAMP = 0x10
APPLICATION = 0x78
BLOB = 0x79


@asynccontextmanager
async def published(version, *, delivery="reliable", **options):
    """Yields a track that a server publishes, and a client's subscription to it."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery=delivery, **options)
    with trio.fail_after(20):
        async with (
            session_pair(version) as (client, server),
            server.publish("a/b", broadcast),
            client.subscribe("a/b", "t") as subscription,
        ):
            await track.wait_subscribed()
            yield track, subscription


@asynccontextmanager
async def relayed(upstream_version, *versions, **options):
    """Yields a track, and a subscription to its copy for each version, behind a relay."""
    source_of, copy_of = moqt.Broadcast(), moqt.Broadcast()
    source = source_of.track("t", delivery="reliable", **options)
    copy = copy_of.track("t", delivery="reliable")
    with trio.fail_after(20):
        async with (
            session_pair(upstream_version) as (upstream, publisher),
            publisher.publish("b", source_of),
            upstream.subscribe("b", "t") as subscription,
            trio.open_nursery() as nursery,
        ):
            await source.wait_subscribed()
            nursery.start_soon(moqt.forward, subscription, copy)
            found = []
            async with trio.open_nursery() as pairs:

                async def subscribe(version, *, task_status):
                    async with (
                        session_pair(version) as (client, server),
                        server.publish("b", copy_of),
                        client.subscribe("b", "t") as received,
                    ):
                        while copy.subscribers < len(found) + 1:
                            await trio.lowlevel.checkpoint()
                        task_status.started(received)
                        await trio.sleep_forever()

                for version in versions:
                    found.append(await pairs.start(subscribe, version))
                yield source, *found
                pairs.cancel_scope.cancel()
            nursery.cancel_scope.cancel()


def shown(frame):
    return bytes(frame), frame.object_id


@asynccontextmanager
async def played(version="moqt-18", **options):
    """Yields a subscription, and a function that plays a stream of its publisher: what follows the alias."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable")
    with trio.fail_after(10):
        async with (
            session_pair(version, **options) as (client, server),
            server.publish("b", broadcast),
            client.subscribe("b", "t") as subscription,
        ):
            await track.wait_subscribed()
            [served] = server._publisher.subscriptions
            alias = client._context.dialect.profile.encode(served._subscribe_id)

            async def play(kind, rest, *, fin=True):
                stream = await server._context.connection.open_uni()
                stream.write(bytes.fromhex(kind) + alias + bytes.fromhex(rest), fin)
                await trio.testing.wait_all_tasks_blocked()
                return stream

            yield subscription, play, track
