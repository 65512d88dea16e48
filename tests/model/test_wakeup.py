"""The flag that one task sleeps on."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from moqt_trio.tasks import Wakeup


async def test_set_wakes_the_sleeper():
    """A task that sleeps goes on once the flag is set, and not before."""
    wakeup = Wakeup()
    woken = []

    async def sleep():
        await wakeup.wait()
        woken.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleep)
        await trio.testing.wait_all_tasks_blocked()
        assert not woken
        wakeup.set()
    assert woken


async def test_a_wake_up_is_kept():
    """A wake-up while no task sleeps lets the next wait return, which is a checkpoint all the same."""
    wakeup = Wakeup()
    wakeup.set()
    with trio.testing.assert_checkpoints():
        await wakeup.wait()


async def test_several_wake_ups_count_as_one(autojump_clock):
    """However often it was set, the flag lets one wait return."""
    wakeup = Wakeup()
    wakeup.set()
    wakeup.set()
    await wakeup.wait()
    with trio.move_on_after(1) as scope:
        await wakeup.wait()
    assert scope.cancelled_caught


async def test_wake_ups_before_the_sleeper_runs_count_as_one():
    """Two wake-ups in a row wake a sleeper once: when it runs it sees what both were about."""
    wakeup = Wakeup()
    wakes = []

    async def sleep():
        while True:
            await wakeup.wait()
            wakes.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleep)
        await trio.testing.wait_all_tasks_blocked()
        wakeup.set()
        wakeup.set()
        await trio.testing.wait_all_tasks_blocked()
        assert wakes == [True]
        nursery.cancel_scope.cancel()


async def test_a_cancelled_wait_keeps_the_wake_up():
    """A wake-up that a cancelled wait would have taken is there for the next one."""
    wakeup = Wakeup()
    wakeup.set()
    with trio.CancelScope() as scope:
        scope.cancel()
        await wakeup.wait()
    assert scope.cancelled_caught
    with trio.fail_after(1):
        await wakeup.wait()


async def test_a_cancelled_sleeper_leaves_the_place():
    """After a sleeper was cancelled another may sleep, and a wake-up in between is kept."""
    wakeup = Wakeup()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wakeup.wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    wakeup.set()
    with trio.fail_after(1):
        await wakeup.wait()


async def test_two_sleepers_are_refused():
    """A second task that waits gets BusyResourceError; the first is not disturbed."""
    wakeup = Wakeup()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wakeup.wait)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await wakeup.wait()
        wakeup.set()
