"""The queue of received items."""

from __future__ import annotations

import traceback

import pytest
import trio
import trio.testing

from moqt_trio.session.subscriber.receive_queue import ReceiveQueue
from moqt_trio.timeouts import Timeout
from tests.api.interrupting import cancel_everywhere


class Broken(Exception):
    """What an queue fails with here."""


@pytest.fixture
def queue() -> ReceiveQueue[int]:
    return ReceiveQueue()


@pytest.mark.parametrize("end", ["finish", "fail"])
async def test_items_come_before_the_end(queue, end):
    """Items come in order, then the end, as often as one asks."""
    for number in range(3):
        queue.put(number)
    queue.finish() if end == "finish" else queue.fail(Broken())
    assert [await queue.receive() for _ in range(3)] == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(trio.EndOfChannel if end == "finish" else Broken), trio.testing.assert_checkpoints():
            await queue.receive()


async def test_the_first_end_counts(queue):
    """Neither an error after a clean end nor a second error changes how it ended."""
    queue.finish()
    queue.fail(Broken())
    with pytest.raises(trio.EndOfChannel):
        await queue.receive()
    other: ReceiveQueue[int] = ReceiveQueue()
    other.fail(Broken("first"))
    other.fail(Broken("second"))
    other.close("closed")
    with pytest.raises(Broken, match="first"):
        await other.receive()


async def test_closing(queue):
    """Closing drops the unread items, also after a clean end, and the error has the reason."""
    queue.put(1)
    queue.finish()
    queue.close("left")
    assert len(queue) == 0
    with pytest.raises(trio.ClosedResourceError, match="left"):
        await queue.receive()


async def test_cancelling_loses_nothing():
    """Whatever await of a reader is cancelled, every item comes once and in order."""

    async def scenario(attempt):
        queue: ReceiveQueue[int] = ReceiveQueue()
        received = []

        async def fill():
            for number in range(4):
                await trio.testing.wait_all_tasks_blocked()
                queue.put(number)
            queue.finish()

        async def read():
            while True:
                try:
                    received.append(await queue.receive())
                except trio.EndOfChannel:
                    return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fill)
            await attempt(read)
            await read()
        assert received == [0, 1, 2, 3]

    await cancel_everywhere(scenario, least=5)


async def test_one_reader_at_a_time(queue):
    """A second reader gets BusyResourceError, and the first one its item."""
    received = []

    async def read():
        received.append(await queue.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await queue.receive()
        queue.put(5)
    assert received == [5]
    queue.put(6)
    await read()
    assert received == [5, 6]


@pytest.mark.parametrize("waiting", [True, False])
async def test_a_bound_on_waiting(queue, waiting, autojump_clock):
    """A reader without an item ends at the bound, whether it began to wait before the bound was set or after."""
    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def read():
            with pytest.raises(Broken):
                await queue.receive()
            assert trio.current_time() - began == pytest.approx(3)

        if waiting:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
        queue.expect_within(Timeout(3), lambda: queue.fail(Broken()))
        if not waiting:
            await trio.sleep(1)
            nursery.start_soon(read)


async def test_a_bound_that_has_passed_before_anybody_reads(queue, autojump_clock):
    """Items that arrived are read although the time is up; a reader that comes so late waits for a moment only."""
    queue.expect_within(Timeout(3), queue.finish)
    queue.put(1)
    await trio.sleep(10)
    began = trio.current_time()
    assert await queue.receive() == 1
    with pytest.raises(trio.EndOfChannel):
        await queue.receive()
    assert trio.current_time() - began < 0.2
    with pytest.raises(trio.EndOfChannel):
        await queue.receive()
    assert trio.current_time() - began < 0.2


async def test_a_bound_that_is_lifted(queue, autojump_clock):
    """A reader that waits when its bound is lifted waits on."""
    queue.expect_within(Timeout(3), lambda: pytest.fail("the bound was lifted"))
    async with trio.open_nursery() as nursery:
        received = []

        async def read():
            received.append(await queue.receive())

        nursery.start_soon(read)
        await trio.sleep(1)
        queue.wait_on()
        await trio.sleep(100)
        assert received == []
        queue.put(7)
    assert received == [7]


async def test_asking_again_and_again_how_it_ended(queue):
    """The error that is raised each time does not grow: each raise would add a traceback that holds its frames."""
    queue.fail(Broken())
    lengths = []
    for _ in range(20):
        with pytest.raises(Broken) as caught:
            await queue.receive()
        lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len(set(lengths)) == 1
