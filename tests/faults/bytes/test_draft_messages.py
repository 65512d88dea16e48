"""Control messages of the drafts as hostile bytes: lengths, counts, cuts, bytes too many, and any split.

Each message of the vectors is read at its place, by the machine of a session.
"""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moqt_trio.errors import LimitExceeded, Malformed, RemoteProtocolError
from moqt_trio.limits import Limits
from tests.faults import drafts as d
from tests.faults.dialects import outcome
from tests.faults.draft_peer import draft_peer
from tests.faults.draft_places import DraftPlace, places
from tests.faults.drafts import NAMES, PROTOCOL_VIOLATION, DraftWire, each_draft
from tests.faults.raw_peer import settled

if TYPE_CHECKING:
    from moqt_trio.protocol.machine import StreamMachine

PLACES = [place for name in NAMES for place in places(name)]
each_place = pytest.mark.parametrize("place", PLACES, ids=str)
KINDS = list({(place.name, place.message): place for place in PLACES}.values())
"""One vector of each message of each draft."""
each_kind = pytest.mark.parametrize("place", KINDS, ids=str)
LIMITS = Limits()
MOST_MEMORY = 64 * 1024
VIOLATED = (PROTOCOL_VIOLATION, "session")

quick = settings(derandomize=True, deadline=None, database=None, max_examples=50)


def test_every_draft_has_its_messages_here():
    """No draft is left out, and none of the messages that a session reads."""
    for name in NAMES:
        if DraftWire(name).shared:
            continue
        found = {place.message for place in PLACES if place.name == name}
        needed = {"SUBSCRIBE", "SUBSCRIBE_OK", "FETCH", "SUBSCRIBE_NAMESPACE", "PUBLISH_DONE", "REQUEST_ERROR"}
        if DraftWire(name).draft in (18, 20, 22):
            needed |= {"GOAWAY", "SETUP", "REQUEST_UPDATE", "FETCH_OK", "NAMESPACE", "NAMESPACE_DONE", "REQUEST_OK"}
        assert needed - {"REQUEST_ERROR"} <= found or DraftWire(name).draft not in (18, 20, 22)
        assert len(found) > 5


@each_place
def test_each_vector_is_read_at_its_place(place):
    """What is cut and changed below is read without a mistake when it is whole."""
    _, error = outcome(place.machine(), [place.wire])
    assert error is None


# -- row 1: lengths -----------------------------------------------------------------------------------------------


def peak(machine: StreamMachine, pieces: list[bytes]) -> int:
    """Return the most memory that reading takes; mistakes are in order."""
    tracemalloc.start()
    try:
        outcome(machine, pieces)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@each_kind
def test_a_length_of_65535_takes_no_memory_before_its_bytes(place):
    """The length alone is waited for; no buffer is made for it. With all its bytes, it takes a few times their size."""
    kind, _ = place.cut_out()
    head = kind + b"\xff\xff"
    machine = place.machine()
    assert peak(machine, [head, b"\x00" * 100]) < MOST_MEMORY
    assert outcome(place.machine(), [head, b"\x00" * 100]) == ([], None)
    for body in (b"\x00" * 0xFFFF, b"\x01" * 0xFFFF, b"\x02" * 0xFFFF, b"\xff" * 0xFFFF):
        pieces = [head, *(body[start : start + 1200] for start in range(0, len(body), 1200))]
        assert peak(place.machine(), pieces) < MOST_MEMORY + 6 * len(body)
        _, error = outcome(place.machine(), pieces)
        assert error is None or error[2] in ("session", "stream")


@each_kind
def test_a_message_over_its_length_is_not_waited_for(place):
    """Bytes behind a body are the next message, whatever the length promised."""
    kind, body = place.cut_out()
    for size in {0, 1, len(body) - 1}:
        if 0 <= size < len(body):
            _, error = outcome(place.machine(), [kind + size.to_bytes(2, "big") + body[:size]])
            assert error is None or error[0] in (Malformed, LimitExceeded, RemoteProtocolError)


# -- row 3: counts ------------------------------------------------------------------------------------------------


def _counts(wire: DraftWire, count: bytes) -> dict[str, tuple[int, bytes]]:
    """Return messages that announce so many of something and have none of it, each with its type."""
    name = wire.namespace(b"b") + wire.data(b"t")
    head = wire.request_id(0)
    found = {
        "fields of a namespace": (d.SUBSCRIBE, head + count),
        "bytes of a namespace": (d.SUBSCRIBE, head + b"\x01" + count),
        "bytes of a name": (d.SUBSCRIBE, head + wire.namespace(b"b") + count),
        "fields of a namespace that is published": (d.PUBLISH_NAMESPACE, head + count),
        "parameters of a namespace": (d.PUBLISH_NAMESPACE, head + wire.namespace(b"b") + count),
    }
    if wire.draft >= 15:
        found |= {
            "parameters": (d.SUBSCRIBE, head + name + count),
            "bytes of a token": (d.SUBSCRIBE, head + name + b"\x01\x03" + count),
            "parameters of a status": (d.TRACK_STATUS, head + name + count),
            "parameters of an offer": (d.PUBLISH, head + name + b"\x07" + count),
        }
    if wire.draft >= 16:
        found["bytes of a property"] = (d.PUBLISH, head + name + b"\x07\x00\x0b" + count)
    if wire.draft >= 20:
        found |= {
            "bytes of a filter": (d.SUBSCRIBE, head + name + b"\x01\x25" + count),
            "bytes of a fill": (d.SUBSCRIBE, head + name + b"\x01\x23" + count),
            "parameters of a fill": (d.SUBSCRIBE, head + name + b"\x01\x23" + wire.data(count)),
            "parameters of a fetch": (d.FETCH, head + name + count),
        }
    return found


@each_draft
@pytest.mark.parametrize("count", [10**6, 2**62 - 1, 2**64 - 1])
async def test_counts_of_a_million_in_few_bytes(name, count):
    """The session closes with PROTOCOL_VIOLATION, and nothing is made for the count."""
    wire = DraftWire(name)
    if count > wire.largest:
        return
    for what, (kind, body) in _counts(wire, wire.number(count)).items():
        async with draft_peer(name) as peer:
            tracemalloc.start()
            try:
                await peer.request(wire.message(kind, body))
                await settled()
                taken = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert taken < 8 * MOST_MEMORY, what
            # A text that does not fit in its parameter may have a code of its own.
            error = await peer.connection.wait_closed()
            assert error.by_peer, what
            assert error.remote_code in (PROTOCOL_VIOLATION, 0x6), what


@each_draft
async def test_more_parameters_than_are_read(name):
    """As many tokens as `max_parameters` are read; one more closes the session. So do options in SETUP."""
    wire, bound = DraftWire(name), LIMITS.max_parameters
    head = wire.request_id(0) + wire.namespace(b"b") + wire.data(b"t")
    token = b"\x03\x00"  # USE_VALUE of type 0, without a value
    for count in (bound, bound + 1):
        if wire.draft >= 16:
            body = wire.number(count) + b"\x03" + wire.data(token) + (b"\x00" + wire.data(token)) * (count - 1)
        else:
            fixed = bytes.fromhex("80 01 01 02") if wire.draft == 14 else b""
            body = fixed + wire.number(count) + (b"\x03" + wire.data(token)) * count
        async with draft_peer(name) as peer:
            exchange = await peer.request(wire.message(d.SUBSCRIBE, head + body), 0)
            if count == bound:
                await exchange.answer()
            else:
                await peer.check_closed()
    if wire.shared:
        return
    for count in (bound, bound + 1):
        async with draft_peer(name, setup=False) as peer:
            await peer.send(wire.setup(client=True, options=b"\x64\x00" + b"\x00\x00" * (count - 1)))
            await settled()
            if count == bound:
                await peer.check_alive()
            else:
                await peer.check_closed()


# -- rows 4 and 5: cuts and bytes too many ------------------------------------------------------------------------


@each_place
def test_a_stream_finished_inside_a_message(place):
    """FIN at any byte of a message is PROTOCOL_VIOLATION; before its type is complete there is no message."""
    kind, _ = place.cut_out()
    for cut in range(1, len(place.wire)):
        for pieces in ([place.wire[:cut]], [place.wire[index : index + 1] for index in range(cut)]):
            events, error = outcome(place.machine(), pieces, fin=True)
            assert events == []
            if cut < len(kind) and not place.before and not place.ours:
                assert error is None
            else:
                assert error is not None
                assert error[1:] == VIOLATED


@each_place
def test_a_stream_reset_inside_a_message(place):
    """A reset at any byte cancels what it may: it is never a mistake."""
    for cut in range(len(place.wire)):
        machine = place.machine()
        machine.receive_data(place.wire[:cut], False)
        machine.receive_reset(1)
        assert machine.receive_data(place.wire[cut:], False) == []
        machine.release()


@each_place
@pytest.mark.parametrize("extra", [b"\x00", b"\xff", b"\x01", b"\x80\x80"], ids=["00", "ff", "01", "8080"])
def test_bytes_after_the_fields(place, extra):
    """A length that goes on after the last field is PROTOCOL_VIOLATION."""
    kind, body = place.cut_out()
    body += extra
    _, error = outcome(place.machine(), [kind + len(body).to_bytes(2, "big") + body])
    if error is None:
        # A property of the track, the last field of some messages: type 0, value 0.
        assert place.ends_with_pairs
        assert extra == b"\x80\x80"
    else:
        assert error[1:] == VIOLATED


@each_place
def test_a_length_that_ends_inside_the_fields(place):
    """A body whose length ends inside its fields is PROTOCOL_VIOLATION, but for what may be left out."""
    kind, body = place.cut_out()
    for cut in range(len(body)):
        _, error = outcome(place.machine(), [kind + cut.to_bytes(2, "big") + body[:cut]])
        if error is None:
            assert place.ends_with_pairs or place.message in ("GOAWAY", "NAMESPACE") or place.last_is_open(cut)
        else:
            assert error[2] == "session"
            assert error[1] in (PROTOCOL_VIOLATION, 0x6, 0x8)


# -- row 6: splits ------------------------------------------------------------------------------------------------


@each_place
def test_a_message_is_the_same_in_pieces(place):
    """Cut between any two bytes, and into single ones, it has the events that it has in one piece."""
    expected = outcome(place.machine(), [place.wire], fin=False)
    singles = [place.wire[index : index + 1] for index in range(len(place.wire))]
    assert outcome(place.machine(), [piece for byte in singles for piece in (byte, b"")]) == expected
    for cut in range(1, len(place.wire)):
        assert outcome(place.machine(), [place.wire[:cut], place.wire[cut:]]) == expected


@each_draft
def test_a_mistake_is_the_same_in_pieces(name):
    """The events before a mistake are reported, and the mistake is the same one, wherever the stream is cut."""
    here = [place for place in PLACES if place.name == name]
    if not here:
        return

    @quick
    @given(st.sampled_from(here), st.data())
    def check(place: DraftPlace, data: st.DataObject) -> None:
        stream = bytearray(place.wire * 2)
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(stream)))
            stream[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(min_size=1, max_size=3))
        changed = bytes(stream)
        expected = outcome(place.machine(), [changed], fin=True)
        size = data.draw(st.integers(1, 40))
        cut = [changed[at : at + size] for at in range(0, len(changed), size)]
        for pieces in ([changed[at : at + 1] for at in range(len(changed))], cut):
            assert outcome(place.machine(), pieces, fin=True) == expected

    check()
