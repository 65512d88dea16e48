"""The echo server's handler over real connections: what comes back, to whom, and what stays apart."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import pytest
import trio

import moqt_trio as moqt
from apps.echo.server import echo

SCHEMES = ["https", "moqt"]
ROUTER = moqt.Router({"/echo": echo}, default="/echo")
# The other versions carry none.
TIMESTAMPS = {"moq-lite-06": (5, 7), "moq-lite-05": (5, 7)}


@pytest.fixture
async def listener(nursery):
    """A listener with the echo service."""
    return await nursery.start(moqt.serve, ROUTER, "localhost", 0)


@pytest.fixture(params=SCHEMES)
def scheme(request):
    """Each transport in turn."""
    return request.param


@pytest.fixture(autouse=True)
def quiet(caplog):
    """Nothing that a client does here is worth a warning in the server's log."""
    yield
    loud = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not loud, caplog.text


@asynccontextmanager
async def connected(
    listener: moqt.Listener, scheme: str = "moqt", version: str = "moq-lite-06"
) -> AsyncIterator[moqt.Session]:
    """Connects to the echo service, for a test that is over within some seconds."""
    url = next(url for url in listener.urls if url.startswith(scheme))
    with trio.fail_after(10):
        async with moqt.connect(url, fingerprint=listener.fingerprint, versions=[version]) as session:
            yield session


@attrs.frozen
class Echo:
    """A broadcast that is published, and its echo.

    Attributes:
        text: The track to write to.
        echoes: The subscription of what comes back.
    """

    text: moqt.Track
    echoes: moqt.Subscription

    async def group(self) -> moqt.GroupReader:
        """Waits for the next group that comes back."""
        return await anext(self.echoes)


@asynccontextmanager
async def echoing(session: moqt.Session, path: str = "japan/kyoto") -> AsyncIterator[Echo]:
    """Publishes a broadcast and subscribes to its echo."""
    broadcast = moqt.Broadcast()
    text = broadcast.track("text", delivery="reliable")
    async with session.publish(path, broadcast), session.announcements(path) as announcements:
        await announced(announcements, path)
        await text.wait_subscribed()
        async with session.subscribe(path, "text", max_age=60.0) as echoes:
            yield Echo(text, echoes)


async def announced(announcements: moqt.Announcements, path: str, *, active: bool = True) -> None:
    async for announcement in announcements:
        if str(announcement.path) == path and announcement.active is active:
            return


@pytest.mark.parametrize("version", moqt.version_names())
async def test_groups_come_back_as_they_were(listener, scheme, version):
    """Groups of several frames come back in groups of the same sequence, their frames in order and unchanged, with
    their timestamps where the version has them."""
    async with connected(listener, scheme, version) as session, echoing(session) as echo:
        for sequence in (3, 4, 9):
            async with echo.text.open_group(sequence) as group:
                for number, timestamp in enumerate((5, 7)):
                    await group.send(b"%d of %d" % (number, sequence), timestamp)
        found = {}
        for _ in range(3):
            group = await echo.group()
            found[group.sequence] = await group.read_all()
    assert {sequence: [bytes(frame) for frame in frames] for sequence, frames in found.items()} == {
        sequence: [b"0 of %d" % sequence, b"1 of %d" % sequence] for sequence in (3, 4, 9)
    }
    assert {tuple(frame.timestamp for frame in frames) for frames in found.values()} == {
        TIMESTAMPS.get(version, (5, 7) if version.startswith("moqt-") else (None, None))
    }


@pytest.mark.parametrize("version", moqt.version_names())
async def test_an_unknown_path(listener, scheme, version):
    """A path without the service is refused with 404, but for versions whose handshake over raw QUIC carries none:
    these reach the service wherever they ask for it."""
    url = next(url for url in listener.urls if url.startswith(scheme)).replace("/echo", "/nowhere")
    connecting = moqt.connect(url, fingerprint=listener.fingerprint, versions=[version])
    with trio.fail_after(10):
        if scheme == "moqt" and version in ("moq-lite-03", "moq-lite-04"):
            async with connecting as session, echoing(session) as echo:
                await echo.text.write(b"hello")
                assert await (await echo.group()).read_all() == [b"hello"]
        else:
            with pytest.raises(moqt.Rejected, match="404"):
                await connecting.__aenter__()


async def test_an_empty_group_comes_back(listener, scheme):
    """A group without frames, and a frame without bytes, come back as such."""
    async with connected(listener, scheme) as session, echoing(session) as echo:
        async with echo.text.open_group(0):
            pass
        assert await (await echo.group()).read_all() == []
        await echo.text.write(b"")
        assert await (await echo.group()).read_all() == [b""]


@pytest.mark.parametrize("version", moqt.version_names())
async def test_later_groups_do_not_wait_for_an_open_one(listener, scheme, version):
    """While a group is open its frames come back one by one, and later groups come back whole."""
    async with connected(listener, scheme, version) as session, echoing(session) as echo:
        async with echo.text.open_group() as slow:
            await slow.send(b"first")
            slow_echo = await echo.group()
            assert await slow_echo.receive() == b"first"
            for number in (1, 2):
                await echo.text.write(b"%d" % number)
                later = await echo.group()
                assert (later.sequence, await later.read_all()) == (number, [b"%d" % number])
            await slow.send(b"second")
            assert await slow_echo.receive() == b"second"
            await slow.send(b"third")
        assert await slow_echo.read_all() == [b"third"]
        assert slow_echo.sequence == 0


async def test_large_groups_come_back(listener, scheme):
    """Frames of together more than a stream's window, and one that alone is larger, come back unchanged."""
    frames = [bytes([number]) * 100_000 for number in range(5)] + [b"\xee" * 700_000]
    async with connected(listener, scheme) as session, echoing(session) as echo, trio.open_nursery() as nursery:

        async def write() -> None:
            async with echo.text.open_group() as group:
                for frame in frames:
                    await group.send(frame)

        nursery.start_soon(write)
        assert await (await echo.group()).read_all() == frames


async def test_clients_do_not_see_each_other(listener):
    """Clients on either transport that publish the same path at once get their own messages back and nothing else."""
    count, ready, done = 4, trio.Event(), trio.Event()
    begun, ended = set(), set()

    async def client(number: int) -> None:
        async with connected(listener, SCHEMES[number % 2]) as session, echoing(session) as echo:
            begun.add(number)
            if len(begun) == count:
                ready.set()
            await ready.wait()
            for message in range(5):
                await echo.text.write(b"%d: %d" % (number, message))
            for _ in range(5):
                group = await echo.group()
                assert await group.read_all() == [b"%d: %d" % (number, group.sequence)]
            async with session.announcements("") as everything:
                assert str((await everything.receive()).path) == "japan/kyoto"
                ended.add(number)
                if len(ended) == count:
                    done.set()
                await done.wait()
                assert [str(item.path) for item in everything.active] == ["japan/kyoto"]
            assert echo.echoes.statistics().groups_received == 5

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(client, number)


@pytest.mark.parametrize("version", moqt.version_names())
async def test_an_announcement_that_comes_again(listener, scheme, version):
    """When a broadcast ends so does its echo; announced again, with groups of the same sequences, it has a new one."""
    async with connected(listener, scheme, version) as session, session.announcements("japan") as announcements:
        for turn in range(3):
            async with echoing(session) as echo:
                await announced(announcements, "japan/kyoto")
                await echo.text.write(b"turn %d" % turn)
                group = await echo.group()
                assert (group.sequence, await group.read_all()) == (0, [b"turn %d" % turn])
                echo.text.finish()
            await announced(announcements, "japan/kyoto", active=False)


async def test_an_announcement_that_is_replaced_at_once(listener, scheme):
    """A broadcast that takes the place of another before the first echo has ended is echoed all the same."""
    async with connected(listener, scheme) as session:
        async with echoing(session) as echo:
            await echo.text.write(b"old")
            assert await (await echo.group()).read_all() == [b"old"]
        async with echoing(session) as echo:
            await echo.text.write(b"new")
            assert await (await echo.group()).read_all() == [b"new"]


async def test_an_echo_without_a_subscriber(listener, scheme):
    """An echo without a subscriber ends with its broadcast, and does not return with the next one."""
    async with connected(listener, scheme) as session, session.announcements("japan") as announcements:
        broadcast = moqt.Broadcast()
        text = broadcast.track("text", delivery="reliable")
        async with session.publish("japan/kyoto", broadcast):
            await announced(announcements, "japan/kyoto")
            await text.wait_subscribed()
            await text.write(b"unheard")
        await announced(announcements, "japan/kyoto", active=False)
        async with echoing(session) as echo:
            await echo.text.write(b"heard")
            assert await (await echo.group()).read_all() == [b"heard"]


async def test_below_the_prefix(listener, scheme):
    """A broadcast below the prefix is echoed under its own path, beside the one at it; others are left alone."""
    outside = {path: moqt.Broadcast() for path in ("japan/osaka", "japan/kyotograph", "japan")}
    tracks = [broadcast.track("text") for broadcast in outside.values()]
    async with connected(listener, scheme) as session, AsyncExitStack() as stack:
        for path, broadcast in outside.items():
            await stack.enter_async_context(session.publish(path, broadcast))
        below = await stack.enter_async_context(echoing(session, "japan/kyoto/x"))
        at = await stack.enter_async_context(echoing(session))
        await below.text.write(b"below")
        await at.text.write(b"at")
        assert await (await below.group()).read_all() == [b"below"]
        assert await (await at.group()).read_all() == [b"at"]
        everything = await stack.enter_async_context(session.announcements(""))
        await everything.wait_initial()
        assert {str(item.path) for item in everything.active} == {"japan/kyoto", "japan/kyoto/x"}
        assert [track.subscribers for track in tracks] == [0, 0, 0]


@pytest.mark.parametrize("version", moqt.version_names())
async def test_a_track_that_is_refused(listener, scheme, version):
    """A broadcast without the track has no echo, harms no other, and is tried again when it comes again."""
    async with connected(listener, scheme, version) as session:
        async with session.publish("japan/kyoto/mute", moqt.Broadcast()), echoing(session) as echo:
            await echo.text.write(b"one")
            assert await (await echo.group()).read_all() == [b"one"]
            async with session.announcements("japan/kyoto") as announcements:
                while [str(item.path) for item in announcements.active] != ["japan/kyoto"]:
                    await announcements.receive()
        async with echoing(session, "japan/kyoto/mute") as echo:
            await echo.text.write(b"two")
            assert await (await echo.group()).read_all() == [b"two"]


async def test_a_group_that_is_given_up(listener, scheme):
    """A group that its publisher resets comes back up to there and is reset with the same code; others go on."""
    async with connected(listener, scheme) as session, echoing(session) as echo:
        group = echo.text.open_group()
        await group.send(b"whole")
        copy = await echo.group()
        assert await copy.receive() == b"whole"
        group.reset(77)
        with pytest.raises(moqt.StreamReset) as caught:
            await copy.receive()
        assert caught.value.code == 77
        await echo.text.write(b"next")
        assert await (await echo.group()).read_all() == [b"next"]


async def test_messages_wait_for_a_subscriber(listener, scheme):
    """What is sent before the client subscribes to the echo is not lost: it comes back once it does."""
    broadcast = moqt.Broadcast()
    text = broadcast.track("text", delivery="reliable")
    async with (
        connected(listener, scheme) as session,
        session.publish("japan/kyoto", broadcast),
        session.announcements("japan/kyoto") as announcements,
    ):
        await announced(announcements, "japan/kyoto")
        await text.wait_subscribed()
        for number in range(3):
            await text.write(b"%d" % number)
        async with session.subscribe("japan/kyoto", "text", max_age=60.0) as echoes:
            groups = [await anext(echoes) for _ in range(3)]
            assert {group.sequence: await group.read_all() for group in groups} == {0: [b"0"], 1: [b"1"], 2: [b"2"]}


async def test_a_client_that_breaks_off(listener, scheme):
    """A client that closes in the middle of a group ends its own session and no other."""

    async def break_off() -> None:
        async with connected(listener, scheme) as session, echoing(session) as echo, echo.text.open_group() as group:
            await group.send(b"half")
            assert await (await echo.group()).receive() == b"half"
            session.close(9, "had enough")
            await echo.group()

    async with connected(listener, scheme) as other, echoing(other) as untouched:
        with pytest.raises(moqt.SessionClosed):
            await break_off()
        while listener.statistics().sessions > 1:
            await trio.lowlevel.checkpoint()
        await untouched.text.write(b"still here")
        assert await (await untouched.group()).read_all() == [b"still here"]


@pytest.mark.parametrize("version", moqt.version_names())
async def test_the_server_drains(listener, scheme, version):
    """A client in the middle of an echo hears of the shutdown, by GOAWAY or by the end of the session, and the
    listener is closed without waiting for the whole grace."""
    async with (
        trio.open_nursery() as nursery,
        connected(listener, scheme, version) as session,
        echoing(session) as echo,
    ):
        await echo.text.write(b"one")
        assert await (await echo.group()).read_all() == [b"one"]
        began = trio.current_time()
        nursery.start_soon(listener.aclose, 10.0)
        if version not in ("moq-lite-06", "moq-lite-05", "moq-lite-04") and not version.startswith("moqt-"):
            # No GOAWAY in this version.
            error = await session.wait_closed()
            assert isinstance(error, moqt.SessionClosed)
            assert (error.by_peer, error.remote_code) == (True, moqt.SessionCode.NO_ERROR)
        else:
            assert await session.wait_goaway() == ""
    assert trio.current_time() - began < 5.0
    assert listener.statistics().sessions == 0
