"""How a relay copies groups: short ones at once, others in a task each."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.codes import StreamCode
from tests.relay.relays import VERSIONS, relay
from tests.transport.recorders import eventually


class TaskNames(trio.abc.Instrument):
    """Records the names of the tasks that begin."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.names.append(task.name.rpartition(".")[2])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("frames", "tasks"), [(0, 0), (1, 0), (16, 0), (17, 1)])
async def test_groups_that_arrive_whole(version, frames, tasks):
    """Every frame comes, and the end; a group of few frames takes no task of the relay."""
    origin = moqt.Origin()
    async with relay(origin) as found, found.connect(version) as publisher, found.connect() as viewer:
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        async with publisher.publish("live", broadcast):
            await viewer.wait_announced("live")
            async with viewer.subscribe("live", "video") as subscription:
                await track.wait_subscribed()
                begun = TaskNames()
                trio.lowlevel.add_instrument(begun)
                try:
                    for number in range(3):
                        wanted = [b"%d.%d" % (number, index) for index in range(frames)]
                        async with track.open_group() as group:
                            for payload in wanted:
                                group.send_nowait(payload)
                        received = await subscription.receive()
                        assert (received.sequence, await received.read_all()) == (number, wanted)
                finally:
                    trio.lowlevel.remove_instrument(begun)
                assert begun.names.count("_copy_group") == 3 * tasks


# A publisher of draft 14 offers the track before it has a frame; what it has since, such a subscription does not learn.
@pytest.mark.parametrize("version", [name for name in VERSIONS if name != "moqt-14"])
async def test_a_group_that_is_joined_in_its_middle(version):
    """What was written of it before is here as a whole, and the group is not."""
    async with relay() as found, found.connect(version) as publisher, found.connect() as viewer:
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        async with publisher.publish("live", broadcast), track.open_group() as group:
            await group.send(b"a")
            await group.send(b"b")
            await eventually(lambda: found.origin.routes())
            async with viewer.subscribe("live", "video") as subscription:
                received = await subscription.receive()
                assert [await received.receive(), await received.receive()] == [b"a", b"b"]
                await trio.testing.wait_all_tasks_blocked()
                await group.send(b"c")
                assert await received.receive() == b"c"
                group.finish()
                assert await received.read_all() == []
        assert publisher.closed is None


@pytest.mark.parametrize("frames", [1, 2, 17])
async def test_a_frame_that_is_too_long_for_the_relay(frames):
    """Its group is reset, whether it was copied at once or not; the next group comes."""
    origin = moqt.Origin(limits=attrs.evolve(moqt.Limits(), max_frame=1000))
    async with relay(origin) as found, found.connect() as publisher, found.connect() as viewer:
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        async with publisher.publish("live", broadcast):
            await viewer.wait_announced("live")
            async with viewer.subscribe("live", "video", max_age=60) as subscription:
                await track.wait_subscribed()
                async with track.open_group() as group:
                    for _ in range(frames - 1):
                        group.send_nowait(b"short")
                    group.send_nowait(bytes(1001))
                await track.write(b"next")
                track.finish()
                outcomes: dict[int, object] = {}
                async for received in subscription:
                    try:
                        outcomes[received.sequence] = await received.read_all()
                    except moqt.StreamReset as error:
                        outcomes[received.sequence] = error.code
                assert outcomes[1] == [b"next"]
                # A group that is reset before any of it was sent is reported in place of it.
                dropped = {group.first: group.code for group in subscription.dropped}
                assert {**dropped, **outcomes}[0] == StreamCode.FRAME_TOO_LARGE
