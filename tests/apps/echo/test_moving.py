"""What the echo client takes along when its server sends it elsewhere."""

from __future__ import annotations

import contextlib
import re
from functools import partial

import pytest
import trio

import moqt_trio as moqt
from apps.echo.conversation import EchoFailed
from apps.echo.moving import Journey, Outbox
from apps.echo.server import EchoSession
from apps.echo.tally import Tally

SCHEMES = pytest.mark.parametrize("scheme", ["https", "moqt"])


async def numbers(count: int):
    for number in range(count):
        yield b"%d" % number


class TestOutbox:
    @contextlib.asynccontextmanager
    async def filled(self, count: int):
        outbox = Outbox()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.fill, numbers(count))
            yield outbox
            nursery.cancel_scope.cancel()

    async def test_everything_in_order(self):
        """One that takes gets every message, and then the end."""
        async with self.filled(4) as outbox:
            assert [message async for message in outbox.take()] == [b"0", b"1", b"2", b"3"]
            assert [message async for message in outbox.take()] == []

    async def test_what_was_not_sent_comes_back(self):
        """A message that was taken when its taker was closed is the first one that the next taker gets."""
        async with self.filled(4) as outbox:
            async with contextlib.aclosing(outbox.take()) as first:
                assert await anext(first) == b"0"
                assert await anext(first) == b"1"
            assert [message async for message in outbox.take()] == [b"1", b"2", b"3"]

    async def test_a_taker_that_is_cancelled_loses_nothing(self, autojump_clock):
        """Cancelled while there is no message, a taker leaves the next one to the next taker."""

        async def slow():
            await trio.sleep(2)
            yield b"late"

        outbox = Outbox()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.fill, slow())
            with trio.move_on_after(1) as scope:
                await anext(outbox.take())
            assert scope.cancelled_caught
            assert [message async for message in outbox.take()] == [b"late"]


class Moving:
    """An echo server that sends its first client elsewhere after some messages."""

    def __init__(self) -> None:
        self.place = ""
        self.after = trio.Event()

    async def __call__(self, request: moqt.SessionRequest) -> None:
        async with request.accept() as session, trio.open_nursery() as nursery:
            nursery.start_soon(EchoSession(session).run)
            await self.after.wait()
            await session.goaway(self.place)
            await session.wait_closed()
            nursery.cancel_scope.cancel()


async def echo(request: moqt.SessionRequest) -> None:
    async with request.accept() as session:
        await EchoSession(session).run()


@contextlib.asynccontextmanager
async def serving(handler):
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(moqt.serve, handler, "127.0.0.1", 0))
        yield listener
        nursery.cancel_scope.cancel()


async def travel(url, fingerprint, messages, tally) -> None:
    """Runs the echo client's part between its command line and its connection."""
    journey = Journey(url, tally, interval=0.0, timeout=5.0)

    async def connect(talk, allows) -> None:
        await moqt.stay_connected(url, talk, redirect=allows, retry=None, fingerprint=fingerprint)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(journey.outbox.fill, messages)
        try:
            await journey.run(connect)
        finally:
            nursery.cancel_scope.cancel()


@SCHEMES
async def test_a_move(scheme, capsys):
    """Sent to another server in the middle, the client goes on there: every message is sent once, comes back once, and
    is printed under its own number."""
    first = Moving()

    async def messages():
        for number in range(200):
            if number == 100:
                first.after.set()
            yield b"message %d" % number

    tally = Tally()
    async with serving(echo) as there, serving(first) as here:
        first.place = f"{scheme}://127.0.0.1:{there.port}/"
        url = f"{scheme}://127.0.0.1:{here.port}/"
        with trio.fail_after(10):
            await travel(url, here.fingerprint, messages(), tally)
        assert there.statistics().sessions_accepted == 1
    assert tally.summary().startswith("sent 200, echoed 200, lost 0, round trip")
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    places = [line for line in lines if " to " in line]
    assert places == [
        f"connected to {url}: moq-lite-06 over {'webtransport' if scheme == 'https' else 'quic'}",
        f"moved to {first.place}: moq-lite-06 over {'webtransport' if scheme == 'https' else 'quic'}",
    ]
    shown = dict(
        re.fullmatch(r"(\d+): message (\d+)  \(.* ms\)", line).groups() for line in lines if line not in places
    )
    assert shown == {str(number): str(number) for number in range(200)}


async def test_a_move_while_nothing_is_said():
    """A client that waits for its next line moves at once, and sends the line from the new place."""
    first, moved = Moving(), trio.Event()

    async def second(request: moqt.SessionRequest) -> None:
        moved.set()
        await echo(request)

    async def messages():
        yield b"before"
        first.after.set()
        await moved.wait()
        yield b"after"

    tally = Tally()
    async with serving(second) as there, serving(first) as here:
        first.place = f"moqt://127.0.0.1:{there.port}/"
        with trio.fail_after(10):
            await travel(f"moqt://127.0.0.1:{here.port}/", here.fingerprint, messages(), tally)
    assert tally.summary().startswith("sent 2, echoed 2, lost 0")


async def test_another_host():
    """A server that names another host is not followed, and what was sent has come back by then."""
    first = Moving()
    first.place = "moqt://elsewhere.example/"

    async def messages():
        yield b"one"
        first.after.set()
        await trio.sleep_forever()

    tally = Tally()
    async with serving(first) as here:
        with trio.fail_after(10), pytest.raises(ExceptionGroup) as caught:
            await travel(f"moqt://127.0.0.1:{here.port}/", here.fingerprint, messages(), tally)
    (error,) = caught.value.exceptions
    assert isinstance(error, moqt.RedirectRefused)
    assert "elsewhere.example" in str(error)
    assert tally.summary().startswith("sent 1, echoed 1, lost 0")


async def test_asked_to_leave_when_all_is_done():
    """A client that has sent everything when it is asked to leave does not go anywhere else."""
    first = Moving()

    async def messages():
        yield b"one"
        first.after.set()

    tally = Tally()
    async with serving(echo) as there, serving(first) as here:
        first.place = f"moqt://127.0.0.1:{there.port}/"
        with trio.fail_after(10):
            await travel(f"moqt://127.0.0.1:{here.port}/", here.fingerprint, messages(), tally)
    assert tally.summary().startswith("sent 1, echoed 1, lost 0")


async def test_the_last_message_is_missing():
    """What the first server keeps to itself counts as lost in the end, though the second one echoes everything."""
    asked = trio.Event()
    place = ""

    async def greedy(request: moqt.SessionRequest) -> None:
        broadcast = moqt.Broadcast()
        text = broadcast.track("text")
        async with (
            request.accept() as session,
            session.publish("japan/kyoto", broadcast),
            session.announcements() as announcements,
        ):
            await anext(announcements)
            async with session.subscribe("japan/kyoto", "text", max_age=60) as subscription:
                await text.wait_subscribed()
                await anext(subscription)
                await session.goaway(place)
                await asked.wait()
                session.close(moqt.SessionCode.GOAWAY_TIMEOUT)

    async def second(request: moqt.SessionRequest) -> None:
        await echo(request)

    async def messages():
        yield b"kept"
        while there.statistics().sessions_accepted == 0:  # noqa: ASYNC110 - nothing announces it here
            await trio.sleep(0.005)
        asked.set()
        yield b"echoed"

    tally = Tally()
    async with serving(second) as there, serving(greedy) as here:
        place = f"moqt://127.0.0.1:{there.port}/"
        with trio.fail_after(10), pytest.raises(ExceptionGroup) as caught:
            await travel(f"moqt://127.0.0.1:{here.port}/", here.fingerprint, messages(), tally)
    (error,) = caught.value.exceptions
    assert isinstance(error, EchoFailed)
    assert "not everything came back" in str(error)
    assert tally.summary().startswith("sent 2, echoed 1, lost 1")
