"""Mutated streams of the drafts, fed to every machine and to live sessions: the short form of `make fuzz`."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

import trio

import moqt_trio as moqt
from fuzz.mutation import mutate
from moqt_trio.wire.ietf.fetched_frames import FetchedFrames
from tests.faults import drafts as d
from tests.faults.bytes.test_draft_data import GROUPS, REPLIES, group_of, side_of
from tests.faults.bytes.test_mutations import SLOW_S, timed
from tests.faults.draft_peer import DraftPeer, Exchange, draft_peer
from tests.faults.draft_places import places
from tests.faults.drafts import everything
from tests.faults.raw_peer import settled, write_in_pieces

if TYPE_CHECKING:
    from collections.abc import Callable

    from moqt_trio.protocol.machine import StreamMachine


def reply_of(name: str) -> StreamMachine:
    """Return the machine of a stream that may reply to a fetch."""
    side = side_of(name)
    side._state.replies[0] = FetchedFrames(side._state.profile, side._state.limits)
    return side.accept_uni()


INPUTS = 2000
"""Inputs for each draft."""
CODES = {0x0, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9, 0x12, 0x13, 0x16, 0x1B}
"""What a session closes with: the drafts' numbers for what a peer may break."""


@d.each_draft
def test_mutated_streams_raise_only_what_is_documented(name):
    """Mutated vectors, each at its own place: documented errors only, none over 10 ms, nothing kept."""
    chance = random.Random(f"drafts {name}")
    known = everything(name)
    here = places(name)
    groups = [(wire, alias) for found, wire, alias in GROUPS if found == name]
    replies = [wire for found, wire, *_ in REPLIES if found == name]

    def source() -> tuple[bytes, Callable[[], StreamMachine]]:
        kind = chance.randrange(4 if here else 2)
        if kind == 0:
            wire, alias = chance.choice(groups)
            return wire, lambda: group_of(name, alias)
        if kind == 1 and replies:
            return chance.choice(replies), lambda: reply_of(name)
        if not here:
            return chance.choice(known), lambda: side_of(name).accept_uni()
        place = chance.choice(here)
        return place.wire, place.machine

    for _ in range(INPUTS):
        wire, make = source()
        data = mutate(wire, known, chance)
        seed = chance.randrange(2**32)
        if timed(make(), data, seed) > SLOW_S:
            # A pause of the machine does not repeat; a slow input does.
            assert min(timed(make(), data, seed) for _ in range(3)) < SLOW_S, data.hex()


@d.each_draft
async def test_mutated_streams_on_a_live_session(name, caplog, autojump_clock):
    """On live sessions mutated requests, replies and objects end their stream or the session, and nothing else happens.

    A session that goes on still answers. Each mistake is one line in the log.
    """
    caplog.set_level(logging.INFO, "moqt_trio")
    chance = random.Random(f"live drafts {name}")
    for _ in range(40):
        async with draft_peer(name, limits=moqt.Limits(max_frame=10_000)) as peer:
            _, subscription = await peer.accepted()
            for _ in range(8):
                if peer.connection.closed is not None:
                    break
                await _mutated(peer, subscription, everything(name), chance)
                await settled()
            if peer.connection.closed is None:
                if not peer.wire.shared:
                    # What a mutated request used up is not used again. A stream that all share may wait for its rest.
                    peer._next_id = 20_000
                    await peer.check_alive()
            else:
                assert isinstance(peer.connection.closed, moqt.SessionClosed)
                assert peer.connection.closed.remote_code in CODES
    for record in caplog.records:
        assert record.levelno < logging.ERROR
        assert record.getMessage().isascii()
        assert record.getMessage().isprintable()


async def _mutated(peer: DraftPeer, subscription: Exchange, known: list[bytes], chance: random.Random) -> None:
    wire, request_id = peer.wire, subscription.request_id
    sequence = chance.randrange(50)
    opening: list[tuple[bytes, bool]] = [
        (wire.subscribe(peer._next_id), True),
        (wire.fetch(peer._next_id, group=3), True),
        (wire.subscribe_namespace(peer._next_id, b"b"), True),
        (wire.subgroup(7, sequence, b"x", b"", b"y" * 20), False),
        (wire.header(7, sequence, first=False) + wire.object(b"x", 3) + wire.status(3), False),
        (wire.reply_header(request_id) + wire.fetched(0, 0, b"x"), False),
        (chance.choice(known), bool(chance.randrange(2))),
    ]
    replies = [wire.update(peer._next_id, request_id), wire.publish_done(request_id), wire.subscribe_ok(request_id, 7)]
    try:
        if not chance.randrange(5):
            subscription.write(mutate(chance.choice(replies), known, chance))
            return
        data, request = chance.choice(opening)
        data = mutate(data, known, chance)
        if request and wire.shared:
            peer.write_control(data)
            return
        peer.next_id()
        stream = await (peer.connection.open_bidi() if request else peer.connection.open_uni())
        await write_in_pieces(stream, data, chance)
    except (moqt.StreamReset, moqt.SessionClosed, trio.ClosedResourceError):
        pass
