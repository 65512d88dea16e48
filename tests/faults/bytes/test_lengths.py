"""Lengths and counts far above the bytes that follow, in every version.

Where messages have lengths, the length alone is refused. moq-transfork-03 has none: there it is the lengths of texts
and the counts of arrays. Nothing is allocated for a length or a count alone.
"""

from __future__ import annotations

import tracemalloc

import attrs
import pytest
import trio

from moqt_trio.errors import LimitExceeded, Malformed, RemoteProtocolError
from moqt_trio.session.handshake import negotiate
from moqt_trio.transport.memory import open_memory_pair
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.handshake import HandshakeForm
from moqt_trio.wire.messages import Expect
from tests.faults.dialects import (
    DEVELOP,
    LARGEST,
    LIMITS,
    MALFORMED_TRACK,
    NAMES,
    PLACES,
    SHAKES,
    TUPLES,
    UNFRAMED,
    VIOLATION,
    Place,
    Shake,
    outcome,
)
from tests.faults.hostile_peer import hostile_peer
from tests.transport.awaiting import accept_bidi

PREFIXED = [place for place in PLACES if place.version != UNFRAMED]
MOST_MEMORY = 64 * 1024
MILLION = bytes.fromhex("800f4240")
"""A varint of 1 000 000."""


def refused(machine, data: bytes) -> RemoteProtocolError:
    """Return what a machine refuses some bytes with, having taken less memory than a control message may have."""
    tracemalloc.start()
    try:
        with pytest.raises((LimitExceeded, Malformed)) as caught:
            machine.receive_data(data, False)
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()
    return caught.value


def check_scope(place: Place, error: RemoteProtocolError) -> None:
    """The mistake breaks the session, or in a group's header its stream."""
    assert (error.scope, error.code) == (("session", VIOLATION) if place.control else ("stream", MALFORMED_TRACK))


def limit_of(place: Place) -> int:
    """How long the message that is due may be. The batch of moq-lite-01 and -02 has a bound of its own."""
    batch = place.dialect.features.announce_first == "init" and place.expect is Expect.ANNOUNCE_FIRST_REPLY
    return LIMITS.max_announce_init if batch else LIMITS.max_message


def four_bytes(number: int) -> bytes:
    """Return a varint of four bytes."""
    return (number | 0x8000_0000).to_bytes(4, "big")


# -- lengths --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PREFIXED, ids=str)
def test_a_length_of_2_62_or_over_the_limit_is_refused_before_the_body(place):
    """A length of 2^62-1, or one above the limit, is refused at once; one of the limit waits for the body."""
    limit = limit_of(place)
    for kind in place.types:
        for length in (LARGEST, four_bytes(limit + 1)):
            error = refused(place.machine(), kind + length)
            assert isinstance(error, LimitExceeded)
            assert error.limit == "max_message"
            check_scope(place, error)
        machine = place.machine()
        assert machine.receive_data(kind + four_bytes(limit), False) == []
        assert machine.receive_data(b"\x00" * 100, False) == []


# The bytes in front of the first path of each message of moq-transfork-03 that has one.
BEFORE_PATH = {
    Expect.ANNOUNCE_REQUEST: b"",
    Expect.ANNOUNCE_REPLY: b"\x01",
    Expect.SUBSCRIBE: b"\x07",
    Expect.FETCH: b"",
    Expect.TRACK_REQUEST: b"",
}
WITH_PATH = [place for place in PLACES if place.version in TUPLES and place.expect in BEFORE_PATH]


def before_path(place: Place) -> bytes:
    """Return what stands in front of a tuple: in gomoqt's version a fetch names its subscription first."""
    return b"\x00" if (place.version, place.expect) == (DEVELOP, Expect.FETCH) else BEFORE_PATH[place.expect]


def message(place: Place, body: bytes) -> bytes:
    """Return a message without a type: its body, and a true length in front where the version has one."""
    return body if place.version == UNFRAMED else bytes((len(body),)) + body


@pytest.mark.parametrize("place", WITH_PATH, ids=str)
def test_a_text_of_2_62_in_a_tuple_is_refused_before_its_bytes(place):
    """A part of a path that promises 2^62-1 bytes, or one more than a path may have, is refused at its length."""
    for length in (LARGEST, four_bytes(LIMITS.max_path + 1)):
        error = refused(place.machine(), message(place, before_path(place) + b"\x01" + length))
        assert isinstance(error, LimitExceeded)
        assert error.limit == "max_path"
        check_scope(place, error)


@pytest.mark.parametrize("shake", [shake for shake in SHAKES if shake.form is not HandshakeForm.UNFRAMED], ids=str)
def test_a_handshake_longer_than_the_limit_is_refused_before_its_body(shake):
    """A handshake's message is held to the limit of a control message; a length of 16 bits cannot pass it."""
    compat = shake.form is HandshakeForm.COMPAT
    limits = attrs.evolve(LIMITS, max_message=1000) if compat else LIMITS
    lengths = [b"\xff\xff", b"\x03\xe9"] if compat else [LARGEST, four_bytes(LIMITS.max_message + 1)]
    for length in lengths:
        data = shake.wire[: shake.head] + length
        if shake.by_client and shake.form is HandshakeForm.PREFIXED:
            # A first number of this size is a length only when the second is no version: it is the count.
            data += b"\x01"
        error = refused(shake.machine(limits), data)
        assert isinstance(error, LimitExceeded)
        assert (error.limit, error.scope, error.code) == ("max_message", "session", VIOLATION)


def test_a_handshake_without_a_length_ends_at_the_limit():
    """The handshake of moq-transfork-03 may not grow past a control message, whatever its parameters promise."""
    for shake in SHAKES:
        if shake.form is HandshakeForm.UNFRAMED:
            before = shake.body[: 1 + 8 * shake.body[0]] if shake.by_client else shake.body[:8]
            machine = shake.machine()
            opening = shake.wire[: shake.head] + before + b"\x02"
            assert machine.receive_data(opening + b"\x03" + four_bytes(60_000) + bytes(60_000), False) == []
            with pytest.raises(LimitExceeded) as caught:
                machine.receive_data(b"\x05" + four_bytes(60_000), False)
            assert (caught.value.limit, caught.value.scope, caught.value.code) == ("max_message", "session", VIOLATION)
            assert isinstance(refused(shake.machine(), opening + b"\x03" + LARGEST), LimitExceeded)


@pytest.mark.parametrize("place", PLACES, ids=str)
async def test_a_session_closes_with_protocol_violation_for_a_length_of_2_62(place):
    """On a live session the peer's length of 2^62-1 ends the session with the version's PROTOCOL_VIOLATION.

    In a group's header it ends that stream alone. Where moq-transfork-03 has neither a length nor a text, the number
    that comes first is a valid value, and the session goes on.
    """
    async with hostile_peer(
        place.version,
        client=place.expect is Expect.SESSION_UPDATE and place.ours,
        setup=place.expect is not Expect.SETUP,
    ) as peer:
        try:
            stream = await peer.reach(place)
        except LookupError:
            assert place.version in TUPLES
            return
        unframed = place.version == UNFRAMED
        stream.write(
            before_path(place) + LARGEST if unframed and place.expect in BEFORE_PATH else place.types[0] + LARGEST
        )
        if place.control and not (unframed and place.expect not in BEFORE_PATH):
            await peer.check_closed(VIOLATION)
        else:
            await peer.check_alive()


@pytest.mark.parametrize("shake", SHAKES, ids=str)
async def test_a_handshake_that_promises_2_62_closes_the_connection(shake):
    """Before there is a session, a handshake of impossible size closes the connection with PROTOCOL_VIOLATION.

    A length of 16 bits promises no more than a control message may have; there it is the fields that are impossible.
    """
    async with open_memory_pair() as (client, server), trio.open_nursery() as nursery:
        own, peer = (server, client) if shake.by_client else (client, server)

        async def write() -> None:
            stream = await (peer.open_bidi() if shake.by_client else accept_bidi(peer))
            stream.write(shake.wire[: shake.head] + b"\xff" * (0x10001 if shake.form is HandshakeForm.COMPAT else 24))

        nursery.start_soon(write)
        with trio.fail_after(10), pytest.raises(RemoteProtocolError) as caught:
            await negotiate(own, [dialects.get(shake.version)], limits=LIMITS)
        assert caught.value.code == VIOLATION
        closed = await peer.wait_closed()
        assert closed.remote_code == VIOLATION


# -- counts ---------------------------------------------------------------------------------------------------


def _counted() -> list[tuple[str, Place, bytes, bytes, str | None]]:
    """Every count of every version: its name, the place, the type and the fields in front, and the limit."""
    found = []
    for place in PLACES:
        name, expect = place.version, place.expect
        if place in WITH_PATH:
            found.append(("parts of a path", place, b"", before_path(place), "max_path_parts"))
        if expect is Expect.SETUP:
            found.append(("parameters", place, b"", b"", "max_parameters"))
        if expect is Expect.ANNOUNCE_REPLY and place.dialect.features.announce_ids:
            found.append(("hops of a start", place, b"\x00", b"\x01a", "max_hops"))
            found.append(("hops of an update", place, b"\x02", b"\x00", "max_hops"))
        elif expect is Expect.ANNOUNCE_REPLY and place.dialect.features.sender_hop != "none":
            found += [(f"hops of status {status}", place, b"", bytes((status, 1, 97)), "max_hops") for status in (0, 1)]
        if expect is Expect.ANNOUNCE_FIRST_REPLY and place.dialect.features.announce_first == "init":
            found.append(("broadcasts of a batch", place, b"", b"", None))
        if name == DEVELOP:
            fields = {
                Expect.ANNOUNCE_REQUEST: b"\x00",
                Expect.ANNOUNCE_REPLY: b"\x01\x01\x01a",
                Expect.SUBSCRIBE: bytes.fromhex("07 0101 61 00 00 00 00"),
                Expect.SUBSCRIBE_UPDATE: bytes.fromhex("00 00 00 00"),
            }.get(expect)
            if fields is not None:
                found.append(("parameters", place, b"", fields, "max_parameters"))
    return found


COUNTS = _counted()


@pytest.mark.parametrize(("what", "place", "kind", "fields", "limit"), COUNTS, ids=lambda v: str(v) if v else "-")
def test_a_count_of_a_million_in_ten_bytes_is_refused(what, place, kind, fields, limit):
    """An array that claims a million items in no bytes is refused with PROTOCOL_VIOLATION, and nothing is made for it.

    A batch of moq-lite-01 and -02 may have that many by its own limit; there the missing bytes are the error.
    """
    for count in (MILLION, LARGEST):
        error = refused(place.machine(), kind + message(place, fields + count))
        assert (error.scope, error.code) == ("session", VIOLATION)
        if limit is not None:
            assert isinstance(error, LimitExceeded)
            assert (error.limit, error.value) == (limit, 10**6 if count is MILLION else 2**62 - 1)


@pytest.mark.parametrize(("what", "place", "kind", "fields", "limit"), COUNTS, ids=lambda v: str(v) if v else "-")
def test_a_count_may_reach_its_limit_and_not_pass_it(what, place, kind, fields, limit):
    """One item above the limit is refused as such, with all of them there; as many as the limit are read."""
    if limit is None:
        # A batch is bounded by what an announce stream may hold: that breaks the stream alone.
        bound, item, limit, scope = LIMITS.max_announcements, b"\x00", "max_announcements", "stream"
    else:
        item = {"parts of a path": b"\x01p"}.get(what, b"\x00\x00" if what == "parameters" else b"\x00")
        bound, scope = getattr(LIMITS, limit), "session"
    # What comes after the hops: two costs, or the one of the version on the way there.
    costs = b"\x00" if place.version == "moq-lite-06-wip" else b"\x00\x00"
    end = costs if what in ("hops of a start", "hops of an update") else b""

    def written(count: int) -> bytes:
        items = b"".join(bytes((0x41, number, 0)) for number in range(count)) if what == "parameters" else item * count
        if place.version == "moq-lite-03":
            items = b""  # hops have no ids there, only a number
        body = fields + four_bytes(count) + items + end
        return kind + (body if place.version == UNFRAMED else four_bytes(len(body)) + body)

    with pytest.raises(LimitExceeded) as caught:
        place.machine().receive_data(written(bound + 1), False)
    assert (caught.value.limit, caught.value.value, caught.value.scope) == (limit, bound + 1, scope)
    if limit in ("max_hops", "max_parameters"):
        _, error = outcome(place.machine(), [written(bound)])
        # An update names an announcement that is not there: it was read all the same.
        assert error is None or (what == "hops of an update" and error[0] is RemoteProtocolError)


@pytest.mark.parametrize("shake", SHAKES, ids=str)
def test_counts_of_a_million_in_a_handshake_are_refused(shake: Shake):
    """A handshake's list of versions and its parameters are counted before anything is made for them."""
    listed = 1 + 8 * shake.body[0] if shake.by_client else 8
    counts = [MILLION, LARGEST]
    bodies = [shake.body[:listed] + count for count in counts]
    if shake.by_client and shake.form is HandshakeForm.PREFIXED:
        # Two forms begin alike, and the second number tells them apart: from 65536 on it is a version.
        bodies.append(four_bytes(65_535))
    elif shake.by_client:
        bodies += [count + shake.body[1:9] for count in counts]
    for body in bodies:
        error = refused(shake.machine(), shake.framed(body))
        assert isinstance(error, LimitExceeded)
        assert (error.limit, error.scope, error.code) == ("max_parameters", "session", VIOLATION)


def test_every_version_has_lengths_and_counts_here():
    """No version is left out: each has a message with a length or a text, and a count."""
    assert {place.version for place in [*PREFIXED, *WITH_PATH]} == set(NAMES)
    assert {place.version for _, place, *_ in COUNTS} | {shake.version for shake in SHAKES} == set(NAMES)
