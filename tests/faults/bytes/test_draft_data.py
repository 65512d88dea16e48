"""Data of a hostile publisher on the drafts: subgroups, replies and datagrams that are too long, cut, or in pieces."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

import moqt_trio as moqt
from moqt_trio.errors import RemoteProtocolError
from moqt_trio.limits import Limits
from moqt_trio.protocol.ietf.core import IetfCore
from moqt_trio.protocol.ietf.fetch import ReplyReceiver
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.ietf.drafts import IetfDialect
from moqt_trio.wire.ietf.fetched_frames import FetchedFrames
from tests.faults.dialects import Outcome, outcome
from tests.faults.draft_peer import draft_peer
from tests.faults.drafts import FETCH, MALFORMED_TRACK, NAMES, PROTOCOL_VIOLATION, DraftWire, each_draft, records
from tests.faults.raw_peer import code_of_stop, settled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from moqt_trio.frame import Frame

LIMITS = Limits()
quick = settings(derandomize=True, deadline=None, database=None, max_examples=60)

GROUPS = [
    (name, bytes.fromhex(record["hex"]), record["fields"]["header"]["track_alias"])
    for name in NAMES
    for record in records(name, "uni data")
    if record["message"] == "SUBGROUP_STREAM"
]
REPLIES = [
    (name, bytes.fromhex(record["hex"]), record["fields"]["request_id"], record["fields"].get("group_order"))
    for name in NAMES
    for record in records(name, "uni data")
    if record["message"] == "FETCH_STREAM"
]
each_group = pytest.mark.parametrize(("name", "wire", "alias"), GROUPS, ids=lambda value: str(value)[:24])
each_reply = pytest.mark.parametrize(
    ("name", "wire", "request_id", "order"), REPLIES, ids=lambda value: str(value)[:24]
)


def side_of(name: str, limits: Limits = LIMITS) -> IetfCore:
    """Return a client."""
    dialect = dialects.get(name)
    assert isinstance(dialect, IetfDialect)
    return IetfCore(dialect, is_client=True, limits=limits)


def group_of(name: str, alias: int, limits: Limits = LIMITS):
    """Return the machine of a stream of objects, in a session that has subscribed to the track of this alias."""
    side, wire = side_of(name, limits), DraftWire(name)
    side.subscribe("a", "t").receive_data(wire.subscribe_ok(0, alias), False)
    return side.accept_uni()


def read_group(name: str, alias: int, pieces: Iterable[bytes], *, fin: bool = False) -> Outcome:
    return outcome(group_of(name, alias), pieces, fin=fin)


def read_reply(
    name: str, request_id: int, pieces: Iterable[bytes], *, descending: bool = False, fin: bool = False
) -> tuple[list[tuple[int | None, int | None, bytes]], list[object], tuple[type, int, str] | None]:
    """Read a reply in pieces; return the frames, what is missing, and the mistake."""
    side = side_of(name)
    decoder = FetchedFrames(side._state.profile, LIMITS, descending=descending)
    side._state.replies[request_id] = decoder
    stream = side.accept_uni()
    frames: list[Frame] = []
    sizes: list[int] = []
    error: tuple[type, int, str] | None = None
    begun = False
    try:
        for piece in pieces:
            if begun:
                decoder.feed_untrusted(piece, frames, sizes)
                continue
            stream.receive_data(piece, False)
            machine = stream.machine
            if isinstance(machine, ReplyReceiver) and machine.frames is not None:
                begun = True
                decoder.feed_untrusted(machine.rest, frames, sizes)
    except RemoteProtocolError as mistake:
        error = type(mistake), mistake.code, mistake.scope
    found = [(frame.group, frame.object_id, bytes(frame)) for frame in frames]
    return found, list(decoder.missing), error


def by_bytes(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def test_every_draft_has_its_data_here():
    """Each draft has groups in its vectors, and the drafts that were captured with both peers have replies."""
    assert {name for name, *_ in GROUPS} == set(NAMES)
    assert {"moqt-18", "moqt-20", "moqt-22"} & set(NAMES) <= {name for name, *_ in REPLIES}


# -- row 2: frames that are too long ------------------------------------------------------------------------------


@each_draft
@pytest.mark.parametrize("bound", [1, 1000, 16 * 1024 * 1024])
async def test_an_object_over_max_frame(name, bound):
    """Its group is broken as soon as its length is there, and nothing is allocated for it; the session goes on."""
    async with draft_peer(name, limits=moqt.Limits(max_frame=bound)) as peer:
        wire = peer.wire
        subscription, _ = await peer.accepted()
        await peer.send(wire.subgroup(7, 0, b"z" * min(bound, 1000)), fin=True)
        assert await (await anext(subscription)).read_all() == [b"z" * min(bound, 1000)]
        tracemalloc.start()
        try:
            stream = await peer.send(wire.header(7, 1) + wire.object(b"z") + wire.number(0) + wire.number(bound + 1))
            await code_of_stop(stream)
            assert tracemalloc.get_traced_memory()[1] < 512 * 1024
        finally:
            tracemalloc.stop()
        group = await anext(subscription)
        assert await group.receive() == b"z"
        with pytest.raises(moqt.StreamReset):
            await group.receive()
        await peer.check_alive()


@each_draft
async def test_an_object_of_a_fetch_over_max_frame(name):
    """The fetch is broken, and the session goes on."""
    async with draft_peer(name, limits=moqt.Limits(max_frame=1000)) as peer:
        wire = peer.wire
        fetch = await peer.ours.enter_async_context(peer.session.fetch("b", "t", 0))
        exchange, _ = await peer.asked(FETCH)
        exchange.write(wire.fetch_ok(exchange.request_id))
        whole = wire.fetched_next(b"z" * 1001, 0, 1)
        head = whole[: len(whole) - 1001]
        stream = await peer.send(wire.reply_header(exchange.request_id) + wire.fetched(0, 0, b"z" * 1000) + head)
        await code_of_stop(stream)
        with trio.fail_after(10):
            assert await fetch.receive() == b"z" * 1000
            with pytest.raises(moqt.StreamReset):
                await fetch.receive()
        await peer.check_alive()


@each_draft
async def test_datagrams_of_any_length(name):
    """One of more than `max_frame` is dropped, as are those that are cut anywhere; none stops the session."""
    async with draft_peer(name, limits=moqt.Limits(max_frame=100)) as peer:
        wire = peer.wire
        await peer.accepted()
        peer.connection.send_datagram(wire.datagram(7, 0, b"z" * 101))
        for cut in range(1, len(wire.datagram(7, 0, b""))):
            if cut == 1:
                continue  # a type alone may be malformed for the session
            peer.connection.send_datagram(wire.datagram(7, 0, b"")[:cut])
        await settled()
        if peer.connection.closed is not None:
            await peer.check_closed()
        else:
            await peer.check_alive()


# -- row 4: cuts --------------------------------------------------------------------------------------------------


@each_group
def test_a_group_finished_at_every_byte(name, wire, alias):
    """FIN inside a header or an object breaks the stream alone, with what came before it; elsewhere it is the end."""
    whole, error = read_group(name, alias, [wire])
    assert error is None
    for cut in range(len(wire)):
        events, error = read_group(name, alias, [wire[:cut]], fin=True)
        assert error is None or error[1:] == (MALFORMED_TRACK, "stream")
        if cut and error is None and events:
            assert type(events[-1]).__name__ == "GroupFinished"
        frames = [bytes(frame) for event in events for frame in getattr(event, "frames", ())]
        assert frames == [bytes(frame) for event in whole for frame in getattr(event, "frames", ())][: len(frames)]


@each_reply
def test_a_reply_cut_at_every_byte(name, wire, request_id, order):
    """Whole objects are read; the rest is pending, which a FIN makes a mistake."""
    descending = order == 2
    whole, missing, error = read_reply(name, request_id, [wire], descending=descending)
    assert error is None
    for cut in range(1, len(wire)):
        found, lost, error = read_reply(name, request_id, [wire[:cut]], descending=descending)
        assert error is None
        assert found == whole[: len(found)]
        assert lost == missing[: len(lost)]


@each_draft
async def test_a_session_survives_groups_cut_at_every_byte(name):
    """On a live session, finished or reset at every byte of a group: its reader gets the frames, then how it ended."""
    async with draft_peer(name) as peer:
        wire = peer.wire
        subscription, _ = await peer.accepted()
        sequence = 0
        for how in ("FIN", "reset"):
            size = len(wire.subgroup(7, 100, b"one", b"two"))
            for cut in range(size):
                sequence += 1
                data = wire.header(7, sequence + 100) + wire.object(b"one") + wire.object(b"two")
                stream = await peer.send(data[: cut + len(data) - size], fin=how == "FIN")
                if how == "reset":
                    await settled()
                    stream.reset(0x1)
            await settled()
        count = 0
        while subscription.unread_groups:
            group = await anext(subscription)
            count += 1
            received = []
            with trio.fail_after(10):
                try:
                    while True:
                        received.append(bytes(await group.receive()))
                except (moqt.StreamReset, trio.EndOfChannel):
                    pass
            assert received == [b"one", b"two"][: len(received)]
        assert count > 10
        await peer.check_alive()


@each_draft
async def test_a_session_survives_replies_cut_at_every_byte(name):
    """On a live session, a fetch whose reply is finished at every byte fails, but where it is whole."""
    async with draft_peer(name) as peer:
        wire = peer.wire
        objects = wire.fetched(0, 0, b"one") + wire.fetched_next(b"two", 0, 1)
        ends = (0, len(wire.fetched(0, 0, b"one")), len(objects))
        for cut in range(len(objects) + 1):
            async with peer.session.fetch("b", "t", 0) as fetch:
                exchange, _ = await peer.asked(FETCH)
                exchange.write(wire.fetch_ok(exchange.request_id))
                await peer.send(wire.reply_header(exchange.request_id) + objects[:cut], fin=True)
                with trio.fail_after(10):
                    if cut in ends:
                        assert await fetch.read_all() == [b"one", b"two"][: ends.index(cut)]
                    else:
                        with pytest.raises(moqt.MoqtError):
                            await fetch.read_all()
        await peer.check_alive()


# -- row 5: what is left over within a length ---------------------------------------------------------------------


@each_draft
@pytest.mark.parametrize("block", ["10", "1080", "0b", "0b05", "0b0561", "10ff", "fe"])
def test_properties_that_do_not_fill_their_length(name, block):
    """A pair that is cut off, or longer than its block, is a violation of the protocol."""
    wire = DraftWire(name)
    data = wire.number(0x19) + b"\x07\x00\x80\x00" + wire.data(bytes.fromhex(block)) + b"\x01x"
    events, error = read_group(name, 7, [data])
    assert error is not None
    assert error[1:] in ((PROTOCOL_VIOLATION, "session"), (MALFORMED_TRACK, "stream"))
    assert not any(getattr(event, "frames", ()) for event in events)


@each_draft
def test_more_properties_than_are_read(name):
    """As many as `max_parameters` are read; one more breaks the group."""
    wire, bound = DraftWire(name), LIMITS.max_parameters
    # From 16 on types are differences.
    following = b"\x00\x05" if wire.draft >= 16 else b"\x10\x05"
    for count in (bound, bound + 1):
        block = b"\x10\x05" + following * (count - 1)
        data = wire.number(0x19) + b"\x07\x00\x80\x00" + wire.data(block) + b"\x01x"
        events, error = read_group(name, 7, [data])
        if count == bound:
            assert error is None
            [frame] = events[-1].frames
            assert len(frame.properties) == bound
        else:
            assert error is not None
            assert error[1:] == (MALFORMED_TRACK, "stream")


# -- row 6: splits ------------------------------------------------------------------------------------------------


@each_group
def test_a_group_is_the_same_in_pieces(name, wire, alias):
    """Cut between any two bytes, and into single ones, it has the events that it has in one piece."""
    expected = read_group(name, alias, [wire], fin=True)
    assert read_group(name, alias, by_bytes(wire), fin=True) == expected
    for cut in range(1, len(wire)):
        assert read_group(name, alias, [wire[:cut], wire[cut:]], fin=True) == expected


@each_reply
def test_a_reply_is_the_same_in_pieces(name, wire, request_id, order):
    """So is a reply."""
    descending = order == 2
    expected = read_reply(name, request_id, [wire], descending=descending)
    assert read_reply(name, request_id, by_bytes(wire), descending=descending) == expected
    for cut in range(1, len(wire)):
        assert read_reply(name, request_id, [wire[:cut], wire[cut:]], descending=descending) == expected


@each_draft
def test_a_mistake_is_the_same_in_pieces(name):
    """The frames before a mistake are there, and the mistake is the same one, wherever a stream is cut."""
    groups = [(wire, alias) for found, wire, alias in GROUPS if found == name]
    replies = [(wire, number, order == 2) for found, wire, number, order in REPLIES if found == name]

    def changed(data: st.DataObject, wire: bytes) -> tuple[bytes, list[bytes]]:
        stream = bytearray(wire)
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(1, len(stream)))
            stream[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(min_size=1, max_size=3))
        size = data.draw(st.integers(1, 40))
        return bytes(stream), [bytes(stream[at : at + size]) for at in range(0, len(stream), size)]

    @quick
    @given(st.data())
    def check(data: st.DataObject) -> None:
        wire, alias = data.draw(st.sampled_from(groups))
        stream, cut = changed(data, wire)
        expected = read_group(name, alias, [stream], fin=True)
        assert read_group(name, alias, by_bytes(stream), fin=True) == expected
        assert read_group(name, alias, cut, fin=True) == expected
        if replies:
            wire, number, descending = data.draw(st.sampled_from(replies))
            stream, cut = changed(data, wire)
            read = read_reply(name, number, [stream], descending=descending)
            assert read_reply(name, number, by_bytes(stream), descending=descending) == read
            assert read_reply(name, number, cut, descending=descending) == read

    check()
