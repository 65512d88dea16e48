"""Paths that look like one that is served: other case, escaped slashes, dots, and names that begin the same.

One rule for all versions: paths and prefixes are compared part by part, as they are written. A slash at an end and a
doubled one separate nothing. A broadcast with a part below the prefix that starts with a dot is not listed there.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import moqt_trio as moqt
from moqt_trio.testing import serve_in_memory, session_pair
from moqt_trio.wire import dialect as dialects
from tests.faults.raw_peer import code_of_reset, settled
from tests.faults.state_peer import hostile
from tests.faults.state_wire import ALL, DEVELOP, TUPLES, Wire
from tests.transport.awaiting import accept_bidi

SERVED = "live/cam"
LOOK_ALIKES = [
    "live/camera1",
    "live/cam/../x",
    "LIVE/cam",
    "live/Cam",
    "live%2Fcam",
    "live/cam%2Fx",
    "live/cam%2F..",
    "live",
    "liv",
    "live/cam/x",
    "live//cam",
    "/live/cam/",
    "live/./cam",
    "live/x/../cam",
    SERVED,
]
texts = st.lists(
    st.sampled_from(["live", "cam", "LIVE", "Cam", "camera1", "era1", "..", ".", "%2F", "%2f", "/", "//", "x", "t"]),
    min_size=1,
    max_size=6,
)
paths = st.sampled_from(LOOK_ALIKES) | texts.map("/".join) | texts.map("".join)
each_version = pytest.mark.parametrize("version", ALL)


def same(one: str, other: str) -> bool:
    """Return whether two texts name one path."""
    return [part for part in one.split("/") if part] == [part for part in other.split("/") if part]


def below(prefix: str, path: str) -> list[str] | None:
    """Return the parts of a path below a prefix, or None when the prefix does not cover it."""
    head, parts = ([part for part in text.split("/") if part] for text in (prefix, path))
    return parts[len(head) :] if parts[: len(head)] == head else None


def listed(version: str, prefix: str, path: str) -> bool:
    """Return whether a broadcast with the track `t` is announced to a peer that asks for a prefix."""
    # Before moq-lite the name of a track is the last part of what is announced, and hides nothing.
    rest = below(prefix, f"{path}/t" if version in TUPLES else path)
    hidden = rest[:-1] if rest and version in TUPLES else rest
    return rest is not None and not any(part.startswith(".") for part in hidden or ())


def in_memory(function, *arguments) -> None:
    """Run a test's coroutine with a clock that jumps."""
    trio.run(function, *arguments, clock=trio.testing.MockClock(autojump_threshold=0))


# -- one group of one track -----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(paths, min_size=1, max_size=8))
def test_a_group_is_fetched_by_its_own_path_alone(asked):
    """A server gives out a broadcast's group for its path, compared part by part, and for no look-alike."""
    in_memory(check_fetches, [*LOOK_ALIKES, *asked])


async def check_fetches(asked: list[str]) -> None:
    broadcast = moqt.Broadcast()
    broadcast.track("t", max_age=3600).write_nowait(b"x")

    async def handler(request: moqt.SessionRequest) -> None:
        async with request.accept() as session, session.publish(SERVED, broadcast):
            await session.wait_closed()

    with trio.fail_after(600):
        async with serve_in_memory(handler) as server, server.connect("https://localhost/") as session:
            for path in asked:
                try:
                    async with session.fetch(path, "t", 0) as group:
                        granted = await group.read_all() == [b"x"]
                except moqt.MoqtError:
                    granted = False
                assert granted is same(path, SERVED), path
            assert session.closed is None


# -- subscriptions --------------------------------------------------------------------------------------------


@each_version
def test_a_track_is_subscribed_to_by_its_own_path_alone(version):
    """A subscription gets the groups of the broadcast that has its path, and no look-alike is subscribed to one."""

    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(st.lists(paths, min_size=1, max_size=8))
    def run(asked) -> None:
        in_memory(check_subscriptions, version, [*LOOK_ALIKES, *asked])

    run()


async def check_subscriptions(version: str, asked: list[str]) -> None:
    broadcast = moqt.Broadcast()
    broadcast.track("t", max_age=3600).write_nowait(b"x")
    limits = moqt.Limits(track_wait_timeout=0.01)
    with trio.fail_after(600):
        async with session_pair(version, limits=limits) as (client, server), server.publish(SERVED, broadcast):
            for path in asked:
                async with client.subscribe(path, "t") as subscription:
                    try:
                        granted = await (await subscription.receive()).read_all() == [b"x"]
                    except moqt.NotFound:
                        granted = False
                assert granted is same(path, SERVED), path
            assert client.closed is None


@each_version
async def test_no_slash_moves_from_a_path_into_a_name(version, autojump_clock):
    """A broadcast `live` with a track `cam/t`, and `live/cam/t` without a name, are not the track `t` of `live/cam`."""
    broadcast = moqt.Broadcast()
    broadcast.track("t", max_age=3600).write_nowait(b"x")
    limits = moqt.Limits(track_wait_timeout=0.01)
    async with session_pair(version, limits=limits) as (client, server), server.publish(SERVED, broadcast):
        for path, track in (("live", "cam/t"), ("live/cam/t", ""), ("", "live/cam/t"), ("live/cam", "/t")):
            # Where a track's name is the last part of its path, such a name is refused before anything is sent.
            with pytest.raises((moqt.NotFound, moqt.LocalProtocolError)):
                async with client.subscribe(path, track) as subscription:
                    await subscription.receive()
        assert client.closed is None


# -- announcements --------------------------------------------------------------------------------------------


@each_version
def test_what_is_announced_is_below_the_prefix(version):
    """A listener learns of a broadcast exactly if its prefix covers the path part by part, whether the broadcast is
    published before it asks or afterwards."""

    @settings(max_examples=10, deadline=None, derandomize=True)
    @given(st.lists(paths, max_size=6), st.lists(paths, max_size=4))
    def run(published, prefixes) -> None:
        in_memory(check_lists, version, [*LOOK_ALIKES, *published], [SERVED, "live/ca", "live//cam/", "", *prefixes])

    run()


async def check_lists(version: str, published: list[str], prefixes: list[str]) -> None:
    unique = {tuple(moqt.BroadcastPath.parse(path)): path for path in published}
    # The root can have no name in a tuple, and moq-lite's listeners ask for it by the empty prefix.
    paths = [path for parts, path in unique.items() if parts]
    async with session_pair(version) as (client, server), AsyncExitStack() as stack:

        async def publish(path: str) -> None:
            broadcast = moqt.Broadcast()
            broadcast.track("t")
            await stack.enter_async_context(server.publish(path, broadcast))

        for path in paths[::2]:
            await publish(path)
        lists = [(prefix, await stack.enter_async_context(client.announcements(prefix))) for prefix in prefixes]
        await settled()
        for path in paths[1::2]:
            await publish(path)
        await settled()
        for prefix, announcements in lists:
            seen = {str(announcement.path) for announcement in announcements.active}
            expected = {path.strip("/").replace("//", "/") for path in paths if listed(version, prefix, path)}
            assert {tuple(path.split("/")) for path in seen} == {
                tuple(moqt.BroadcastPath.parse(path)) for path in expected
            }, prefix
        assert client.closed is None


async def answer_to(peer, wire: Wire, prefix: str) -> bytes:
    """Ask for a prefix by hand; return what comes within a second."""
    stream = await peer.open_bidi()
    stream.write(wire.ask(prefix))
    data = b""
    with trio.move_on_after(1):
        while True:
            data += await stream.receive_some()
    stream.reset(wire.cancelled)
    return data


@each_version
async def test_spellings_of_a_prefix(version, autojump_clock):
    """Slashes at the ends of a peer's prefix and doubled ones change nothing; other spellings are other prefixes, and a
    prefix that ends within a part covers nothing."""
    broadcast = moqt.Broadcast()
    broadcast.track("t")
    async with hostile(version) as (peer, session, wire), AsyncExitStack() as stack:
        for path in ("live/cam", "live/cam/x", "live/camera1", "live/Cam", "live/cam%2Fx"):
            await stack.enter_async_context(session.publish(path, broadcast))
        nothing = await answer_to(peer, wire, "elsewhere")
        cam = await answer_to(peer, wire, "live/cam")
        # Two of them: the suffixes are the empty one and `x`.
        assert len(cam) > len(nothing)
        assert b"x" in cam
        assert b"era1" not in cam
        assert b"%2F" not in cam
        for spelling in (
            "live/ca",
            "live/camer",
            "Live/cam",
            "live%2Fcam",
            "live/cam/..",
            "live/x/../cam",
            "./live/cam",
        ):
            assert await answer_to(peer, wire, spelling) == nothing, spelling
        for spelling in ("/live/cam", "live/cam/", "//live///cam//"):
            if version not in TUPLES:
                assert await answer_to(peer, wire, spelling) == cam, spelling
                continue
            # A tuple cannot have an empty part: the stream is refused, and the session goes on.
            stream = await peer.open_bidi()
            stream.write(wire.ask(spelling))
            unroutable = dialects.get(version).codes.to_wire("announce", moqt.StreamCode.UNROUTABLE)
            assert await code_of_reset(stream) == unroutable
        assert session.closed is None


@each_version
async def test_spellings_of_a_suffix(version, autojump_clock):
    """A path that a peer announces continues the prefix with whole parts, whatever its suffix looks like: it is never a
    neighbour of the prefix, and never above it."""
    suffixes = ["era1", "..", "../../x", ".", "%2Fx", "X", "x"]
    if version not in TUPLES:
        suffixes += ["/y", "//z/"]
    track = "/t" if version in TUPLES else ""
    async with hostile(version) as (peer, session, wire), session.announcements(SERVED) as announcements:
        with trio.fail_after(5):
            stream = await accept_bidi(peer)
            assert (await stream.receive_some())[:1] == b"\x01"
        stream.write(wire.first(*(suffix + track for suffix in suffixes)))
        await settled()
        seen = {str(announcement.path) for announcement in announcements.active}
        assert seen == {f"{SERVED}/{suffix.strip('/')}" for suffix in suffixes}
        # gomoqt wrote full paths there: one that begins with the prefix is below it, too.
        stream.write(wire.active(f"{SERVED}/full{track}"))
        await settled()
        (full,) = {str(announcement.path) for announcement in announcements.active} - seen
        assert full == f"{SERVED}/{SERVED}/full"
        assert session.closed is None


async def test_full_paths_of_gomoqt(autojump_clock):
    """Before a suffix has proved that they are none, a peer's full paths count as they are: below the prefix, too."""
    async with hostile(DEVELOP) as (peer, session, wire), session.announcements(SERVED) as announcements:
        with trio.fail_after(5):
            stream = await accept_bidi(peer)
            await stream.receive_some()
        for path in (f"{SERVED}/full/t", f"{SERVED}/../t"):
            stream.write(wire.active(path))
        await settled()
        paths = [announcement.path for announcement in announcements.active]
        assert paths == [f"{SERVED}/full", f"{SERVED}/.."]
        assert all(below(SERVED, str(path)) for path in paths)
        assert session.closed is None
