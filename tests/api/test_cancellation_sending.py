"""Cancellation at every await of sending: a frame is written whole or not at all, and a cancelled group is reset."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt
from tests.api.interrupting import Pair, cancel_everywhere

SMALL = moqt.Limits(
    stream_window=1024,
    connection_window=4096,
    send_high=1024,
    reliable_backlog=1024,
    reliable_backlog_groups=4,
    close_timeout=0.5,
)


@pytest.mark.parametrize("delivery", ["live", "reliable"])
async def test_sending(delivery, autojump_clock):
    """A cancelled send wrote its whole frame or nothing, and its group is reset; the next group is untouched."""
    frames = [bytes([65 + number]) * 700 for number in range(5)]

    async def scenario(attempt):
        async with Pair(limits=SMALL) as pair:
            broadcast = moqt.Broadcast(limits=SMALL)
            track = broadcast.track("t", delivery=delivery)
            async with (
                pair.server.publish("b", broadcast),
                pair.client.subscribe("b", "t") as subscription,
                trio.open_nursery() as nursery,
            ):
                await track.wait_subscribed()
                got: dict[int, list[bytes]] = {}
                ends: dict[int, object] = {}

                async def read():
                    async for group in subscription:
                        got[group.sequence] = []
                        # Slow, so that a reliable writer has to wait.
                        await trio.sleep(1)
                        try:
                            async for frame in group:
                                got[group.sequence].append(frame)
                            ends[group.sequence] = "finished"
                        except moqt.StreamReset as error:
                            ends[group.sequence] = error.code

                nursery.start_soon(read)
                sent = 0

                async def work():
                    nonlocal sent
                    async with track.open_group(0) as group:
                        for frame in frames:
                            await group.send(frame)
                            sent += 1

                cancelled = await attempt(work)
                async with track.open_group(1) as group:
                    await group.send(b"next")
                track.finish()
            assert got[1] == [b"next"]
            assert ends[1] == "finished"
            if cancelled:
                assert got.get(0, []) == frames[: len(got.get(0, []))]
                assert len(got.get(0, [])) <= sent + 1
                assert ends.get(0, moqt.StreamCode.CANCELLED) == moqt.StreamCode.CANCELLED
            else:
                assert (got[0], ends[0]) == (frames, "finished")

    await cancel_everywhere(scenario, least=10)


async def test_writing_while_blocked(autojump_clock):
    """A cancelled write on a full reliable track wrote its group whole or not at all."""

    async def scenario(attempt):
        async with Pair(limits=SMALL) as pair:
            broadcast = moqt.Broadcast(limits=SMALL)
            track = broadcast.track("t", delivery="reliable")
            async with pair.server.publish("b", broadcast), pair.client.subscribe("b", "t") as subscription:
                await track.wait_subscribed()
                written = []

                async def work():
                    for _ in range(12):
                        written.append(await track.write(bytes(1000)))

                async def read():
                    await trio.sleep(1)
                    return {group.sequence: len((await group.read_all())[0]) async for group in subscription}

                async with trio.open_nursery() as nursery:

                    async def collect():
                        result.update(await read())

                    result: dict[int, int] = {}
                    nursery.start_soon(collect)
                    await attempt(work)
                    track.finish()
            assert list(result) == list(range(len(result)))
            assert set(result.values()) <= {1000}
            assert len(written) <= len(result) <= len(written) + 1

    await cancel_everywhere(scenario, least=12)
