"""A peer that is only a transport connection, whose bytes a test writes by hand. The other side is our session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.session.run import run_session
from moqt_trio.transport.code_mapping import HTTP3_CODES
from moqt_trio.transport.memory import MemoryConnection, open_memory_pair
from moqt_trio.wire import dialect as dialects

if TYPE_CHECKING:
    import random

SETUP = bytes.fromhex("01 01 00")
"""A SETUP stream: its type, and a message without parameters."""


def subscribe(subscribe_id: int) -> bytes:
    """A SUBSCRIBE of moq-lite-06 for track `t` of broadcast `b`: every group from the latest on."""
    body = bytes([subscribe_id]) + b"\x01b" + b"\x01t" + bytes.fromhex("7f 00 00 00 00 00")
    return b"\x02" + bytes([len(body)]) + body


def group(subscribe_id: int, sequence: int, *payloads: bytes) -> bytes:
    """A group stream of moq-lite-06: its type, its header, and frames that have the timestamp 0."""
    frames = b"".join(b"\x00" + bytes([len(payload)]) + payload for payload in payloads)
    return b"\x00\x03" + bytes([subscribe_id, sequence, 0]) + frames


@asynccontextmanager
async def raw_peer(
    version: str = "moq-lite-06", *, limits: moqt.Limits | None = None, peer_limits: moqt.Limits | None = None
) -> AsyncIterator[tuple[MemoryConnection, moqt.Session]]:
    """Run a server's session; yield the connection of its client, which has no session, and the session."""
    limits = limits or moqt.Limits()
    async with open_memory_pair(limits=limits, client_limits=peer_limits, protocol=version) as (peer, ours):
        peer.code_mapping = HTTP3_CODES
        async with run_session(ours, [dialects.get(version)], limits=limits) as session:
            yield peer, session


async def settled() -> None:
    """Let everything that is on its way arrive."""
    await trio.testing.wait_all_tasks_blocked()


async def write_in_pieces(stream, data: bytes, chance: random.Random) -> None:
    """Write bytes in pieces of any size, with and without a pause, then perhaps end or reset the stream."""
    while data:
        size = chance.randint(1, len(data))
        stream.write(data[:size])
        data = data[size:]
        if chance.randrange(2):
            await settled()
    match chance.randrange(4):
        case 0:
            stream.write(b"", fin=True)
        case 1:
            stream.reset(chance.randrange(2**32))


async def code_of_stop(stream) -> int:
    """Wait until the other side stops a stream; return with which code."""
    with trio.fail_after(30):
        while True:
            try:
                await stream.wait_writable()
                stream.write(b"")
            except moqt.StreamReset as error:
                return error.code
            await trio.sleep(0.01)


async def code_of_reset(stream) -> int:
    """Read a stream until the other side resets it; return with which code."""
    with trio.fail_after(30):
        try:
            while await stream.receive_some():
                pass
        except moqt.StreamReset as error:
            return error.code
    raise AssertionError("the stream was finished, not reset")
