"""Timeouts that end late: begun anew, once, so that what arrived while the loop stood still is read first."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from moqt_trio.timeouts import Timeout, read_first, sleep_then_read


async def late(clock, seconds):
    """Let the tasks come to rest, then move the clock on."""
    await trio.testing.wait_all_tasks_blocked()
    clock.jump(seconds)
    # Trio looks at its deadlines once a turn.
    await trio.testing.wait_all_tasks_blocked()


async def wait_and_note(timeout, wait, outcomes):
    outcomes.append(await timeout.wait(wait))


async def test_in_time(autojump_clock):
    """What comes in time ends the wait; what does not come ends it with the time."""
    event = trio.Event()
    timeout = Timeout(5)
    async with trio.open_nursery() as nursery:
        outcomes: list[bool] = []
        nursery.start_soon(wait_and_note, timeout, event.wait, outcomes)
        nursery.start_soon(wait_and_note, timeout, trio.sleep_forever, outcomes)
        await trio.sleep(4.9)
        event.set()
        await trio.testing.wait_all_tasks_blocked()
        assert outcomes == [True]
        await trio.sleep(0.05)
        assert outcomes == [True]
        await trio.sleep(0.1)
        assert outcomes == [True, False]


async def test_it_begins_anew_once(mock_clock):
    """A pause begins the time anew; a second one, at its end, does not. So there is an end to it."""
    async with trio.open_nursery() as nursery:
        outcomes: list[bool] = []
        nursery.start_soon(wait_and_note, Timeout(5), trio.sleep_forever, outcomes)
        await late(mock_clock, 6)
        await late(mock_clock, 4)
        assert outcomes == []
        await late(mock_clock, 6)
        assert outcomes == [False]


async def test_it_begins_anew_for_all_that_wait(mock_clock):
    """What two tasks wait for in the same time is awaited by both after a pause, and comes for both."""
    event = trio.Event()
    timeout = Timeout(5)
    async with trio.open_nursery() as nursery:
        outcomes: list[bool] = []
        for _ in range(2):
            nursery.start_soon(wait_and_note, timeout, event.wait, outcomes)
        await late(mock_clock, 6)
        event.set()
        await trio.testing.wait_all_tasks_blocked()
        assert outcomes == [True, True]


async def test_a_caller_that_comes_late(autojump_clock):
    """Who comes after the deadline finds what is there, and waits for a moment only: its absence is no pause."""
    event = trio.Event()
    event.set()
    timeout = Timeout(5)
    await trio.sleep(20)
    began = trio.current_time()
    assert await timeout.wait(event.wait)
    await trio.sleep(1)
    assert not await timeout.wait(trio.sleep_forever)
    assert trio.current_time() - began < 1.3


async def test_a_look_that_comes_late_for_other_reasons(mock_clock):
    """The time that an end takes is no pause of the loop, either."""
    timeout = Timeout(5)
    mock_clock.jump(6.5)
    assert not timeout.renew(2)
    mock_clock.jump(1)
    assert timeout.renew(2)


async def test_a_small_delay_is_no_pause(mock_clock):
    """A timer that comes a little late, as in a busy loop, ends the wait."""
    async with trio.open_nursery() as nursery:
        outcomes: list[bool] = []
        nursery.start_soon(wait_and_note, Timeout(5), trio.sleep_forever, outcomes)
        await late(mock_clock, 5.05)
        assert outcomes == [False]


async def test_a_scope_around_it(mock_clock):
    """A cancellation from outside ends the wait, and does not begin it anew."""
    with trio.move_on_after(5) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(late, mock_clock, 6)
            await Timeout(5).wait(trio.sleep_forever)
    assert scope.cancelled_caught


async def sleep_and_read_first(seconds: float) -> None:
    deadline = trio.current_time() + seconds
    await trio.sleep(seconds)
    await read_first(deadline)


@pytest.mark.parametrize("timer", [sleep_then_read, sleep_and_read_first])
async def test_what_waits_in_a_socket_is_read_first(mock_clock, timer):
    """A timer that comes late goes on when the tasks that read sockets have had some turns."""
    ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
    ours.setblocking(False)
    read: list[bytes] = []
    before: list[int] = []

    async def read_forever() -> None:
        while True:
            await trio.lowlevel.wait_readable(ours)
            read.append(ours.recv(1))

    async def look() -> None:
        await timer(5)
        before.append(len(read))

    with ours, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_forever)
            nursery.start_soon(look)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(5):
                theirs.send(b"x")
            await late(mock_clock, 6)
            nursery.cancel_scope.cancel()
    assert before == [5]
