"""Lists of announcements on draft 14, which cannot be ended: one request for all of them, for good."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.testing import session_pair
from tests.faults import drafts as d
from tests.faults.draft_peer import draft_peer
from tests.faults.raw_peer import settled

EVERYTHING = b"\x00"
"""The prefix without a field."""


async def test_lists_with_many_prefixes_are_one_request():
    """It asks for everything; each list has what is below its own prefix, and waits for the one answer."""
    limits = moqt.Limits(max_streams=2, max_announcements=2)
    with trio.fail_after(10):
        async with session_pair("moqt-14", limits=limits) as (client, server), server.publish("a/1", moqt.Broadcast()):
            for number in range(20):
                async with client.announcements("never" if number % 2 else f"a/{number}") as announcements:
                    await announcements.wait_initial()
            async with client.announcements("a") as first, client.announcements("b") as second:
                assert (await anext(first)).path == "a/1"
                async with server.publish("b/2", moqt.Broadcast()):
                    assert (await anext(second)).path == "b/2"
                assert not (await anext(second)).active
            # What is hidden is announced to those that ask for it.
            async with (
                server.publish("c/.hidden/3", moqt.Broadcast()),
                client.announcements("c/.hidden/3") as hidden,
            ):
                assert (await anext(hidden)).path == "c/.hidden/3"


async def test_what_is_written_for_them():
    """One SUBSCRIBE_NAMESPACE, with the empty prefix. The second list waits for its answer, even without the first."""
    async with draft_peer("moqt-14") as peer, trio.open_nursery() as nursery:
        async with peer.session.announcements("a"):
            exchange, body = await peer.asked(d.SUBSCRIBE_NAMESPACE_16)
            assert body[1:2] == EVERYTHING
        async with peer.session.announcements("b") as second:
            initial = trio.Event()

            async def wait() -> None:
                await second.wait_initial()
                initial.set()

            nursery.start_soon(wait)
            await settled()
            assert not initial.is_set()
            exchange.write(peer.wire.namespaces_ok(exchange.request_id))
            with trio.fail_after(10):
                await initial.wait()
            async with peer.session.announcements("c") as third:
                with trio.fail_after(10):
                    await third.wait_initial()


async def test_a_refusal_is_taken_back():
    """The next list asks again, also when the first one was left before the refusal."""
    async with draft_peer("moqt-14") as peer:
        for _ in range(2):
            async with peer.session.announcements("a"):
                exchange, _ = await peer.asked(d.SUBSCRIBE_NAMESPACE_16)
            exchange.write(peer.wire.refused(exchange.request_id, d.SUBSCRIBE_NAMESPACE_16))
            await settled()
        async with peer.session.announcements("a") as announcements:
            exchange, _ = await peer.asked(d.SUBSCRIBE_NAMESPACE_16)
            exchange.write(peer.wire.refused(exchange.request_id, d.SUBSCRIBE_NAMESPACE_16))
            with trio.fail_after(10), pytest.raises(moqt.StreamReset):
                await anext(announcements)


async def test_every_list_ends_with_the_session():
    """Those without a request of their own, too."""
    with trio.fail_after(10):
        async with (
            session_pair("moqt-14") as (client, server),
            client.announcements("a") as first,
            client.announcements("b") as second,
        ):
            await first.wait_initial()
            server.close(0)
            for announcements in (first, second):
                with pytest.raises(moqt.SessionClosed):
                    await anext(announcements)
