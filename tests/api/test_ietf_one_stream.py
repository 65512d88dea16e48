"""Sessions of the drafts whose requests share one control stream (14 to 16): its faults, its limits, its end."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.codes import SessionCode
from moqt_trio.tasks import Wakeup
from moqt_trio.testing import session_pair
from moqt_trio.wire.ietf import messages as ietf

DRAFTS = ["moqt-14", "moqt-15", "moqt-16"]
EACH_DRAFT = pytest.mark.parametrize("version", DRAFTS)

INVALID_REQUEST_ID = 0x4
TOO_MANY_REQUESTS = 0x7


@asynccontextmanager
async def sessions(version: str, **options):
    """Yields both sessions, whose control stream is there."""
    with trio.fail_after(10):
        async with session_pair(version, **options) as (client, server):
            await trio.testing.wait_all_tasks_blocked()
            yield client, server


def control(session: moqt.Session):
    stream = session._context.control_stream
    assert stream is not None
    return stream


def encoded(session: moqt.Session, message) -> bytes:
    return session._context.core._state.codec.encode(message)


def subscription(session: moqt.Session, request_id: int | None = None, path: str = "b", track: str = "t") -> bytes:
    """Returns a SUBSCRIBE of this side, with its next id or with another."""
    core = session._context.core
    machine = core.subscribe(path, track)
    if request_id is None:
        return machine.opening
    return core._state.codec.encode(attrs.evolve(machine._request, request_id=request_id))


async def wait_announced_by_requests(session: moqt.Session, *paths: str) -> None:
    """Waits until the peer announces these broadcasts by requests, and no others."""
    namespaces, changed = session._context.peer_namespaces, Wakeup()

    def note(_: moqt.BroadcastPath) -> None:
        changed.set()

    namespaces.watch(note)
    while sorted(map(str, namespaces)) != sorted(paths):
        await changed.wait()
    namespaces.unwatch(note)


@EACH_DRAFT
@pytest.mark.parametrize("how", ["finish", "reset", "stop"])
async def test_the_end_of_the_control_stream(version, how):
    """It ends the session with PROTOCOL_VIOLATION, at either side."""
    async with sessions(version) as (client, server):
        stream = control(server)
        if how == "finish":
            stream.finish()
        else:
            getattr(stream, how)(0)
        error = await client.wait_closed()
        assert isinstance(error, moqt.SessionClosed)
        assert error.local_code == SessionCode.PROTOCOL_VIOLATION


@EACH_DRAFT
@pytest.mark.parametrize(
    ("ids", "code"),
    [((1,), INVALID_REQUEST_ID), ((0, 0), INVALID_REQUEST_ID), ((1 << 20,), TOO_MANY_REQUESTS)],
    ids=["parity", "twice", "limit"],
)
async def test_request_ids_that_are_wrong(version, ids, code):
    """They end the session, with their own codes."""
    async with sessions(version) as (client, server):
        for number in ids:
            control(client).write(subscription(client, number))
        error = await server.wait_closed()
        assert isinstance(error, moqt.SessionClosed)
        assert error.local_code == code


@EACH_DRAFT
async def test_what_crossed_its_request(version):
    """Messages that end requests which are over are ignored; the session goes on."""
    async with sessions(version) as (client, server):
        for message in (ietf.Unsubscribe(0), ietf.FetchCancel(2), ietf.PublishDone(4, 2, 0)):
            control(client).write(encoded(client, message))
        broadcast = moqt.Broadcast()
        track = broadcast.track("t")
        async with server.publish("b", broadcast), client.subscribe("b", "t") as reader:
            await track.wait_subscribed()
            await track.write(b"x")
            assert await (await anext(reader)).read_all() == [b"x"]


@EACH_DRAFT
async def test_more_requests_than_the_peer_allows(version):
    """They wait until others have ended, and none is lost; the ids move on."""
    limits = moqt.Limits(max_streams=4, max_announcements=4)
    broadcast = moqt.Broadcast()
    for number in range(40):
        broadcast.track(f"t{number}", delivery="reliable")
    done: list[int] = []

    async def subscribe(client: moqt.Session, number: int) -> None:
        track = broadcast.tracks[f"t{number}"]
        async with client.subscribe("b", f"t{number}") as reader:
            await track.wait_subscribed()
            await track.write(b"%d" % number)
            assert await (await anext(reader)).read_all() == [b"%d" % number]
        done.append(number)

    async with sessions(version, limits=limits) as (client, server), server.publish("b", broadcast):
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(subscribe, client, number)
        assert sorted(done) == list(range(40))
        # What is over holds nothing.
        await trio.testing.wait_all_tasks_blocked()
        for session in (client, server):
            requests = session._shared_requests
            assert requests is not None
            assert len(requests._machine) == 0
            assert requests._streams == {}
            assert requests._peers == set()


@EACH_DRAFT
async def test_a_flood_of_requests(version, autojump_clock):
    """A peer that subscribes and leaves as fast as it can is held to the rate, within its limit of ids."""
    limits = moqt.Limits(request_rate=50, request_burst=20, max_streams=30, max_announcements=10)
    async with sessions(version, limits=limits) as (client, server):
        machine = client._shared_requests._machine
        made = 0
        with trio.move_on_after(5):
            while True:
                if machine.allowed:
                    data = subscription(client)
                    control(client).write(data)
                    request_id = machine.open(data)
                    control(client).write(machine.cancel(request_id, 1))
                    made += 1
                else:
                    await trio.sleep(0.01)
        assert server.closed is None
        # The burst, five seconds at the rate, and what the window holds.
        assert 100 < made <= 20 + 5 * 50 + 40 + 10


@EACH_DRAFT
async def test_a_request_that_is_cancelled_while_it_waits(version):
    """Nothing of it is sent, and no id is left out."""
    limits = moqt.Limits(max_streams=1, max_announcements=1)
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with sessions(version, limits=limits) as (client, server), server.publish("b", broadcast):
        async with client.subscribe("b", "t"), client.subscribe("b", "t"):
            await track.wait_subscribed()
            with trio.move_on_after(0.1) as scope:
                async with client.subscribe("b", "t"):
                    pytest.fail("the peer allows two")
            assert scope.cancelled_caught
        async with client.subscribe("b", "t") as reader:
            await trio.testing.wait_all_tasks_blocked()
            await track.write(b"x")
            assert await (await anext(reader)).read_all() == [b"x"]


@EACH_DRAFT
async def test_large_requests_return_their_credit(version):
    """Far more bytes of requests than the window of the control stream holds go through."""
    limits = moqt.Limits(stream_window=8 * 1024)
    name = "n" * 1000
    async with sessions(version, limits=limits) as (client, server), server.publish("b", moqt.Broadcast()):
        for _ in range(40):
            with pytest.raises(moqt.NotFound):
                async with client.subscribe("b", name) as reader:
                    await anext(reader)
        assert server.closed is None


@EACH_DRAFT
async def test_the_end_of_a_session_ends_all_requests(version):
    """Every reader gets the end of the session, and so does a request that waits for the peer's leave."""
    limits = moqt.Limits(max_streams=1, max_announcements=1)
    broadcast = moqt.Broadcast()
    broadcast.track("t")
    ended: list[Exception] = []

    async def read(client: moqt.Session) -> None:
        try:
            async with client.subscribe("b", "t") as reader:
                await anext(reader)
        except moqt.SessionClosed as error:
            ended.append(error)

    async with (
        sessions(version, limits=limits) as (client, server),
        server.publish("b", broadcast),
        trio.open_nursery() as nursery,
    ):
        for _ in range(3):
            nursery.start_soon(read, client)
        await trio.testing.wait_all_tasks_blocked()
        server.close(7, "enough")
    assert len(ended) == 3


@pytest.mark.parametrize("version", ["moqt-14", "moqt-15"])
async def test_streams_that_may_not_be(version):
    """Before 16 there is no bidirectional stream but the control stream."""
    async with sessions(version) as (client, server):
        stream = await client._context.connection.open_bidi()
        stream.write(subscription(client))
        error = await server.wait_closed()
        assert isinstance(error, moqt.SessionClosed)
        assert error.local_code == SessionCode.PROTOCOL_VIOLATION


async def test_lists_of_14_are_not_ended():
    """What was asked for once is announced for good, and is not asked for again."""
    async with sessions("moqt-14") as (client, server):
        async with client.announcements("a") as first:
            await first.wait_initial()
        before = client._context.core._state.own_requests._next
        async with client.announcements("a/b") as second:
            await second.wait_initial()
            async with server.publish("a/b/c", moqt.Broadcast()):
                assert (await anext(second)).path == "a/b/c"
            assert not (await anext(second)).active
        assert client._context.core._state.own_requests._next == before


@pytest.mark.parametrize("version", ["moqt-14", "moqt-15", "moqt-16", "moqt-18", "moqt-22"])
async def test_a_client_announces_what_is_not_asked_for(version):
    """By a request for each broadcast; a server does not."""
    async with sessions(version) as (client, server):
        async with client.publish("a/b", moqt.Broadcast()), server.publish("c", moqt.Broadcast()):
            await wait_announced_by_requests(server, "a/b")
            assert list(client._context.peer_namespaces) == []
        await wait_announced_by_requests(server)


@pytest.mark.parametrize("version", ["moqt-16", "moqt-18"])
async def test_a_client_does_not_announce_what_was_asked_for(version):
    """A list has it already."""
    async with sessions(version) as (client, server), server.announcements("a") as announcements:
        await announcements.wait_initial()
        async with client.publish("a/b", moqt.Broadcast()), client.publish("c", moqt.Broadcast()):
            assert (await anext(announcements)).path == "a/b"
            await wait_announced_by_requests(server, "c")


async def test_14_and_moq_lite_share_a_handshake():
    """A client's one message lists both, and a server takes its own first; with none in common both sides are told."""
    for offered, expected in (
        (["moq-lite-02", "moqt-14"], "moqt-14"),
        (["moqt-14", "moq-lite-01"], "moqt-14"),
        (["moq-lite-02"], None),
    ):
        served: list[str] = []

        async def handler(request: moqt.SessionRequest, served: list[str] = served) -> None:
            async with request.accept() as session:
                served.append(session.version)
                await session.wait_closed()

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                serve = partial(moqt.serve, handler, "127.0.0.1", 0, versions=["moqt-14", "gomoqt-develop"])
                listener = await nursery.start(serve)
                url = f"https://127.0.0.1:{listener.port}/"
                connect = partial(moqt.connect, url, fingerprint=listener.fingerprint, versions=offered)
                if expected is None:
                    with pytest.raises((moqt.VersionUnsupported, moqt.Rejected)):
                        async with connect():
                            pass
                else:
                    async with connect() as session:
                        assert session.version == expected
                nursery.cancel_scope.cancel()
        assert served == ([] if expected is None else [expected])


async def test_a_stream_that_says_nothing_at_first():
    """On 16 a list has a stream of its own, which may become known before its first byte."""
    async with sessions("moqt-16") as (client, server):
        machine = client._context.core.request_announcements("a")
        stream = await client._context.connection.open_bidi()
        stream.write(b"")
        await trio.testing.wait_all_tasks_blocked()
        server._context.connection.stream(stream.stream_id).deliver(b"", False)
        stream.write(machine.opening)
        assert await stream.receive_some() == encoded(client, ietf.RequestOk(machine.request_id))
