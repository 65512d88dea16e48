"""What the echo client keeps when its server redirects it."""

from __future__ import annotations

import contextlib
import re
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

import moqt_trio as moqt
from apps.echo import client
from apps.echo.errors import EchoFailed
from apps.echo.options import parse_client_options
from apps.echo.run import EchoRun
from apps.echo.server import echo, echo_session

if TYPE_CHECKING:
    from apps.echo.counters import Counters

SCHEMES = pytest.mark.parametrize("scheme", ["https", "moqt"])


async def numbers(count: int):
    for number in range(count):
        yield b"%d" % number


def new_run(url: str = "https://localhost/echo", *options: str) -> EchoRun:
    return EchoRun(parse_client_options(["--url", url, "--count", "1", "--interval", "0", "--timeout", "5", *options]))


class TestMessages:
    @contextlib.asynccontextmanager
    async def reading(self, count: int):
        run = new_run()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.read, numbers(count))
            yield run
            nursery.cancel_scope.cancel()

    async def send_all(self, run: EchoRun) -> list[bytes]:
        sent = []
        while (message := await run.next_message()) is not None:
            sent.append(message)
            run.note_sent()
        return sent

    async def test_everything_in_order(self):
        """A session gets every message, and then the end; so does the next one."""
        async with self.reading(4) as run:
            assert await self.send_all(run) == [b"0", b"1", b"2", b"3"]
            assert run.all_sent
            assert await self.send_all(run) == []
            assert run.counters.sent == 4

    async def test_what_was_not_sent_stays(self):
        """A message that a session did not send is the first one that the next session gets."""
        async with self.reading(4) as run:
            assert await run.next_message() == b"0"
            run.note_sent()
            assert await run.next_message() == b"1"
            assert not run.all_sent
            assert await self.send_all(run) == [b"1", b"2", b"3"]

    async def test_a_session_that_is_cancelled_loses_nothing(self, autojump_clock):
        """Cancelled while there is no message, a session leaves the next one to the next session."""

        async def slow():
            await trio.sleep(2)
            yield b"late"

        run = new_run()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.read, slow())
            with trio.move_on_after(1) as scope:
                await run.next_message()
            assert scope.cancelled_caught
            assert await self.send_all(run) == [b"late"]


class Redirecting:
    """An echo server that redirects its client once an event is set."""

    def __init__(self) -> None:
        self.place = ""
        self.after = trio.Event()

    async def __call__(self, request: moqt.SessionRequest) -> None:
        async with request.accept() as session, trio.open_nursery() as nursery:
            nursery.start_soon(echo_session, session)
            await self.after.wait()
            await session.goaway(self.place)
            await session.wait_closed()
            nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def serving(handler):
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(moqt.serve, handler, "127.0.0.1", 0))
        yield listener
        nursery.cancel_scope.cancel()


async def send(url, fingerprint, messages) -> Counters:
    """Runs the echo client with messages of its own; returns the counters, or raises with them as a note."""
    run = new_run(url, "--fingerprint", fingerprint)
    try:
        await client.run_client(run, messages)
    except BaseException as error:
        error.add_note(run.counters.summary())
        raise
    return run.counters


@SCHEMES
async def test_a_redirect(scheme, capsys):
    """Redirected in the middle, the client goes on at the other server: every message is sent once, comes back once,
    and is printed under its own number."""
    first = Redirecting()

    async def messages():
        for number in range(200):
            if number == 100:
                first.after.set()
            yield b"message %d" % number

    async with serving(echo) as there, serving(first) as here:
        first.place = f"{scheme}://127.0.0.1:{there.port}/"
        url = f"{scheme}://127.0.0.1:{here.port}/"
        with trio.fail_after(10):
            counters = await send(url, here.fingerprint, messages())
        assert there.statistics().sessions_accepted == 1
    assert counters.summary().startswith("sent 200, echoed 200, lost 0, round trip")
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    sessions = [line for line in lines if " to " in line]
    assert sessions == [
        f"connected to {url}: moq-lite-06 over {'webtransport' if scheme == 'https' else 'quic'}",
        f"moved to {first.place}: moq-lite-06 over {'webtransport' if scheme == 'https' else 'quic'}",
    ]
    shown = dict(
        re.fullmatch(r"(\d+): message (\d+)  \(.* ms\)", line).groups() for line in lines if line not in sessions
    )
    assert shown == {str(number): str(number) for number in range(200)}


async def test_a_redirect_while_nothing_is_sent():
    """A client that waits for its next line follows the redirect at once, and sends the line on the new session."""
    first, moved = Redirecting(), trio.Event()

    async def second(request: moqt.SessionRequest) -> None:
        moved.set()
        await echo(request)

    async def messages():
        yield b"before"
        first.after.set()
        await moved.wait()
        yield b"after"

    async with serving(second) as there, serving(first) as here:
        first.place = f"moqt://127.0.0.1:{there.port}/"
        with trio.fail_after(10):
            counters = await send(f"moqt://127.0.0.1:{here.port}/", here.fingerprint, messages())
    assert counters.summary().startswith("sent 2, echoed 2, lost 0")


async def test_another_host():
    """A server that names another host is not followed, and what was sent has come back by then."""
    first = Redirecting()
    first.place = "moqt://elsewhere.example/"

    async def messages():
        yield b"one"
        first.after.set()
        await trio.sleep_forever()

    async with serving(first) as here:
        with trio.fail_after(10), pytest.raises(ExceptionGroup) as caught:
            await send(f"moqt://127.0.0.1:{here.port}/", here.fingerprint, messages())
    (error,) = caught.value.exceptions
    assert isinstance(error, moqt.RedirectRefused)
    assert "elsewhere.example" in str(error)
    assert caught.value.__notes__[0].startswith("sent 1, echoed 1, lost 0")


async def test_asked_to_leave_when_all_is_done():
    """A client that has sent everything when the GOAWAY arrives opens no other session."""
    first = Redirecting()

    async def messages():
        yield b"one"
        first.after.set()

    async with serving(echo) as there, serving(first) as here:
        first.place = f"moqt://127.0.0.1:{there.port}/"
        with trio.fail_after(10):
            counters = await send(f"moqt://127.0.0.1:{here.port}/", here.fingerprint, messages())
    assert counters.summary().startswith("sent 1, echoed 1, lost 0")


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

    async with serving(second) as there, serving(greedy) as here:
        place = f"moqt://127.0.0.1:{there.port}/"
        with trio.fail_after(10), pytest.raises(EchoFailed, match="not everything came back") as caught:
            await send(f"moqt://127.0.0.1:{here.port}/", here.fingerprint, messages())
    assert caught.value.__notes__[0].startswith("sent 2, echoed 1, lost 1")
