"""Mutated streams, fed to every machine of every version and to live sessions.

Only the documented exceptions are raised, no input takes long, and no state is left. This is the short form of
`make fuzz`, with the same mutations; it is checked here that `make fuzz` covers every version and every vector.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

import moqt_trio as moqt
from fuzz import ietf
from fuzz.__main__ import TARGETS, run, samples
from fuzz.mutation import mutate
from moqt_trio.errors import LimitExceeded, Malformed, RemoteProtocolError
from moqt_trio.wire.ietf.objects import MalformedTrack
from tests.faults.dialects import CASES, NAMES, SHAKES, all_vectors, vectors
from tests.faults.hostile_peer import Peer, hostile_peer
from tests.faults.raw_peer import settled, write_in_pieces

if TYPE_CHECKING:
    from moqt_trio.protocol.machine import StreamMachine

each_version = pytest.mark.parametrize("name", NAMES)
INPUTS = 2500
"""Inputs for each version; all versions together have more than 20 000."""
SLOW_S = 0.010


def feed(machine: StreamMachine, data: bytes, chance: random.Random) -> None:
    """Feed a stream in random pieces and end it in some way; a mistake has to be a documented one."""
    mistake: RemoteProtocolError | None = None
    try:
        while data:
            size = chance.randint(1, len(data))
            machine.receive_data(data[:size], False)
            data = data[size:]
        match chance.randrange(4):
            case 0:
                machine.receive_data(b"", True)
            case 1:
                machine.receive_reset(chance.randrange(2**62))
            case 2:
                machine.receive_stop(chance.randrange(2**62))
    except RemoteProtocolError as error:
        mistake = error
    if mistake is not None:
        assert type(mistake) in (RemoteProtocolError, Malformed, MalformedTrack, LimitExceeded)
        assert mistake.scope in ("stream", "session")
        assert str(mistake).isprintable()
        assert machine.receive_data(b"\x00", False) == []
    machine.release()
    machine.release()


def timed(machine: StreamMachine, data: bytes, seed: int) -> float:
    """Feed a stream; return the seconds that it took."""
    chance = random.Random(seed)
    began = time.perf_counter()
    feed(machine, data, chance)
    return time.perf_counter() - began


@each_version
def test_mutated_streams_raise_only_what_is_documented(name):
    """Thousands of mutated vectors, each at its own place: documented errors only, none over 10 ms, nothing kept."""
    chance = random.Random(name)
    places = [case for case in CASES if case[0].version == name]
    shakes = [shake for shake in SHAKES if shake.version == name]
    group = next(place for place, _ in places if not place.control)
    known = all_vectors(name)
    for _ in range(INPUTS):
        if shakes and not chance.randrange(5):
            source = chance.choice(shakes)
            wire = source.wire
        elif not chance.randrange(5):
            source, wire = group, vectors(name, "GROUP_STREAM")[0][1:]
        else:
            source, wire = chance.choice(places)
        data = mutate(wire, known, chance)
        seed = chance.randrange(2**32)
        if timed(source.machine(), data, seed) > SLOW_S:
            # A pause of the machine does not repeat; a slow input does.
            assert min(timed(source.machine(), data, seed) for _ in range(3)) < SLOW_S, data.hex()


@each_version
async def test_mutated_streams_on_a_live_session(name, caplog, autojump_clock):
    """On live sessions mutated requests, replies and groups end their stream or the session, and nothing else happens.

    A session that goes on still answers; one that closed has PROTOCOL_VIOLATION. Each mistake is one line in the log.
    """
    caplog.set_level(logging.INFO, "moqt_trio")
    chance = random.Random(f"live {name}")
    known = all_vectors(name)
    for _ in range(20):
        async with hostile_peer(name, limits=moqt.Limits(max_frame=10_000)) as peer:
            await peer.subscription()
            for _ in range(8):
                if peer.session.closed is not None or peer.connection.closed is not None:
                    break
                await _mutated(peer, known, chance)
                await settled()
            if peer.session.closed is None:
                await peer.check_alive()
            else:
                assert isinstance(peer.session.closed, moqt.SessionClosed)
                assert peer.session.closed.local_code in (0x0, 0x3)
    for record in caplog.records:
        assert record.levelno < logging.ERROR
        assert record.getMessage().isascii()
        assert record.getMessage().isprintable()


async def _mutated(peer: Peer, known: list[bytes], chance: random.Random) -> None:
    name = peer.dialect.name
    place, wire = chance.choice([case for case in CASES if case[0].version == name])
    if not chance.randrange(4):
        stream = await peer.connection.open_uni()
        data = mutate(vectors(name, "GROUP_STREAM")[0], known, chance)
    else:
        try:
            with trio.move_on_after(5) as scope:
                stream = await peer.reach(attrs.evolve(place, before=b"") if place.control else place)
            if scope.cancelled_caught:
                return
        except (LookupError, moqt.MoqtError):
            return
        data = mutate(place.before + wire, known, chance)
    with contextlib.suppress(moqt.StreamReset, moqt.SessionClosed):
        await write_in_pieces(stream, data, chance)


# -- the fuzz target -------------------------------------------------------------------------------------------


@each_version
def test_the_fuzz_target_mutates_every_vector(name):
    """Every vector of every version is among what `make fuzz` starts from."""
    assert samples()[name] == all_vectors(name)


def test_the_fuzz_target_has_all_versions_and_finds_nothing(capsys):
    """It covers exactly the nine versions and the nine drafts of the IETF's; forty thousand inputs of it raise nothing
    undocumented and none is slow."""
    assert set(samples()) == set(NAMES)
    assert len(NAMES) == 9
    assert set(ietf.samples()) == set(range(14, 23))
    assert run(40_000, seed=20_261) == 0
    printed = capsys.readouterr().out
    assert "40,000 inputs of 18 versions" in printed
    for target in TARGETS:
        # Each of them reaches decoders, and not only places that do not exist.
        assert f"{target.__name__}: Malformed" in printed
