"""The client's side of an echo, against servers that behave and that do not, on a virtual clock."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

import moqt_trio as moqt
from apps.echo import client
from apps.echo.errors import EchoFailed, first_of
from apps.echo.options import parse_client_options
from apps.echo.run import EchoRun
from apps.echo.server import echo_session
from moqt_trio.testing import LossyLink, session_pair

if TYPE_CHECKING:
    from apps.echo.counters import Counters

Server = Callable[[moqt.Session], Awaitable[None]]


async def messages(*payloads: bytes) -> AsyncGenerator[bytes, None]:
    for payload in payloads:
        yield payload


async def send(
    server: Server,
    source: AsyncGenerator[bytes, None],
    *,
    version: str = "moq-lite-06",
    interval: float = 0.25,
    link: LossyLink | None = None,
) -> Counters:
    """Sends the messages to a server; returns the counters, or raises the client's failure with them as a note."""
    run = EchoRun(parse_client_options(["--count", "1", "--interval", str(interval), "--timeout", "10"]))
    try:
        async with session_pair(version, link=link) as (session, other), trio.open_nursery() as nursery:
            nursery.start_soon(server, other)
            nursery.start_soon(run.read, source)
            await client.echo(run, session)
            nursery.cancel_scope.cancel()
        run.check()
    except Exception as error:
        failure = first_of(error) if isinstance(error, ExceptionGroup) else error
        failure.add_note(run.counters.summary())
        raise failure from None
    return run.counters


async def converse(
    server: Server,
    *payloads: bytes,
    version: str = "moq-lite-06",
    interval: float = 0.25,
    link: LossyLink | None = None,
) -> Counters:
    """Sends the payloads to a server, as `send` does."""
    return await send(server, messages(*payloads), version=version, interval=interval, link=link)


async def echo_server(session: moqt.Session) -> None:
    """The real echo server."""
    await echo_session(session)


Reply = Callable[[moqt.Track, int, list[bytes]], Awaitable[None]]


def replying(reply: Reply) -> Server:
    """Returns a server that publishes an echo, and replies to each group with a function."""

    async def server(session: moqt.Session) -> None:
        echo = moqt.Broadcast()
        text = echo.track("text")
        async with (
            session.subscribe("japan/kyoto", "text", max_age=60.0) as subscription,
            session.publish("japan/kyoto", echo),
        ):
            await text.wait_subscribed()
            async for group in subscription:
                await reply(text, group.sequence, await group.read_all())
            await trio.sleep_forever()

    return server


async def give_back(text: moqt.Track, sequence: int, frames: list[bytes]) -> None:
    async with text.open_group(sequence) as group:
        for frame in frames:
            await group.send(frame)


@pytest.mark.parametrize("version", moqt.version_names())
async def test_everything_comes_back(autojump_clock, version, capsys):
    """Each message is printed once with its round-trip time, and what is empty or no text comes back as well."""
    counters = await converse(echo_server, b"one", b"", b"\xff", version=version)
    assert counters.summary().startswith("sent 3, echoed 3, lost 0, round trip p50 ")
    printed = capsys.readouterr()
    # The publisher of gomoqt's develop holds its first groups back for a round trip: not every time is zero.
    connected, *lines = printed.out.splitlines()
    assert connected == f"connected to https://localhost:4443/echo: {version} over memory"
    said = [line.rpartition("  (")[0] for line in lines]
    assert said == ["0: one", "1: ", "2: \ufffd"]
    assert not printed.err


async def test_round_trip_is_measured(autojump_clock, capsys):
    """On a path of 20 ms each way the round trip is 40 ms."""
    counters = await converse(echo_server, b"one", b"two", link=LossyLink(delay=0.020))
    assert counters.round_trips == pytest.approx([0.040, 0.040])
    assert "0: one  (40.00 ms)" in capsys.readouterr().out


async def test_a_lossy_path(autojump_clock):
    """On a path that loses, delays and reorders, everything comes back all the same."""
    path = LossyLink(delay=0.020, jitter=0.010, loss=0.2, reorder=0.2, seed=1)
    counters = await converse(echo_server, *[b"%d" % number for number in range(50)], interval=0.0, link=path)
    assert len(counters.round_trips) == 50


@attrs.define(eq=False)
class Slow:
    """A source of messages that takes its time.

    Attributes:
        pauses: Seconds before each message.
    """

    pauses: list[float]

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        for pause in self.pauses:
            await trio.sleep(pause)
            yield b"line"


@pytest.mark.parametrize(
    ("pauses", "times"),
    [([0, 0, 0], [0.0, 0.25, 0.5]), ([0, 1, 0, 0], [0.0, 1.0, 1.25, 1.5])],
    ids=["ready", "awaited"],
)
async def test_interval(autojump_clock, pauses, times):
    """Messages leave an interval apart; one that was waited for longer than that leaves at once."""
    arrivals: list[float] = []

    async def note(text: moqt.Track, sequence: int, frames: list[bytes]) -> None:
        arrivals.append(trio.current_time())
        await give_back(text, sequence, frames)

    await send(replying(note), Slow(pauses)())
    assert [at - arrivals[0] for at in arrivals] == pytest.approx(times)


async def test_a_long_silence_of_the_sender(autojump_clock):
    """A sender that has nothing to say for longer than the timeout loses nothing: there is no echo to wait for."""
    counters = await send(echo_server, Slow([0, 60, 60])(), interval=0.0)
    assert counters.summary().startswith("sent 3, echoed 3, lost 0")


async def test_no_echo_server(autojump_clock):
    """A server that announces no echo is given up after the timeout."""

    async def silent(session: moqt.Session) -> None:
        async with session.subscribe("japan/kyoto", "text"):
            await trio.sleep_forever()

    began = trio.current_time()
    with pytest.raises(EchoFailed, match="no echo of 'japan/kyoto' within 10 s; is this the echo server"):
        await converse(silent, b"one")
    assert trio.current_time() - began == pytest.approx(10.0, abs=1.0)


async def test_echo_stops_in_mid_run(autojump_clock):
    """Ten seconds after the last echo the client stops, though it has more to send."""
    began = trio.current_time()

    async def tire(text: moqt.Track, sequence: int, frames: list[bytes]) -> None:
        if sequence < 4:
            await give_back(text, sequence, frames)

    with pytest.raises(EchoFailed, match="nothing has come back for 10 s") as failure:
        await converse(replying(tire), *[b"hello"] * 1000, interval=0.3)
    # The fifth message left after 1.2 seconds, and 33 more in the ten seconds after it.
    assert trio.current_time() - began == pytest.approx(11.2)
    assert failure.value.__notes__[0].startswith("sent 38, echoed 4, lost 34")


async def test_the_last_echo_is_missing(autojump_clock):
    """Ten seconds after the last message was sent the client stops waiting for its echo."""
    began = trio.current_time()

    async def keep_last(text: moqt.Track, sequence: int, frames: list[bytes]) -> None:
        if sequence < 2:
            await give_back(text, sequence, frames)

    with pytest.raises(EchoFailed, match="nothing has come back for 10 s") as failure:
        await converse(replying(keep_last), *[b"hello"] * 3)
    assert trio.current_time() - began == pytest.approx(10.5)
    assert failure.value.__notes__[0].startswith("sent 3, echoed 2, lost 1")


async def test_echo_ends(autojump_clock):
    """A server that ends its echo early is not waited for."""
    began = trio.current_time()

    async def end(text: moqt.Track, sequence: int, frames: list[bytes]) -> None:
        await give_back(text, sequence, frames)
        text.finish()
        await trio.sleep_forever()

    with pytest.raises(EchoFailed, match="the server ended the echo before everything came back"):
        await converse(replying(end), *[b"hello"] * 1000)
    assert trio.current_time() - began < 4.0


@pytest.mark.parametrize(
    ("sequence", "frames"),
    [(0, [b"b"]), (0, [b""]), (7, [b"a"])],
    ids=["changed", "emptied", "never sent"],
)
async def test_an_echo_of_nothing_that_was_sent(autojump_clock, sequence, frames, capsys):
    """A payload that is not what was sent under its sequence is wrong, and the message stays lost."""

    async def answer(text: moqt.Track, _: int, __: list[bytes]) -> None:
        await give_back(text, sequence, frames)
        text.finish()

    with pytest.raises(EchoFailed) as failure:
        await converse(replying(answer), b"a")
    assert failure.value.__notes__ == ["sent 1, echoed 0, lost 1, wrong 1"]
    assert f"{sequence}: unexpected echo {frames[0].decode()!r}" in capsys.readouterr().err


async def test_twice(autojump_clock, capsys):
    """A second echo of one message is wrong, even when everything has come back."""

    async def repeat(text: moqt.Track, sequence: int, frames: list[bytes]) -> None:
        await give_back(text, sequence, frames * (1 + (sequence == 0)))

    with pytest.raises(EchoFailed, match="not everything came back as it was sent") as failure:
        await converse(replying(repeat), b"a", b"")
    assert failure.value.__notes__[0].startswith("sent 2, echoed 2, lost 0, wrong 1, round trip p50")
    assert "0: unexpected echo 'a'" in capsys.readouterr().err


async def test_a_group_is_reset_after_its_message(autojump_clock, capsys):
    """A message that has come back is not lost, however its group ends."""

    async def reset_late(text: moqt.Track, sequence: int, frames: list[bytes]) -> None:
        group = text.open_group(sequence)
        await group.send(frames[0])
        await trio.sleep(0.1)
        group.reset(77)

    counters = await converse(replying(reset_late), b"a", b"b")
    assert counters.summary().startswith("sent 2, echoed 2, lost 0, round trip")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("how", ["reset", "empty"])
async def test_a_message_is_lost(autojump_clock, how, capsys):
    """An echo that is reset or empty is lost at once; the others come back, and no timeout is waited for."""
    began = trio.current_time()

    async def lose_one(text: moqt.Track, sequence: int, frames: list[bytes]) -> None:
        if sequence != 1:
            await give_back(text, sequence, frames)
        elif how == "empty":
            await give_back(text, sequence, [])
        else:
            group = text.open_group(sequence)
            await group.send(b"something")
            await trio.sleep(0.1)
            group.reset(77)

    with pytest.raises(EchoFailed, match="not everything came back as it was sent") as failure:
        await converse(replying(lose_one), b"a", b"b", b"c")
    assert failure.value.__notes__[0].startswith("sent 3, echoed 2, lost 1")
    assert "1: lost: " in capsys.readouterr().err
    assert trio.current_time() - began < 4.0


async def test_something_else_comes_back(autojump_clock, capsys):
    """An echo that was changed is counted apart from one that is missing."""

    async def shout(text: moqt.Track, sequence: int, frames: list[bytes]) -> None:
        await give_back(text, sequence, [frame.upper() for frame in frames])

    with pytest.raises(EchoFailed, match="not everything came back as it was sent") as failure:
        await converse(replying(shout), b"a", b"B")
    assert failure.value.__notes__[0].startswith("sent 2, echoed 1, lost 1, wrong 1")
    assert "0: unexpected echo 'A'" in capsys.readouterr().err


async def test_goaway(autojump_clock):
    """A client that is asked to leave sends no more, waits for what is on its way, and says why it stopped."""

    async def leave(session: moqt.Session) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo_session, session)
            await trio.sleep(1.1)
            await session.goaway()

    with pytest.raises(EchoFailed, match="the server is shutting down; stopped after 5 messages") as failure:
        await converse(leave, *[b"hello"] * 1000)
    assert failure.value.__notes__[0].startswith("sent 5, echoed 5, lost 0")


async def test_goaway_at_the_end(autojump_clock):
    """A client that has sent everything has nothing to leave undone."""

    async def leave_late(session: moqt.Session) -> None:
        async def say_goodbye(text: moqt.Track, sequence: int, frames: list[bytes]) -> None:
            await session.goaway()
            await trio.sleep(0.5)
            await give_back(text, sequence, frames)

        await replying(say_goodbye)(session)

    counters = await converse(leave_late, b"one")
    assert counters.summary().startswith("sent 1, echoed 1, lost 0")


async def test_nothing_to_send(autojump_clock):
    """An empty input is a failure that says so."""
    with pytest.raises(EchoFailed, match="nothing to send: standard input is empty"):
        await converse(echo_server)


async def test_too_long(autojump_clock):
    """A message that is longer than a frame may be is a failure that says how long one may be."""
    with pytest.raises(EchoFailed, match="a frame has at most 16777216 bytes, not 16777217"):
        await converse(echo_server, bytes(2**24 + 1))


async def test_the_session_ends(autojump_clock):
    """When the server closes the session, its reason is what the client raises."""

    async def close(text: moqt.Track, sequence: int, frames: list[bytes]) -> None:
        raise ConnectionResetError

    async def server(session: moqt.Session) -> None:
        try:
            await replying(close)(session)
        except ConnectionResetError:
            session.close(7, "had enough")

    with pytest.raises(moqt.SessionClosed, match="had enough") as caught:
        await converse(server, b"one")
    assert caught.value.by_peer
    assert caught.value.remote_code == 7
