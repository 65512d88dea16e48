"""aiomoqt as publisher and as subscriber, on each draft and transport, with contents compared."""

from __future__ import annotations

import pytest

import moqt_trio as moqt
from tests.interop.aiomoqt import (
    GROUPS,
    Aiomoqt,
    CommandFailed,
    Pairing,
    each_pairing,
    fetched_by,
    from_16_on,
    from_18_on,
    needs_aiomoqt,
    write,
    written,
)

pytestmark = needs_aiomoqt

TRACK_ENDED = 2


@each_pairing
async def test_what_aiomoqt_publishes_arrives_here(aiomoqt: Aiomoqt, pairing: Pairing):
    """Every group arrives with its number and its frames, and the track ends behind the last one."""
    received: dict[int, list[bytes]] = {}
    async with aiomoqt.session(pairing) as session:
        await aiomoqt.do("serve", path="theirs/out", track="bytes")
        async with session.subscribe("theirs/out", "bytes", max_age=60) as subscription:
            await aiomoqt.wait("requested", path="theirs/out", track="bytes")
            for sequence, frames in GROUPS.items():
                await aiomoqt.do("open", stream="s", track="bytes", group=sequence)
                for index, frame in enumerate(frames):
                    await aiomoqt.do("object", stream="s", id=index, payload=frame.hex())
                await aiomoqt.do("fin", stream="s")
            await aiomoqt.do("finish", track="bytes")
            async for group in subscription:
                received[group.sequence] = [bytes(frame) for frame in await group.read_all()]
    assert received == GROUPS


@each_pairing
async def test_what_we_publish_arrives_at_aiomoqt(aiomoqt: Aiomoqt, pairing: Pairing):
    """It reads every object with its numbers and its payload, and every stream to its end; the track ends, with the
    number of its streams."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("bytes", delivery="reliable", max_age=60)
    async with aiomoqt.session(pairing) as session, session.publish("ours/out", broadcast):
        await aiomoqt.do("subscribe", path="ours/out", track="bytes")
        await track.wait_subscribed()
        for frames in GROUPS.values():
            async with track.open_group() as group:
                for frame in frames:
                    await group.send(frame)
        track.finish()
        done = await aiomoqt.wait("done", track="bytes")
        assert (done["status"], done["streams"]) == (TRACK_ENDED, len(GROUPS))
        ends = [await aiomoqt.wait("end") for _ in GROUPS]
        assert sorted(end["group"] for end in ends) == list(GROUPS)
        assert {(end["subgroup"], end["clean"]) for end in ends} == {(0, True)}
        objects = [await aiomoqt.wait("object") for frames in GROUPS.values() for _ in frames]
    assert {(item["group"], item["id"]): bytes.fromhex(item["payload"]) for item in objects} == {
        (group, index): frame for group, frames in GROUPS.items() for index, frame in enumerate(frames)
    }
    assert {(item["subgroup"], item["status"], item["priority"]) for item in objects} == {(0, 0, 128)}


@each_pairing
async def test_what_is_not_there(aiomoqt: Aiomoqt, pairing: Pairing):
    """A refusal with DOES_NOT_EXIST is NotFound here, and ours is that code there; the session goes on."""
    async with aiomoqt.session(pairing) as session:
        await aiomoqt.do("serve", path="theirs/out", track="bytes")
        with pytest.raises(moqt.NotFound):
            async with session.subscribe("theirs/out", "none") as subscription:
                await subscription.receive()
        async with session.publish("ours/out", moqt.Broadcast()):
            with pytest.raises(CommandFailed, match=f"code={4 if pairing.draft == 14 else 16}"):
                await aiomoqt.do("subscribe", path="ours/out", track="none")


@from_16_on
async def test_our_broadcasts_come_and_go(aiomoqt: Aiomoqt, pairing: Pairing):
    """aiomoqt is told of a broadcast that was there before, of one that comes, and of the end of each."""
    async with aiomoqt.session(pairing) as session:
        async with session.publish("ours/first", moqt.Broadcast()):
            await aiomoqt.do("discover", path="ours")
            assert (await aiomoqt.wait("namespace"))["suffix"] == "first"
            async with session.publish("ours/deep/second", moqt.Broadcast()):
                assert (await aiomoqt.wait("namespace"))["suffix"] == "deep/second"
            assert (await aiomoqt.wait("namespace_done"))["suffix"] == "deep/second"
        assert (await aiomoqt.wait("namespace_done"))["suffix"] == "first"


@each_pairing
async def test_a_group_that_aiomoqt_resets(aiomoqt: Aiomoqt, pairing: Pairing):
    """Its reader gets the reset with its code behind what had arrived, and the next group arrives whole."""
    async with aiomoqt.session(pairing) as session:
        await aiomoqt.do("serve", path="theirs/out", track="bytes")
        async with session.subscribe("theirs/out", "bytes") as subscription:
            await aiomoqt.wait("requested")
            await aiomoqt.do("open", stream="s", track="bytes", group=3)
            await aiomoqt.do("object", stream="s", id=0, payload=b"kept".hex())
            group = await subscription.receive()
            assert await group.receive() == b"kept"
            await aiomoqt.do("reset", stream="s", code=2)
            with pytest.raises(moqt.StreamReset) as caught:
                await group.receive()
            assert (caught.value.code, caught.value.by_peer) == (moqt.StreamCode.DELIVERY_TIMEOUT, True)
            await aiomoqt.do("open", stream="s", track="bytes", group=4)
            await aiomoqt.do("object", stream="s", id=0, payload=b"next".hex())
            await aiomoqt.do("fin", stream="s")
            assert await (await subscription.receive()).read_all() == [b"next"]


@each_pairing
async def test_leaving_a_subscription_to_aiomoqt(aiomoqt: Aiomoqt, pairing: Pairing):
    """aiomoqt learns of it in the middle of a group, and the session goes on."""
    async with aiomoqt.session(pairing) as session:
        for track in ("one", "two"):
            await aiomoqt.do("serve", path="theirs/out", track=track)
            async with session.subscribe("theirs/out", track) as subscription:
                await aiomoqt.wait("requested", track=track)
                await aiomoqt.do("open", stream=track, track=track, group=0)
                await aiomoqt.do("object", stream=track, id=0, payload=b"x".hex())
                assert await (await subscription.receive()).receive() == b"x"
            await aiomoqt.wait("cancelled", track=track)


@each_pairing
async def test_aiomoqt_joins_and_leaves_in_the_middle_of_a_group(aiomoqt: Aiomoqt, pairing: Pairing):
    """It gets the frames behind the newest one under their own numbers; once it left, the track has no subscriber."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("bytes", max_age=60)
    async with (
        aiomoqt.session(pairing) as session,
        session.publish("ours/out", broadcast),
        track.open_group(7) as group,
    ):
        await group.send(b"0")
        await group.send(b"1")
        await aiomoqt.do("subscribe", path="ours/out", track="bytes")
        await group.send(b"2")
        await group.send(b"3")
        objects = [await aiomoqt.wait("object") for _ in range(2)]
        found = [(item["group"], item["id"], bytes.fromhex(item["payload"])) for item in objects]
        assert found == [(7, 2, b"2"), (7, 3, b"3")]
        await aiomoqt.do("unsubscribe", track="bytes")
        await track.wait_unsubscribed()


@from_18_on
async def test_padding(aiomoqt: Aiomoqt, pairing: Pairing):
    """Streams and datagrams of padding are dropped, and a group behind them arrives."""
    async with aiomoqt.session(pairing) as session:
        await aiomoqt.do("serve", path="theirs/out", track="bytes")
        async with session.subscribe("theirs/out", "bytes") as subscription:
            await aiomoqt.wait("requested")
            await aiomoqt.do("pad")
            await aiomoqt.do("open", stream="s", track="bytes", group=0)
            await aiomoqt.do("object", stream="s", id=0, payload=b"behind".hex())
            await aiomoqt.do("fin", stream="s")
            assert await (await subscription.receive()).read_all() == [b"behind"]


@each_pairing
async def test_a_goaway_of_aiomoqt(aiomoqt: Aiomoqt, pairing: Pairing):
    """It is reported, and what is served goes on."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("bytes")
    async with aiomoqt.session(pairing) as session, session.publish("ours/out", broadcast):
        await aiomoqt.do("subscribe", path="ours/out", track="bytes")
        await track.wait_subscribed()
        await aiomoqt.do("goaway")
        assert await session.wait_goaway() == ""
        await track.write(b"after")
        assert bytes.fromhex((await aiomoqt.wait("object"))["payload"]) == b"after"


@each_pairing
async def test_aiomoqt_fetches_groups_of_ours(aiomoqt: Aiomoqt, pairing: Pairing):
    """Several whole groups of a track that has no subscriber, in one fetch."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("bytes", max_age=60)
    await write(track, GROUPS)
    async with aiomoqt.session(pairing) as session, session.publish("ours/out", broadcast):
        await aiomoqt.do("fetch", path="ours/out", track="bytes", first=1, last=2)
        expected = written({group: GROUPS[group] for group in (1, 2)})
        assert await fetched_by(aiomoqt, len(expected)) == expected


@each_pairing
async def test_aiomoqt_joins_with_past_groups(aiomoqt: Aiomoqt, pairing: Pairing):
    """It gets the newest group and the one before it by a fetch or a fill, and what is written afterwards live."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("bytes", max_age=60)
    await write(track, GROUPS)
    async with aiomoqt.session(pairing) as session, session.publish("ours/out", broadcast):
        await aiomoqt.do("join", path="ours/out", track="bytes", groups=1)
        expected = written({group: GROUPS[group] for group in (2, 3)})
        assert await fetched_by(aiomoqt, len(expected)) == expected
        await write(track, {4: [b"live", b"too"]})
        live = [await aiomoqt.wait("object") for _ in range(2)]
        found = {(item["group"], item["id"]): bytes.fromhex(item["payload"]) for item in live}
        assert found == {(4, 0): b"live", (4, 1): b"too"}


@each_pairing
async def test_we_fetch_from_aiomoqt(aiomoqt: Aiomoqt, pairing: Pairing):
    """A whole group, and a range from the middle of a group to that of another; what is not there is NotFound."""
    async with aiomoqt.session(pairing) as session:
        await aiomoqt.do("serve", path="theirs/out", track="bytes")
        async with session.subscribe("theirs/out", "bytes", max_age=60):
            await aiomoqt.wait("requested")
            for sequence, frames in GROUPS.items():
                await aiomoqt.do("open", stream="s", track="bytes", group=sequence)
                for index, frame in enumerate(frames):
                    await aiomoqt.do("object", stream="s", id=index, payload=frame.hex())
                await aiomoqt.do("fin", stream="s")
        async with session.fetch("theirs/out", "bytes", 2) as group:
            assert [bytes(frame) async for frame in group] == GROUPS[2]
        async with session.fetch_range("theirs/out", "bytes", (1, 2), (3, 1)) as frames:
            found = [bytes(frame) async for frame in frames]
        assert found == [*GROUPS[1][2:], *GROUPS[2], *GROUPS[3][:2]]
        with pytest.raises(moqt.NotFound):
            async with session.fetch("theirs/out", "bytes", 9) as group:
                await group.receive()


@each_pairing
async def test_past_groups_of_a_track_that_aiomoqt_generates(aiomoqt: Aiomoqt, pairing: Pairing):
    """Its own publisher, which is in the middle of a track: the group before the newest one, the newest one, and those
    that it writes afterwards, each whole and with the contents that it says they have."""
    objects, past = 6, 3
    received: dict[int, list[bytes]] = {}
    async with aiomoqt.session(pairing) as session:
        await aiomoqt.do("generate", path="theirs/out", track="bytes", groups=past, size=objects)
        assert (await session.wait_announced("theirs/out")).active
        async with session.subscribe("theirs/out", "bytes", past_groups=1, max_age=60) as subscription:
            async for group in subscription:
                received[group.sequence] = [bytes(frame) for frame in await group.read_all()]
                if len(received) == 4:
                    break
    pattern = bytes(range(200))
    assert sorted(received) == [past - 2, past - 1, past, past + 1]
    for sequence, frames in received.items():
        assert frames == [(b"%d.%d|" % (sequence, number) + pattern)[:200] for number in range(objects)]
