"""What moq-relay 0.17 does that a peer has to allow for, as it was seen. A test that fails shows that it changed."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.codes import StreamCode
from tests.interop.relay.nodes import (
    EXPECTED,
    FIRST_LIST_STAYS,
    PATH,
    THEIRS,
    TRACK,
    each_scheme,
    node,
    showing,
    until,
    write_group,
)
from tests.interop.relay.program import moq_relay


def paths(origin: moqt.Origin) -> list[str]:
    return [str(route.path) for route in origin.routes()]


@each_scheme
@pytest.mark.parametrize("version", FIRST_LIST_STAYS)
async def test_what_the_first_list_has_is_never_retracted(version, scheme):
    """ANNOUNCE_INIT lists a broadcast, and no ANNOUNCE follows when it ends: the route stays until the session ends."""
    async with moq_relay(hop_id=THEIRS) as theirs, node() as ours, theirs.connect(version, scheme) as publisher:
        with showing(theirs):
            first = publisher.publish("first", moqt.Broadcast())
            await first.__aenter__()
            async with theirs.connect(version, scheme) as viewer:
                await viewer.wait_announced("first")
            async with ours.linked(theirs, version, scheme):
                await until(lambda: paths(ours.origin) == ["first"])
                await first.__aexit__(None, None, None)
                async with publisher.publish("later", moqt.Broadcast()):
                    await until(lambda: "later" in paths(ours.origin))
                await until(lambda: "later" not in paths(ours.origin))
                assert paths(ours.origin) == ["first"]
            await until(lambda: not ours.origin.routes())


@each_scheme
@pytest.mark.parametrize("version", ["moq-lite-04", "moq-lite-03"])
async def test_no_fetch_before_moq_lite_05(version, scheme):
    """Its stream is reset without a byte; the session goes on."""
    broadcast = moqt.Broadcast()
    track = broadcast.track(TRACK, max_age=60)
    await write_group(track, 0)
    async with moq_relay(hop_id=THEIRS) as theirs, theirs.connect(version, scheme) as publisher:
        with showing(theirs):
            async with publisher.publish(PATH, broadcast), theirs.connect(version, scheme) as viewer:
                await viewer.wait_announced(PATH)
                with pytest.raises(moqt.StreamReset) as caught:
                    async with viewer.fetch(PATH, TRACK, 0) as group:
                        await group.read_all()
                assert caught.value.code == StreamCode.CANCELLED
                async with viewer.subscribe(PATH, TRACK) as subscription:
                    assert [bytes(frame) for frame in await (await subscription.receive()).read_all()] == EXPECTED[0]


@pytest.mark.parametrize(
    ("version", "least", "most"), [("moq-lite-06", 0, 3), ("moq-lite-05", 0, 3), ("moq-lite-04", 4, 8)]
)
async def test_when_the_end_of_a_track_arrives(version, least, most):
    """Five seconds late up to moq-lite-04, which has no message for it."""
    broadcast = moqt.Broadcast()
    track = broadcast.track(TRACK)
    async with moq_relay(hop_id=THEIRS) as theirs, theirs.connect(version) as publisher:
        with showing(theirs):
            async with publisher.publish(PATH, broadcast), theirs.connect(version) as viewer:
                await viewer.wait_announced(PATH)
                async with viewer.subscribe(PATH, TRACK) as subscription:
                    await track.wait_subscribed()
                    await write_group(track, 0)
                    await (await subscription.receive()).read_all()
                    track.finish()
                    began = trio.current_time()
                    with pytest.raises(trio.EndOfChannel):
                        await subscription.receive()
                    assert least <= trio.current_time() - began <= most
