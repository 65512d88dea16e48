"""`Broadcast(on_request=…)`: tracks that are made as they are asked for."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import session_pair

VERSIONS = pytest.mark.parametrize(
    "version", ["moq-lite-06", "moq-lite-03", "moq-lite-01", "moq-transfork-03", "moqt-18", "moqt-22"]
)


class OnDemand:
    """A broadcast of tracks whose names begin with `t`, and what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.broadcast = moqt.Broadcast(on_request=self.make)

    def make(self, below: moqt.BroadcastPath, name: str) -> moqt.Track | None:
        self.asked.append((str(below), name))
        if not name.startswith("t"):
            return None
        # What is below the path is asked for again by a second request.
        return self.broadcast.tracks.get(name) or self.broadcast.track(name)


async def read_one(session: moqt.Session, path: str, track: str) -> list[bytes]:
    """Returns the frames of the first group."""
    async with session.subscribe(path, track) as subscription:
        return await (await subscription.receive()).read_all()


@VERSIONS
async def test_a_subscription(version):
    """It gets what is written on the new track; a second subscription reads the same track."""
    made = OnDemand()
    received: list[list[bytes]] = []

    async def read() -> None:
        received.append(await read_one(client, "b", "t1"))

    with trio.fail_after(10):
        async with session_pair(version) as (client, server), server.publish("b", made.broadcast):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                nursery.start_soon(read)
                while "t1" not in made.broadcast.tracks or made.broadcast.tracks["t1"].subscribers < 2:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                await made.broadcast.tracks["t1"].write(b"x")
            assert received == [[b"x"], [b"x"]]
            assert made.asked == [("", "t1")]


@VERSIONS
async def test_a_refusal(version):
    """None refuses the request as a track that is not there, and the session goes on."""
    made = OnDemand()
    with trio.fail_after(10):
        async with session_pair(version) as (client, server), server.publish("b", made.broadcast):
            with pytest.raises((moqt.NotFound, moqt.StreamReset)):
                await read_one(client, "b", "other")
            assert ("", "other") in made.asked
            assert client.closed is None


@VERSIONS
async def test_a_path_below(version):
    """A request below the broadcast's path comes with the rest of the path."""
    made = OnDemand()
    with trio.fail_after(10):
        async with session_pair(version) as (client, server), server.publish("a/b", made.broadcast):
            async with trio.open_nursery() as nursery:

                async def write() -> None:
                    while not made.broadcast.tracks or not made.broadcast.tracks["t"].subscribers:  # noqa: ASYNC110
                        await trio.sleep(0.01)
                    await made.broadcast.tracks["t"].write(b"deep")

                nursery.start_soon(write)
                assert await read_one(client, "a/b/c/d", "t") == [b"deep"]
            assert set(made.asked) == {("c/d", "t")}


async def test_a_request_that_came_before_the_broadcast():
    """It waits for the broadcast in a session's first seconds, and is then asked for as any other."""
    made = OnDemand()
    with trio.fail_after(10):
        async with session_pair("moqt-18") as (client, server), trio.open_nursery() as nursery:
            received: list[list[bytes]] = []

            async def read() -> None:
                received.append(await read_one(client, "late/x", "t"))

            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            async with server.publish("late", made.broadcast):
                while not made.broadcast.tracks or not made.broadcast.tracks["t"].subscribers:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                await made.broadcast.tracks["t"].write(b"y")
                while not received:  # noqa: ASYNC110
                    await trio.sleep(0.01)
            assert received == [[b"y"]]


class MadeOnce:
    """A broadcast whose tracks are made anew for each request: a second one of the same name is a mistake."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.broadcast = moqt.Broadcast(on_request=self.make)

    def make(self, below: moqt.BroadcastPath, name: str) -> moqt.Track:
        self.asked.append((str(below), name))
        return self.broadcast.track(name, delivery="reliable")


@pytest.mark.parametrize("version", ["moqt-18", "moqt-22"])
@pytest.mark.parametrize("path", ["a", "a/b", "a/b/c"])
async def test_a_request_that_waits(version, path):
    """It gets the track of a broadcast that is published later, also of one whose path is a prefix; it asks once."""
    made = MadeOnce()
    with trio.fail_after(10):
        async with (
            session_pair(version) as (client, server),
            trio.open_nursery() as nursery,
        ):
            received: list[list[bytes]] = []

            async def read() -> None:
                async with client.subscribe("a/b/c", "t", rendezvous=5) as subscription:
                    received.append(await (await subscription.receive()).read_all())

            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked(0.02)
            async with server.publish("a/other", made.broadcast), server.publish(path, made.broadcast):
                await trio.testing.wait_all_tasks_blocked(0.02)
                assert made.asked == [("a/b/c"[len(path) + 1 :], "t")]
                await made.broadcast.tracks["t"].write(b"x")
                nursery.cancel_scope.deadline = trio.current_time() + 5
                while not received:  # noqa: ASYNC110
                    await trio.sleep(0.01)
            assert received == [[b"x"]]


@pytest.mark.parametrize("version", ["moqt-18", "moqt-22"])
async def test_a_request_that_waits_while_the_session_goes_away(version, autojump_clock):
    """It is refused at once, as one for which nothing comes any more."""
    async with session_pair(version) as (client, server), trio.open_nursery() as nursery:
        refused: list[moqt.StreamReset] = []

        async def read() -> None:
            async with client.subscribe("a", "t", rendezvous=20) as subscription:
                with pytest.raises(moqt.StreamReset) as caught:
                    await subscription.receive()
                refused.append(caught.value)

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert not server._publisher.subscriptions
        before = trio.current_time()
        await client.goaway()
        while not refused:  # noqa: ASYNC110
            await trio.sleep(0.01)
        assert trio.current_time() - before < 1
        assert refused[0].code == moqt.StreamCode.GOING_AWAY
