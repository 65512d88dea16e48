"""What a peer announces by requests of its own (PUBLISH_NAMESPACE) is among `Session.announcements`."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import session_pair

DRAFTS = ["moqt-18", "moqt-20", "moqt-22"]
EACH_DRAFT = pytest.mark.parametrize("version", DRAFTS)


class Announcer:
    """A client whose requests are written by hand."""

    def __init__(self, session: moqt.Session) -> None:
        self._session = session

    async def announce(self, *fields: bytes):
        """Opens a request for a namespace, and returns its stream."""
        namespace = bytes([len(fields)]) + b"".join(bytes([len(field)]) + field for field in fields)
        body = bytes([self._session._context.core._state.next_request_id()]) + namespace + b"\0"
        stream = await self._session._context.connection.open_bidi()
        stream.write(b"\x06" + len(body).to_bytes(2, "big") + body)
        await trio.testing.wait_all_tasks_blocked()
        return stream


@asynccontextmanager
async def announcing(version: str):
    """Yields a client that announces by hand, and its server's session."""
    with trio.fail_after(10):
        async with session_pair(version) as (client, server):
            yield Announcer(client), server, client


def seen(announcements: moqt.Announcements) -> list[str]:
    return sorted(str(item.path) for item in announcements.active)


@EACH_DRAFT
async def test_they_come_and_go(version):
    """One that was there before, one that comes, and the end of each by a reset."""
    async with announcing(version) as (announcer, server, _):
        before = await announcer.announce(b"a", b"before")
        assert await before.receive_some() == bytes.fromhex("07000100")
        async with server.announcements("a") as announcements:
            first = await anext(announcements)
            assert (first.path, first.active) == ("a/before", True)
            await announcer.announce(b"b", b"other")
            later = await announcer.announce(b"a", b"later")
            second = await anext(announcements)
            assert (second.path, second.active) == ("a/later", True)
            for stream, path in ((before, "a/before"), (later, "a/later")):
                stream.reset(1)
                stream.stop(1)
                ended = await anext(announcements)
                assert (ended.path, ended.active) == (path, False)
        assert await server.wait_announced("b/other")


@EACH_DRAFT
async def test_twice_by_requests_and_once_on_the_list(version):
    """A broadcast is announced once, and unannounced when the last of its sources has ended, in whatever order."""
    async with announcing(version) as (announcer, server, client), server.announcements() as announcements:
        one = await announcer.announce(b"a")
        two = await announcer.announce(b"a")
        assert (await anext(announcements)).active
        async with client.publish("a", moqt.Broadcast()):
            await trio.testing.wait_all_tasks_blocked()
            one.reset(1)
            two.reset(1)
            await trio.testing.wait_all_tasks_blocked()
            assert seen(announcements) == ["a"]
            three = await announcer.announce(b"a")
        await trio.testing.wait_all_tasks_blocked()
        assert seen(announcements) == ["a"]
        three.reset(1)
        ended = await anext(announcements)
        assert (ended.path, ended.active) == ("a", False)
        assert len(announcements._queue) == 0


async def test_the_end_of_the_session():
    """It is reported as such, and not as the end of each broadcast."""
    async with announcing("moqt-18") as (announcer, server, client), server.announcements() as announcements:
        await announcer.announce(b"a")
        assert (await anext(announcements)).active
        client.close()
        with pytest.raises(moqt.SessionClosed):
            await anext(announcements)


async def test_a_list_that_was_left():
    """It hears of no further announcement."""
    async with announcing("moqt-18") as (announcer, server, _):
        async with server.announcements() as announcements:
            pass
        await announcer.announce(b"a")
        assert seen(announcements) == []
        assert server._context.peer_namespaces._watchers == {}


async def test_one_that_is_refused():
    """A namespace that no path is, is refused, and the session goes on."""
    async with announcing("moqt-18") as (announcer, server, _):
        refused = await announcer.announce(b"a/b")
        with pytest.raises(moqt.StreamReset):
            await refused.receive_some()
        assert server.closed is None
        await announcer.announce(b"a")
        assert (await server.wait_announced("a")).active
