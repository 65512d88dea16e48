"""Every message of every version cut at every byte, and with bytes too many.

What is wrong inside a message's length is PROTOCOL_VIOLATION. A stream that is finished inside a message is a broken
stream in the lite family, and no more; without a SETUP or a handshake there is no session, so there it ends it. Groups
that are cut among their frames are in `test_frames.py`.
"""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.errors import Malformed, RemoteProtocolError
from moqt_trio.wire.handshake import HandshakeForm
from moqt_trio.wire.messages import Expect
from tests.faults.dialects import (
    CASES,
    DEVELOP,
    MALFORMED_TRACK,
    NAMES,
    PLACES,
    SHAKES,
    UNFRAMED,
    VIOLATION,
    Place,
    case_id,
    outcome,
)
from tests.faults.hostile_peer import hostile_peer
from tests.faults.raw_peer import code_of_reset, code_of_stop, settled
from tests.transport.awaiting import accept_bidi

FRAMED = [(place, wire) for place, wire in CASES if place.version != UNFRAMED]
FRAMED_SHAKES = [shake for shake in SHAKES if shake.form is not HandshakeForm.UNFRAMED]
ENDS_SESSION = (Expect.SETUP, Expect.SESSION_UPDATE)
PUBLISHED_CODES = {0x0, 0x1, MALFORMED_TRACK, 0x33}
"""What a broken request is reset with in the versions of moq-lite."""

WITH_PARAMETERS = (Expect.ANNOUNCE_REQUEST, Expect.ANNOUNCE_REPLY, Expect.SUBSCRIBE, Expect.SUBSCRIBE_UPDATE)
LEFT_OUT = (*WITH_PARAMETERS, Expect.FETCH, Expect.TRACK_REQUEST)
"""The places where gomoqt's develop leaves out what stands at the end: parameters, a first frame, an empty tuple."""


def cut_out(place: Place, wire: bytes) -> tuple[bytes, bytes]:
    """Return a message's type, if it has one, and its body. Every length in the vectors fits in one byte."""
    kind = 1 if place.types[0] else 0
    assert wire[kind] == len(wire) - kind - 1
    return wire[:kind], wire[kind + 1 :]


def check(place: Place, error: tuple[type, int, str] | None) -> None:
    """An undecodable message breaks the session, or in a group's header its stream."""
    assert error is not None
    assert issubclass(error[0], Malformed)
    assert error[1:] == ((VIOLATION, "session") if place.control else (MALFORMED_TRACK, "stream"))


# -- too early ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("place", "wire"), CASES, ids=case_id)
def test_a_stream_finished_inside_a_message_is_malformed(place, wire):
    """FIN at any byte of a message breaks its stream; inside a SETUP or on a handshake's stream, the session."""
    for cut in range(1, len(wire)):
        for pieces in ([wire[:cut]], [wire[i : i + 1] for i in range(cut)]):
            events, error = outcome(place.machine(), pieces, fin=True)
            assert error is not None
            assert issubclass(error[0], Malformed)
            assert error[2] == ("session" if place.expect in ENDS_SESSION else "stream")
            if place.expect in ENDS_SESSION:
                assert error[1] == VIOLATION
            # The stream alone is the request for a probe.
            assert len(events) == (place.expect is Expect.PROBE and not place.ours and cut == 1) or not events


@pytest.mark.parametrize("shake", SHAKES, ids=str)
def test_a_handshake_finished_inside_is_malformed(shake):
    """FIN at any byte of a handshake, and before its first, ends the session: there is none yet."""
    for cut in range(len(shake.wire)):
        events, error = outcome(shake.machine(), [shake.wire[:cut]], fin=True)
        assert events == []
        assert error == (Malformed, VIOLATION, "session")


@pytest.mark.parametrize(("place", "wire"), FRAMED, ids=case_id)
def test_a_length_that_ends_inside_the_fields_is_malformed(place, wire):
    """A body that is whole by its length and ends inside its fields is PROTOCOL_VIOLATION, at every cut.

    gomoqt's develop leaves fields out at the end of some messages, and writes zeros that look like empty ones.
    """
    kind, body = cut_out(place, wire)
    for cut in range(len(body)):
        events, error = outcome(place.machine(), [kind + bytes((cut,)) + body[:cut]])
        if error is None:
            assert place.version == DEVELOP
            assert place.expect in LEFT_OUT or (cut == 0 and events == [])
        elif error[0] is not Malformed:
            # It was read, and refused for its values.
            assert place.version == DEVELOP
            assert place.expect in LEFT_OUT
        else:
            check(place, error)


@pytest.mark.parametrize("name", NAMES)
async def test_a_session_survives_requests_cut_at_every_byte(name):
    """Every request of the vectors, finished at every byte, has its stream reset; the session goes on."""
    async with hostile_peer(name) as peer:
        for place, wire in CASES:
            if place.version != name or place.ours or not place.bidirectional or place.expect in ENDS_SESSION:
                continue
            for cut in range(1, len(wire)):
                stream = await peer.reach(place)
                stream.write(wire[:cut], fin=True)
                code = await code_of_reset(stream)
                assert name == DEVELOP or code in PUBLISHED_CODES
        await settled()
        assert peer.session.closed is None
        assert peer.session.statistics().subscriptions_served == 0
        await peer.check_alive()


@pytest.mark.parametrize("name", NAMES)
async def test_a_session_survives_replies_cut_at_every_byte(name):
    """Every reply of the vectors, finished at every byte, ends the request that it answers, and nothing else."""
    for place, wire in CASES:
        if place.version != name or not place.ours or place.expect in ENDS_SESSION:
            continue
        async with hostile_peer(name) as peer:
            for cut in range(1, len(wire)):
                try:
                    stream = await peer.reach(place)
                except LookupError:
                    break
                stream.write(wire[:cut], fin=True)
                await code_of_reset(stream)
            assert peer.session.closed is None
            await peer.check_alive()


@pytest.mark.parametrize("place", [place for place in PLACES if place.expect in ENDS_SESSION], ids=str)
async def test_a_session_ends_with_a_setup_or_an_update_cut_short(place):
    """A SETUP, or a message on the handshake's stream, that is finished inside ends the session."""
    for cut in {1, len(place.vectors()[-1]) - 1} - {0}:
        async with hostile_peer(place.version, client=place.ours, setup=False) as peer:
            stream = await peer.reach(place)
            stream.write(place.vectors()[-1][:cut], fin=True)
            await peer.check_closed(VIOLATION)


@pytest.mark.parametrize("name", NAMES)
async def test_the_reader_of_a_reply_cut_short_learns_it(name):
    """A task that waits for announcements or groups gets the peer's error at once."""
    for expect, receive in (
        (Expect.ANNOUNCE_REPLY, lambda session: session.announcements()),
        (Expect.SUBSCRIBE_FIRST_REPLY, lambda session: session.subscribe("a", "t")),
        (Expect.SUBSCRIBE_REPLY, lambda session: session.subscribe("a", "t")),
    ):
        for place, wire in CASES:
            if (place.version, place.expect, place.ours) != (name, expect, True) or len(wire) < 2:
                continue
            async with hostile_peer(name) as peer, receive(peer.session) as waiting:
                stream = await accept_bidi(peer.connection)
                if expect is not Expect.ANNOUNCE_REPLY and peer.dialect.features.track_info:
                    stream = await accept_bidi(peer.connection)
                stream.write(place.before + wire[:-1], fin=True)
                with trio.fail_after(10), pytest.raises(moqt.RemoteProtocolError, match="FIN inside"):
                    await waiting.receive()
                await peer.check_alive()


# -- too much -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [b"\x00", b"\xff", b"\x00" * 100], ids=["00", "ff", "100 zeros"])
@pytest.mark.parametrize(("place", "wire"), FRAMED, ids=case_id)
def test_bytes_after_the_fields_are_malformed(place, wire, extra):
    """A length that goes on after the last field is PROTOCOL_VIOLATION.

    In gomoqt's develop a count of parameters may stand there: one zero is a count of none.
    """
    kind, body = cut_out(place, wire)
    size = len(body) + len(extra)
    length = bytes((size,)) if size < 64 else bytes((0x40 | size >> 8, size & 0xFF))
    _, error = outcome(place.machine(), [kind + length + body + extra])
    if place.version == DEVELOP and place.expect in WITH_PARAMETERS and extra == b"\x00" and error is None:
        return
    if error is not None and error[0] is not Malformed:
        # An announcement that names a missing one.
        raise AssertionError(error)
    check(place, error)


@pytest.mark.parametrize("shake", FRAMED_SHAKES, ids=str)
def test_bytes_after_the_fields_of_a_handshake_are_malformed(shake):
    """A handshake's message that goes on after its fields ends the session; one zero may count no parameters."""
    assert outcome(shake.machine(), [shake.framed(shake.body + b"\x00\x00")]) == ([], (Malformed, VIOLATION, "session"))


@pytest.mark.parametrize(("place", "wire"), [case for case in CASES if case[0].version == UNFRAMED], ids=case_id)
def test_bytes_after_a_message_without_a_length_begin_the_next(place, wire):
    """moq-transfork-03 ends a message after its last field; where nothing more is due, more bytes break the stream."""
    events, error = outcome(place.machine(), [wire])
    machine = place.machine()
    if place.expect in (Expect.ANNOUNCE_REQUEST, Expect.TRACK_REQUEST, Expect.TRACK_INFO):
        with pytest.raises(RemoteProtocolError) as caught:
            machine.receive_data(wire + b"\x01", False)
        assert caught.value.scope == "stream"
        assert machine.partial_events == events
    else:
        # A byte of a varint that has eight: what it belongs to is not there yet.
        assert outcome(machine, [wire + b"\xc0"]) == (events, error)


PARAMETERS = {
    "probe": "01 02 0100",
    "role": "03 02 0100",
    "cost": "04 03 010000",
    "hop id": "05 02 0700",
    "probe without a value": "01 00",
    "probe of half a varint": "01 01 40",
    "the same twice": "01 01 01 01 01 01",
}


@pytest.mark.parametrize("parameters", PARAMETERS.values(), ids=PARAMETERS.keys())
@pytest.mark.parametrize("place", [place for place in PLACES if place.expect is Expect.SETUP], ids=str)
def test_a_parameter_that_does_not_fill_its_length_is_malformed(place, parameters):
    """A number in SETUP has to fill the length of its parameter, no more and no less, and be there once."""
    values = bytes.fromhex(parameters)
    body = bytes((2 if "twice" in parameters or len(values) == 6 else 1,)) + values
    events, error = outcome(place.machine(), [bytes((len(body),)) + body])
    assert events == []
    check(place, error)


@pytest.mark.parametrize("place", [place for place in PLACES if place.version != UNFRAMED], ids=str)
async def test_a_session_closes_for_bytes_after_the_fields(place):
    """On a live session a message with bytes too many ends the session; a group's header only its stream."""
    client = place.expect in (Expect.GOAWAY,) or (place.expect is Expect.SESSION_UPDATE and place.ours)
    async with hostile_peer(place.version, client=client, setup=place.expect is not Expect.SETUP) as peer:
        try:
            stream = await peer.reach(place)
        except LookupError:
            assert place.version == DEVELOP
            return
        kind, body = cut_out(place, place.vectors()[0])
        stream.write(kind + bytes((len(body) + 2,)) + body + b"\xff\xff")
        if place.control:
            await peer.check_closed(VIOLATION)
        else:
            code = await code_of_stop(stream)
            assert code == peer.dialect.codes.to_wire("group", MALFORMED_TRACK)
            await settled()
            await peer.check_alive()
