"""Numbers at the ends of their range, and in more bytes than they need, on every draft, in live sessions.

Ids, sequences, object ids, counts, times and codes are 2^62-1, 2^62 or 2^64-1 wherever they may stand. Each ends in
what the draft says, or at the least in a documented error of its stream or its session: the session's block never
fails.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio

import moqt_trio as moqt
from tests.faults.draft_peer import DraftPeer, draft_peer
from tests.faults.drafts import (
    FETCH,
    PROTOCOL_VIOLATION,
    SUBSCRIBE,
    SUBSCRIBE_NAMESPACE,
    SUBSCRIBE_NAMESPACE_16,
    DraftWire,
    each_draft,
)
from tests.faults.raw_peer import code_of_stop, settled

NUMBERS = [2**62 - 1, 2**62, 2**64 - 1]
each_number = pytest.mark.parametrize("number", NUMBERS, ids=[f"{number:#x}" for number in NUMBERS])

Case = Callable[[DraftPeer, int], Awaitable[object]]


async def outcome(name: str, number: int, case: Case, *, client: bool = False) -> int | None:
    """Do something with a number to a session of ours; return the code with which it has closed, None if it lives.

    A number that the draft cannot write is left out.
    """
    wire = DraftWire(name)
    if number > wire.largest:
        return None
    async with draft_peer(name, client=client) as peer:
        with trio.fail_after(20):
            with suppress(moqt.SessionClosed):
                await case(peer, number)
            await settled()
            if peer.connection.closed is None:
                await peer.check_alive()
                return None
            error = await peer.connection.wait_closed()
        assert isinstance(error, moqt.SessionClosed)
        assert error.by_peer
        return error.remote_code


# -- what a publisher sends ---------------------------------------------------------------------------------------


@each_number
@each_draft
async def test_an_alias(name, number):
    """Any number is one: its groups arrive."""

    async def case(peer: DraftPeer, number: int) -> None:
        subscription, _ = await peer.accepted(alias=number)
        await peer.send(peer.wire.subgroup(number, 0, b"x"), fin=True)
        assert await (await anext(subscription)).read_all() == [b"x"]

    assert await outcome(name, number, case) is None


@each_number
@each_draft
async def test_an_unknown_alias(name, number):
    """It waits, as any."""

    async def case(peer: DraftPeer, number: int) -> None:
        await peer.send(peer.wire.subgroup(number, 0, b"x"), fin=True)

    assert await outcome(name, number, case) is None


@each_number
@each_draft
async def test_a_group(name, number):
    """Up to 2^62-1 it arrives; above, its stream is broken, and the subscription goes on."""

    async def case(peer: DraftPeer, number: int) -> None:
        subscription, _ = await peer.accepted()
        stream = await peer.send(peer.wire.subgroup(7, number, b"x"))
        if number < 2**62:
            group = await anext(subscription)
            assert (group.sequence, await group.receive()) == (number, b"x")
        else:
            await code_of_stop(stream)
        await peer.send(peer.wire.subgroup(7, 0, b"x"), fin=True)
        group = await anext(subscription)
        assert (group.sequence, await group.read_all()) == (0, [b"x"])

    assert await outcome(name, number, case) is None


@each_number
@each_draft
async def test_an_object(name, number):
    """Up to 2^62-1 it is an index; above, and behind it, the track is malformed, which ends its subscription alone."""

    async def case(peer: DraftPeer, number: int) -> None:
        wire = peer.wire
        for alias, objects in enumerate(
            (
                wire.object(b"x", number) + wire.object(b"y"),
                wire.object(b"x") + wire.object(b"y", number),
                wire.object(b"x") + wire.status(3, number) + wire.object(b"y"),
            )
        ):
            async with peer.session.subscribe("b", "t") as subscription:
                exchange, _ = await peer.asked(SUBSCRIBE)
                exchange.write(wire.subscribe_ok(exchange.request_id, alias))
                await peer.send(wire.header(alias, 0, first=False) + objects, fin=True)
                with pytest.raises(moqt.MoqtError):
                    await (await anext(subscription)).read_all()

    assert await outcome(name, number, case) is None


@each_number
@each_draft
async def test_a_length(name, number):
    """A payload that is longer than `max_frame` breaks its group; properties that are too long, too."""

    async def case(peer: DraftPeer, number: int) -> None:
        wire = peer.wire
        subscription, _ = await peer.accepted()
        for sequence, data in enumerate((b"\x00" + wire.number(number), b"\x00" + wire.number(number) + b"\x00")):
            kind = 0x18 + sequence  # the second one has properties
            header = wire.number(kind) + b"\x07" + wire.number(sequence) + b"\x80"
            stream = await peer.send(header + data)
            await code_of_stop(stream)
            group = await anext(subscription)
            with pytest.raises(moqt.StreamReset):
                await group.read_all()

    assert await outcome(name, number, case) is None


@each_number
@each_draft
async def test_a_subgroup(name, number):
    """Its id may be any number; whatever becomes of it, the session lives."""

    async def case(peer: DraftPeer, number: int) -> None:
        await peer.accepted()
        head = peer.wire.number(0x1C) + b"\x07\x00" + peer.wire.number(number) + b"\x80"
        await peer.send(head + peer.wire.object(b"x"), fin=True)

    assert await outcome(name, number, case) is None


@each_number
@each_draft
async def test_a_property(name, number):
    """Values and types of any size are read; a type above the largest number is none."""

    async def case(peer: DraftPeer, number: int) -> None:
        wire = peer.wire
        await peer.accepted()
        for kind, value in ((0x10, number), (0x02, number), (0x3C, number), (0x3E, number), (number - number % 2, 5)):
            block = wire.number(kind) + wire.number(value)
            data = wire.number(0x19) + b"\x07" + wire.number(kind % 97) + b"\x80"
            await peer.send(data + b"\x00" + wire.data(block) + wire.data(b"x"), fin=True)
        await settled()

    assert await outcome(name, number, case) is None


@each_number
@each_draft
async def test_a_status(name, number):
    """Only those of the draft are (PROTOCOL_VIOLATION)."""

    async def case(peer: DraftPeer, number: int) -> None:
        subscription, _ = await peer.accepted()
        await peer.send(peer.wire.header(7, 0) + peer.wire.status(number), fin=True)
        group = await anext(subscription)
        with pytest.raises(moqt.MoqtError):
            await group.receive()

    assert await outcome(name, number, case) == (None if number > DraftWire(name).largest else PROTOCOL_VIOLATION)


@each_number
@each_draft
async def test_the_newest_object(name, number):
    """LARGEST_OBJECT: a head of such a group may be asked for; what follows goes on."""

    async def case(peer: DraftPeer, number: int) -> None:
        for track, place in (("t", (number, number)), ("u", (number, 0)), ("v", (0, number))):
            subscription = await peer.ours.enter_async_context(peer.session.subscribe("b", track))
            exchange, _ = await peer.asked(SUBSCRIBE)
            exchange.write(peer.wire.subscribe_ok(exchange.request_id, 7 + ord(track), place))
            await settled()
            if peer.wire.draft < 20:
                fetch, _ = await peer.asked(FETCH)
                fetch.write(peer.wire.refused(fetch.request_id, FETCH), fin=True)
            await peer.send(peer.wire.subgroup(7 + ord(track), 1, b"x"), fin=True)
            assert await (await anext(subscription)).read_all() == [b"x"]

    assert await outcome(name, number, case) is None


@each_number
@each_draft
async def test_the_end_of_a_subscription(name, number):
    """PUBLISH_DONE with a count of streams, or with a status, that no track has."""

    async def case(peer: DraftPeer, number: int) -> None:
        for status, streams in ((2, number), (number, 0), (number, number)):
            async with peer.session.subscribe("b", "t") as subscription:
                exchange, _ = await peer.asked(SUBSCRIBE)
                exchange.write(peer.wire.subscribe_ok(exchange.request_id, 7))
                exchange.write(peer.wire.publish_done(exchange.request_id, status, streams), fin=True)
                if status == 2:
                    with pytest.raises(StopAsyncIteration):
                        await anext(subscription)
                else:
                    with pytest.raises(moqt.MoqtError):
                        await anext(subscription)

    assert await outcome(name, number, case) is None


@each_number
@each_draft
async def test_a_refusal(name, number):
    """A code that the draft lacks is an error of the request."""

    async def case(peer: DraftPeer, number: int) -> None:
        subscription, exchange = await peer.subscription()
        exchange.write(peer.wire.refused(exchange.request_id, SUBSCRIBE, number), fin=True)
        with pytest.raises(moqt.MoqtError):
            await anext(subscription)
        async with peer.session.fetch("b", "t", 0) as fetch:
            exchange, _ = await peer.asked(FETCH)
            exchange.write(peer.wire.refused(exchange.request_id, FETCH, number), fin=True)
            with pytest.raises(moqt.MoqtError):
                await fetch.receive()
        announcements = await peer.ours.enter_async_context(peer.session.announcements("a"))
        kind = SUBSCRIBE_NAMESPACE if peer.wire.draft >= 18 else SUBSCRIBE_NAMESPACE_16
        exchange, _ = await peer.asked(kind)
        exchange.write(peer.wire.refused(exchange.request_id, SUBSCRIBE_NAMESPACE_16, number), fin=True)
        with pytest.raises(moqt.MoqtError):
            await anext(announcements)

    assert await outcome(name, number, case) is None


@each_number
@each_draft
async def test_the_end_of_a_fetch(name, number):
    """FETCH_OK with an end that no track has: the objects count."""

    async def case(peer: DraftPeer, number: int) -> None:
        for end in ((number, number), (number, 1), (0, number)):
            async with peer.session.fetch("b", "t", 0) as fetch:
                exchange, _ = await peer.asked(FETCH)
                exchange.write(peer.wire.fetch_ok(exchange.request_id, end))
                data = peer.wire.reply_header(exchange.request_id) + peer.wire.fetched(0, 0, b"x")
                await peer.send(data, fin=True)
                assert await fetch.read_all() == [b"x"]

    assert await outcome(name, number, case) is None


@each_number
@each_draft
async def test_objects_of_a_fetch(name, number):
    """Groups and ids above 2^62-1 break the reply, and the ranges that are missing may end anywhere."""

    async def case(peer: DraftPeer, number: int) -> None:
        wire = peer.wire
        for place in ((number, 0), (0, number), (number, number)):
            async with peer.session.fetch_range("b", "t", (0, 0), (2**61, None)) as fetch:
                exchange, _ = await peer.asked(FETCH)
                exchange.write(wire.fetch_ok(exchange.request_id, (2**61, 1)))
                stream = await peer.send(wire.reply_header(exchange.request_id) + wire.fetched(*place, b"x"))
                if number < 2**62:
                    frame = await fetch.receive()
                    assert (frame.group, frame.object_id) == place
                else:
                    await code_of_stop(stream)
                    with pytest.raises(moqt.StreamReset):
                        await fetch.receive()
            if wire.draft < 16:
                continue
            async with peer.session.fetch_range("b", "t", (0, 0), (2**61, None)) as fetch:
                exchange, _ = await peer.asked(FETCH)
                exchange.write(wire.fetch_ok(exchange.request_id, (2**61, 1)))
                mark = wire.number(0x10C) + wire.location(*place)
                await peer.send(wire.reply_header(exchange.request_id) + mark, fin=True)
                try:
                    assert [frame async for frame in fetch] == []
                except moqt.StreamReset:
                    assert number >= 2**62
                else:
                    assert fetch.missing == (place,)

    assert await outcome(name, number, case) is None


# -- what a subscriber sends --------------------------------------------------------------------------------------


@each_number
@each_draft
async def test_the_start_of_a_subscription(name, number):
    """A subscription that starts at a group which will hardly come is accepted, or refused; nothing is sent for it."""

    async def case(peer: DraftPeer, number: int) -> None:
        exchange = await peer.subscribe(parameters=peer.wire.from_group(number))
        await exchange.answer()

    assert await outcome(name, number, case) is None


@each_number
@each_draft
async def test_the_end_of_a_range(name, number):
    """Ends that are far away, and differences that exceed every number."""

    async def case(peer: DraftPeer, number: int) -> None:
        wire = peer.wire
        for start, end in (((0, 0), number), ((3, 1), number), ((number, 0), number), ((0, number), 5)):
            place = wire.location(*start) + wire.number(end)
            if wire.draft == 14:
                parameters = bytes.fromhex("80 01 01 04") + place + b"\x00"
            elif wire.draft == 22:
                parameters = wire.parameter(0x21, b"\x03" + place, bare=True)
            else:
                parameters = wire.parameter(0x21, place if wire.draft >= 20 else b"\x04" + place)
            exchange = await peer.subscribe(parameters=parameters)
            await exchange.answer()

    assert await outcome(name, number, case) in (None, PROTOCOL_VIOLATION)


@each_number
@each_draft
async def test_groups_back(name, number):
    """A relative start that reaches back before the first group starts there (from 20 on)."""
    if DraftWire(name).draft < 20:
        return

    async def case(peer: DraftPeer, number: int) -> None:
        last = peer.wire.number(number)
        bare = peer.wire.draft == 22
        parameters = peer.wire.parameter(0x21, b"\x01" + last if bare else last, bare=bare)
        exchange = await peer.subscribe(parameters=parameters)
        await exchange.accepted()
        stream = await peer.receive_stream()
        assert await stream.receive_some()

    assert await outcome(name, number, case) is None


@each_number
@each_draft
async def test_times(name, number):
    """Timeouts and durations of any length are read (from 15 on they are parameters)."""
    if DraftWire(name).draft < 15:
        return

    async def case(peer: DraftPeer, number: int) -> None:
        wire = peer.wire
        exchange = await peer.subscribe(parameters=wire.parameter(0x02, wire.number(number), bare=True))
        await exchange.answer()
        _, exchange = await peer.subscription()
        body = wire.answered(exchange.request_id) + b"\x07" + wire.parameter(0x08, wire.number(number), bare=True)
        exchange.write(wire.message(0x04, body))

    assert await outcome(name, number, case) is None


@each_number
@each_draft
async def test_a_rendezvous(name, number):
    """However long a subscriber would wait for its track, our session decides how long it does (from 17 on)."""
    if DraftWire(name).draft < 17:
        return
    async with draft_peer(name) as peer:
        wire = peer.wire
        exchange = await peer.subscribe(b"later", parameters=wire.parameter(0x04, wire.number(number), bare=True))
        await settled()
        exchange.cancel()
        await settled()
        await peer.check_alive()


@each_number
@each_draft
async def test_datagrams(name, number):
    """A datagram of any alias, group or object is delivered or dropped."""

    async def case(peer: DraftPeer, number: int) -> None:
        wire = peer.wire
        await peer.accepted()
        for data in (
            wire.datagram(number, 0, b"x"),
            wire.datagram(7, number, b"x"),
            b"\x02\x07\x00" + wire.number(number) + b"\x80x",
            wire.number(number) + b"\x07\x00\x80x",
        ):
            peer.connection.send_datagram(data)
            await settled()

    code = await outcome(name, number, case)
    # A type that the draft lacks closes the session.
    assert code in (None, PROTOCOL_VIOLATION)


@each_number
@each_draft
async def test_a_goaway(name, number):
    """The time that it leaves may be any (from 17 on)."""
    if DraftWire(name).draft < 17:
        return

    async def case(peer: DraftPeer, number: int) -> None:
        peer.write_control(peer.wire.message(0x10, peer.wire.data(b"") + peer.wire.number(number)))
        await settled()
        assert peer.connection.closed is None

    assert await outcome(name, number, case) is None


@each_number
@each_draft
async def test_options_of_setup(name, number):
    """Known options of any value and unknown ones of any type are read."""
    wire = DraftWire(name)
    if wire.shared or number > wire.largest:
        return
    even = number - number % 2
    # Types are written as differences from 16 on.
    for options in (
        wire.number(2) + wire.number(number),
        wire.number(4) + wire.number(number),
        wire.number(even) + wire.number(number),
        wire.number(even + 1) + wire.data(b"x"),
    ):
        async with draft_peer(name, setup=False) as peer:
            await peer.send(wire.setup(client=True, options=options))
            await settled()
            await peer.check_alive()
    async with draft_peer(name, setup=False) as peer:
        await peer.send(wire.setup(client=True, options=wire.number(2**63) + b"\x00" + wire.number(2**63) + b"\x00"))
        await peer.check_closed()


# -- numbers of more bytes than they need -------------------------------------------------------------------------


@each_draft
async def test_numbers_that_are_longer_than_they_need_to_be(name):
    """Every form of a number is the number; draft 17 has none of seven bytes (PROTOCOL_VIOLATION)."""
    wire = DraftWire(name)
    sizes = (1, 2, 4, 8) if wire.shared else range(1, 10)
    async with draft_peer(name) as peer:
        subscription, _ = await peer.accepted()
        sequence = 0
        for size in sizes:
            if wire.draft == 17 and size == 7:
                continue

            def long(value: int, size: int = size) -> bytes:
                return wire.number(value, size)

            sequence += 1
            kind = long(0x18, 2) if size == 1 else long(0x18)
            header = kind + long(7) + long(sequence) + b"\x80"
            frames = long(0) + long(1) + b"x" + long(0) + long(0) + long(0) + long(0) + long(1) + b"y"
            await peer.send(header + frames, fin=True)
            group = await anext(subscription)
            assert (group.sequence, await group.read_all()) == (sequence, [b"x", b"", b"y"])
            if not wire.shared:
                # A request whose numbers are as long.
                request_id = peer.next_id()
                extra = long(0) if wire.draft == 17 else b""
                body = long(request_id, 2 if size == 1 else size) + extra + long(1) + long(1) + b"b" + long(1) + b"t"
                stream = await peer.connection.open_bidi()
                whole = body + long(0)
                stream.write(long(SUBSCRIBE) + len(whole).to_bytes(2, "big") + whole)
                with trio.fail_after(10):
                    assert (await stream.receive_some())[:1] == b"\x04"
        await peer.check_alive()


@pytest.mark.parametrize("place", ["type", "length of a text", "alias of a stream", "id of an object"])
async def test_a_number_of_seven_bytes_on_draft_17(place):
    """It is none: the session closes."""
    name = "moqt-17"
    wire = DraftWire(name)
    seven = b"\xfc\x00\x00\x00\x00\x00"
    async with draft_peer(name) as peer:
        match place:
            case "type":
                stream = await peer.connection.open_bidi()
                stream.write(seven + b"\x03" + wire.subscribe(0)[1:])
            case "length of a text":
                stream = await peer.connection.open_bidi()
                body = b"\x00\x00\x01" + seven + b"\x01b" + b"\x01t\x00"
                stream.write(wire.message(SUBSCRIBE, body))
            case "alias of a stream":
                await peer.send(b"\x18" + seven + b"\x07\x00\x80")
            case _:
                await peer.accepted()
                await peer.send(wire.header(7, 0) + seven + b"\x00\x01x")
        await peer.check_closed()
