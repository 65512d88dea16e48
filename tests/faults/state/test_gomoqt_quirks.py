"""What gomoqt's develop version writes and expects against its own rules: sessions with a peer made of its bytes.

Here are the handshake and the announcements; `test_gomoqt_quirks_tracks.py` has subscriptions, groups and fetches.
The same quirks without a session, by the bytes alone:

| quirk | where |
|---|---|
| a zero is left after a message that was counted short | `tests/wire/test_legacy_vectors.py` |
| its FETCH names nothing; stream types of one byte | `tests/protocol/test_handshake_streams.py` |
| whole paths where suffixes belong | `tests/protocol/test_handshake_streams.py` |
| no, one or two slashes in front of a path | `tests/protocol/test_handshake_machines.py` |
| nil parameters | `tests/wire/test_legacy_handshake.py` |
| all of them in one conversation | `tests/protocol/test_handshake_echo.py` |
"""

from __future__ import annotations

from functools import partial

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.session.handshake import negotiate
from moqt_trio.transport.memory import open_memory_pair
from moqt_trio.wire import dialect as dialects
from tests.faults.raw_peer import settled
from tests.faults.state_peer import (
    hostile,
    read_exactly,
    still_serves,
)
from tests.faults.state_wire import DEVELOP, Wire, numbers, text
from tests.transport.awaiting import accept_bidi
from tests.transport.quic_pair import client_settings, connect_quic

WIRE = Wire(DEVELOP)
NUMBER = bytes.fromhex("c0000000ffffff00")


def published(*names: str) -> moqt.Broadcast:
    """A broadcast with tracks of these names."""
    broadcast = moqt.Broadcast()
    for name in names:
        broadcast.track(name)
    return broadcast


async def change(announcements) -> tuple[str, bool]:
    """Return the next change: a path, and whether it is active."""
    with trio.fail_after(2):
        item = await announcements.receive()
    return str(item.path), item.active


# -- how the session starts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "path"),
    [
        (b"", "/"),
        (b"\x00", "/"),
        (numbers(1, 1) + text("echo"), "/echo"),
        (numbers(1, 1) + text("/echo"), "/echo"),
        (numbers(1, 1) + text("//echo"), "/echo"),
        (numbers(2, 2) + text("x") + numbers(1) + text("/echo"), "/echo"),
        (numbers(2, 1) + text("/echo") + numbers(2) + text("x"), "/echo"),
    ],
    ids=["nil", "none", "no slash", "one slash", "two slashes", "path last", "path first"],
)
async def test_parameters_of_the_handshake(parameters, path):
    """A nil map is no byte at all, the order of a map is any, and a path has no, one or two slashes in front."""
    asked: list[str] = []

    async def handler(request: moqt.SessionRequest) -> None:
        asked.append(request.path)
        async with request.accept() as session:
            await session.wait_closed()

    async with trio.open_nursery() as nursery:
        router = moqt.Router({"/echo": handler, "/": handler})
        listener = await nursery.start(partial(moqt.serve, router, "localhost", 0))
        settings = client_settings(alpns=("moq-00",), fingerprints=(), verify=False)
        async with connect_quic("localhost", listener.port, settings) as peer:
            stream = await peer.open_bidi()
            stream.write(b"\x00" + WIRE.framed(b"\x01" + NUMBER + parameters))
            assert await read_exactly(stream, len(WIRE.welcome)) == WIRE.welcome
            assert asked == [path]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("parameters", [b"", b"\x00"], ids=["nil", "none"])
async def test_a_server_whose_parameters_are_nil(parameters):
    """SESSION_SERVER without as much as a count of its parameters is an answer; ours always names the path."""
    async with open_memory_pair(protocol="moq-00") as (ours, peer), trio.open_nursery() as nursery:

        async def answer() -> None:
            stream = await accept_bidi(peer)
            # gomoqt's server does not answer a client that names no path, and puts a slash of its own before the path.
            assert await read_exactly(stream, len(WIRE.hello)) == WIRE.hello
            stream.write(WIRE.framed(NUMBER + parameters))

        nursery.start_soon(answer)
        agreed = await negotiate(ours, [dialects.get(DEVELOP)], path="/a", limits=moqt.Limits())
        assert agreed.dialect.name == DEVELOP


# -- announcements --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "by bytes"])
async def test_zeros_between_announcements(cut):
    """LIVE is written as two bytes and a zero; zeros between announcements are no announcements."""
    async with hostile(DEVELOP, peer_is_client=False) as (peer, session, wire):
        async with session.announcements() as announcements:
            stream = await accept_bidi(peer)
            data = wire.active("a/t") + bytes.fromhex("01 02 00") + b"\x00\x00" + wire.active("b/t") + b"\x00"
            for piece in [data[i : i + 1] for i in range(len(data))] if cut else [data]:
                stream.write(piece)
                await settled()
            assert [await change(announcements) for _ in range(2)] == [("a", True), ("b", True)]
            with trio.fail_after(2):
                await announcements.wait_initial()
            stream.write(wire.ended("a/t", 0) + b"\x00")
            assert await change(announcements) == ("a", False)
        await still_serves(peer, wire)
        assert session.closed is None


async def test_our_live_has_the_suffix_that_gomoqt_waits_for():
    """Its reader rejects a LIVE without a suffix: we write the empty suffix."""
    async with hostile(DEVELOP) as (peer, session, wire), session.publish("b", published("t")):
        stream = await peer.open_bidi()
        # A nil prefix is counted as no byte, and a zero is left after the message.
        stream.write(bytes.fromhex("01 00 00"))
        expected = wire.active("b/t") + bytes.fromhex("02 02 00")
        assert await read_exactly(stream, len(expected)) == expected
        assert session.closed is None


async def test_parameters_after_announcements():
    """A list of parameters after a request and an announcement is read, whether nil, empty or full."""
    async with hostile(DEVELOP) as (peer, session, wire), session.publish("b", published("t")):
        for parameters in (b"", b"\x00", numbers(1, 2) + text("tok")):
            stream = await peer.open_bidi()
            stream.write(b"\x01" + wire.framed(wire.path("b") + parameters))
            expected = wire.active("t") + bytes.fromhex("02 02 00")
            assert await read_exactly(stream, len(expected)) == expected
            async with session.announcements() as announcements:
                ours = await accept_bidi(peer)
                ours.write(wire.framed(b"\x01" + wire.path("c/t") + parameters))
                assert await change(announcements) == ("c", True)


async def test_whole_paths_where_suffixes_belong():
    """Below the prefix that was asked for, gomoqt announces whole paths: the prefix is not put in front twice."""
    async with hostile(DEVELOP) as (peer, session, wire), session.announcements("japan/kyoto") as announcements:
        stream = await accept_bidi(peer)
        stream.write(wire.active("japan/kyoto/text") + bytes.fromhex("01 02 00"))
        assert await change(announcements) == ("japan/kyoto", True)
        stream.write(wire.ended("japan/kyoto/text", 0))
        assert await change(announcements) == ("japan/kyoto", False)
        assert session.closed is None


async def test_suffixes_that_look_like_whole_paths():
    """A peer that writes suffixes is recognized by its LIVE, or its first other suffix: `a/a` below `a` is not `a`."""
    async with hostile(DEVELOP) as (peer, session, wire):
        for proof in (bytes.fromhex("02 02 00"), wire.active("b/t")):
            async with session.announcements("a") as announcements:
                stream = await accept_bidi(peer)
                stream.write(wire.active("a/t") + proof)
                await settled()
                others = {"a/b"} if proof == wire.active("b/t") else set()
                assert {str(item.path) for item in announcements.active} == {"a/a", *others}
                assert [await change(announcements) for _ in range(3)] == [("a", True), ("a", False), ("a/a", True)]
                stream.write(wire.ended("a/t", 0))
                await settled()
                assert {str(item.path) for item in announcements.active} == others
        assert session.closed is None
