"""What a peer may do wrong with offers, and cancellation at every await of what is new on the IETF drafts."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.codes import StreamCode
from moqt_trio.protocol.ietf.core import IetfCore
from moqt_trio.testing import session_pair
from tests.api.interrupting import Pair, cancel_everywhere

EACH_DRAFT = pytest.mark.parametrize("version", ["moqt-17", "moqt-18", "moqt-20", "moqt-22"])
LIMITS = moqt.Limits(max_offered_tracks=16, max_queued_announcements=8)
PATH = moqt.BroadcastPath.parse("a/b")


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def hostile(version: str):
    """Yields a server, the core of its client, and the client's connection, whose streams a test writes itself."""
    with trio.fail_after(15):
        async with session_pair(version, limits=LIMITS) as (client, server):
            core = client._context.core
            assert isinstance(core, IetfCore)
            yield server, core, client._context.connection


# -- faults ------------------------------------------------------------------------------------------------------


@EACH_DRAFT
async def test_a_flood_of_offers(version):
    """So many are kept, and the others refused; when they end all at once, nothing is left of them."""
    async with hostile(version) as (server, core, connection), server.offered_tracks() as tracks:
        streams, machines = [], []
        for number in range(100):
            machine = core.offer(PATH, f"t{number}", forward=True)
            stream = connection.open_bidi_nowait()
            stream.write(machine.opening)
            streams.append(stream)
            machines.append(machine)
        await settle()
        assert len(server._subscriber.offers.all()) == LIMITS.max_offered_tracks
        assert len(server._context.core._state.issued) == LIMITS.max_offered_tracks
        for stream in streams:
            if not stream.send_ended:
                stream.reset(1)
        await settle()
        assert server.closed is None
        assert not server._subscriber.offers.all()
        assert len(server._context.core._state.issued) == 0
        assert tracks.active == ()
        # Twice the difference to what was read, at the most.
        assert len(tracks._queue) <= 2 * LIMITS.max_offered_tracks


@EACH_DRAFT
async def test_offers_that_come_and_go_for_ever(version):
    """A reader that does not read costs a bounded queue; what it reads then is the difference."""
    async with hostile(version) as (server, core, connection), server.offered_tracks() as tracks:
        for number in range(200):
            machine = core.offer(PATH, f"t{number % 3}", forward=False)
            stream = await connection.open_bidi()
            stream.write(machine.opening)
            await settle()
            stream.write(machine.end(0), fin=number < 199)
            machine.release()
            await settle()
        assert len(tracks._queue) <= 2 * LIMITS.max_queued_announcements
        assert server.closed is None


@pytest.mark.parametrize(("version", "survives"), [("moqt-18", False), ("moqt-20", True)])
async def test_an_alias_for_two_tracks(version, survives):
    """It ends the session up to 18; later only the second offer."""
    async with hostile(version) as (server, core, connection):
        first = core.offer(PATH, "t", forward=False)
        second = core.offer(PATH, "u", forward=False)
        # The alias of the second one: its name, and then the id of the first.
        opening = second.opening.replace(b"\x01u" + bytes((second.request.subscribe_id,)), b"\x01u" + bytes((0,)))
        assert opening != second.opening
        for data in (first.opening, opening):
            connection.open_bidi_nowait().write(data)
        await settle()
        if survives:
            assert [offer.track for offer in server._subscriber.offers.all()] == ["t"]
        else:
            error = await server.wait_closed()
            assert "alias" in str(error)


@EACH_DRAFT
async def test_a_track_that_is_offered_twice(version):
    """The second offer is refused, and the first one goes on."""
    async with hostile(version) as (server, core, connection):
        for _ in range(2):
            connection.open_bidi_nowait().write(core.offer(PATH, "t", forward=False).opening)
        await settle()
        [offer] = server._subscriber.offers.all()
        assert offer.free


@EACH_DRAFT
async def test_an_offer_that_is_withdrawn_while_a_subscription_attaches(version):
    """The subscription ends as the track does, or finds none; nothing is left of either."""
    async with hostile(version) as (server, core, connection):
        machine = core.offer(PATH, "t", forward=False)
        stream = connection.open_bidi_nowait()
        stream.write(machine.opening)
        await settle()
        stream.write(machine.end(0), fin=True)
        try:
            async with server.subscribe("a/b", "t") as subscription:
                assert [group async for group in subscription] == []
        except moqt.NotFound:
            pass
        await settle()
        assert len(server._context.core._state.issued) == 0
        assert not server._subscriber.offers.all()


@EACH_DRAFT
async def test_a_publisher_that_answers_no_update(version, autojump_clock):
    """The subscription is given up after the time for a reply, and the offer with it."""
    async with session_pair(version, limits=LIMITS) as (client, server):
        core, connection = client._context.core, client._context.connection
        assert isinstance(core, IetfCore)
        connection.open_bidi_nowait().write(core.offer(PATH, "t", forward=False).opening)
        await settle()
        async with server.subscribe("a/b", "t") as subscription:
            with pytest.raises(moqt.StreamReset) as caught:
                await anext(subscription)
            assert caught.value.code == StreamCode.CONTROL_TIMEOUT
        assert not server._subscriber.offers.all()
        assert len(server._context.core._state.issued) == 0


@EACH_DRAFT
async def test_objects_that_nothing_asked_for(version):
    """A publisher that sends at once has its streams refused until the track is wanted; they cost no credit."""
    async with hostile(version) as (server, core, connection):
        machine = core.offer(PATH, "t", forward=True)
        assert machine.request is not None
        early = [await connection.open_uni() for _ in range(3)]
        for number, stream in enumerate(early):
            # They come before the offer that names their alias.
            sender = core.group(machine.request.subscribe_id, number)
            stream.write(sender.opening + sender.frames([moqt.Frame(bytes(100))]))
        await settle()
        connection.open_bidi_nowait().write(machine.opening)
        await settle()
        assert not server._context.parked
        for stream in early:
            with pytest.raises(moqt.StreamReset):
                stream.write(b"x")


@EACH_DRAFT
async def test_a_subscriber_that_updates_for_ever(version):
    """One that takes no answer ends its session; memory does not grow."""
    broadcast = moqt.Broadcast()
    broadcast.track("t")
    async with hostile(version) as (server, core, connection), server.publish("a/b", broadcast):
        machine = core.subscribe("a/b", "t")
        stream = connection.open_bidi_nowait()
        stream.write(machine.opening)
        await settle()
        # Its window for the answers is used up, and it is never given more.
        for number in range(20_000):
            if server.closed is not None or stream.send_ended:
                break
            body = core._state.profile.encode(16384 + 2 * number) + (b"\x00\x00" if version == "moqt-17" else b"\x00")
            stream.write(b"\x02" + len(body).to_bytes(2, "big") + body)
            if not number % 16:
                await settle()
        assert server.closed is not None


# -- cancellation ------------------------------------------------------------------------------------------------


@EACH_DRAFT
async def test_cancelling_what_uses_offers(version):
    """Wherever it is cancelled, nothing of it is left, and the offer can be used again."""

    async def scenario(attempt):
        async with Pair(version) as pair:
            broadcast = moqt.Broadcast()
            track = broadcast.track("t", delivery="reliable")
            async with pair.client.publish("a/b", broadcast, offer_tracks=True):
                await settle()

                async def work():
                    async with pair.server.offered_tracks("a") as tracks:
                        assert (await tracks.receive()).track == "t"
                        async with pair.server.subscribe("a/b", "t") as subscription:
                            await subscription.wait_accepted()
                            await track.wait_subscribed()
                            await track.write(b"x")
                            await (await subscription.receive()).read_all()
                            await subscription.update(paused=True)
                            await subscription.update(paused=False)

                await attempt(work)
                await settle()
                with trio.fail_after(1):
                    await track.wait_unsubscribed()
                [offer] = pair.server._subscriber.offers.all()
                assert offer.free
                await work()

    await cancel_everywhere(scenario, least=10)


@EACH_DRAFT
async def test_cancelling_what_makes_offers(version):
    """Wherever it is cancelled, the offers end on both sides."""

    async def scenario(attempt):
        async with Pair(version) as pair, pair.server.offered_tracks() as tracks:
            broadcast = moqt.Broadcast()
            broadcast.track("t")

            async def work():
                async with pair.client.publish("a/b", broadcast, offer_tracks=True):
                    assert (await tracks.receive()).active
                    broadcast.tracks["t"].finish()

            await attempt(work)
            await settle()
            assert tracks.active == ()
            assert not pair.server._subscriber.offers.all()
            assert not pair.client._publisher._serving.offers
            assert len(pair.client._context.core._state.peers) == 0

    await cancel_everywhere(scenario, least=3)


@EACH_DRAFT
async def test_cancelling_what_asks(version):
    """The status of a track, and a subscription that waits for its track: the publisher's side ends as well."""

    async def scenario(attempt):
        async with Pair(version) as pair:
            broadcast = moqt.Broadcast()
            broadcast.track("t")
            async with pair.server.publish("a", broadcast):

                async def status():
                    await pair.client.track_status("a", "t")

                async def rendezvous():
                    async with pair.client.subscribe("a", "u", rendezvous=20) as subscription:
                        await subscription.wait_accepted()

                await attempt(status)
                with trio.move_on_after(0.05):
                    await attempt(rendezvous)
                await settle()
                state = pair.server._context.core._state
                assert (state.requests.taken, len(state.peers)) == (0, 0)

    await cancel_everywhere(scenario, least=2)
