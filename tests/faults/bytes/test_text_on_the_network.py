"""Hostile names from a client on the network, over both transports: what ends, and what every logger says of it."""

from __future__ import annotations

import logging

import pytest
import trio

import moqt_trio as moqt
from tests.faults.bytes.test_text import OPAQUE as ALL_OPAQUE
from tests.faults.raw_peer import code_of_reset
from tests.faults.state_peer import VIOLATED, closing, hostile_over, still_serves
from tests.faults.state_wire import ALL, TUPLES

TRANSPORTS = pytest.mark.parametrize("transport", ["quic", "webtransport"])
each_version = pytest.mark.parametrize("version", ALL)
LIMITS = moqt.Limits()

UNPRINTABLE = ("NUL", "line breaks", "escape sequence", "other line breaks", "right to left")
OPAQUE = {**{name: ALL_OPAQUE[name] for name in UNPRINTABLE}, "dots": "../.."}
MARK = "MARK"
BROKEN = {"no UTF-8": b"\x1b\xff\r\n", "cut short": b"\x1b\r\n\xc3", "surrogate": b"\xed\xa0\x80\x1b"}


def too_long(version: str) -> str:
    """Return a broadcast's path of one byte too many; before moq-lite its track counts with it."""
    track = len("/t") if version in TUPLES else 0
    return "\x1b" * (LIMITS.max_path + 1 - track)


def check_log(caplog: pytest.LogCaptureFixture, ours: int) -> None:
    """Every logger wrote lines of plain ASCII, each record one; so many of them are the library's about the peer."""
    about = 0
    for record in caplog.records:
        line = logging.Formatter("%(name)s %(message)s").format(record)
        assert line.isascii(), line
        assert line.isprintable(), line
        about += record.name.startswith("moqt_trio.session") and record.levelno >= logging.INFO
    assert about == ours


@pytest.fixture(autouse=True)
def every_level(caplog):
    caplog.set_level(logging.DEBUG)


@pytest.mark.parametrize("name", OPAQUE.values(), ids=OPAQUE.keys())
@TRANSPORTS
@each_version
async def test_a_name_that_is_opaque(version, transport, name, caplog):
    """It is a name like any other: nothing has it, the request is refused with one line, and the session goes on."""
    async with hostile_over(transport, version) as (peer, session, wire):
        caplog.clear()
        stream = await peer.open_bidi()
        stream.write(wire.subscribe(0, name, name.replace("/", "")))
        assert await code_of_reset(stream) == wire.no_track
        check_log(caplog, 1)
        await still_serves(peer, wire)
        assert session.closed is None


async def check_closed(peer, session, caplog) -> None:
    """Return when the session was closed for a violation, with one line for each side."""
    assert await closing(peer) == VIOLATED
    with trio.fail_after(5):
        await session.wait_closed()
    assert peer.closed.reason.isascii()
    assert peer.closed.reason.isprintable()
    check_log(caplog, 1)


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN.keys())
@TRANSPORTS
@each_version
async def test_a_name_that_is_no_utf8(version, transport, raw, caplog):
    """The session ends with PROTOCOL_VIOLATION."""
    async with hostile_over(transport, version) as (peer, session, wire):
        caplog.clear()
        (await peer.open_bidi()).write(wire.subscribe(0, MARK).replace(MARK.encode(), raw))
        await check_closed(peer, session, caplog)


@pytest.mark.parametrize("kind", ["bytes", "parts"])
@TRANSPORTS
@each_version
async def test_a_name_that_is_too_long(version, transport, kind, caplog):
    """A path of 1,025 bytes, or of 33 parts, ends the session with PROTOCOL_VIOLATION; the longest one is just a
    path."""
    assert (LIMITS.max_path, LIMITS.max_path_parts) == (1024, 32)
    long = too_long(version)
    # Before moq-lite the track is a part like the others.
    parts = ["\x1b"] * (32 if version in TUPLES else 33)
    async with hostile_over(transport, version) as (peer, session, wire):
        longest = await peer.open_bidi()
        longest.write(wire.subscribe(0, long[:-1] if kind == "bytes" else "/".join(parts[:-1]), "t"))
        assert await code_of_reset(longest) == wire.no_track
        caplog.clear()
        (await peer.open_bidi()).write(wire.subscribe(1, long if kind == "bytes" else "/".join(parts), "t"))
        await check_closed(peer, session, caplog)
