"""What an idle session costs its server: the garbage collector looks at all of it in every full collection."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial

import pytest
import trio

import moqt_trio as moqt
from tests.transport.recorders import eventually

SESSIONS = 3


def tasks_below(task: trio.lowlevel.Task) -> int:
    """Return how many tasks run in the nurseries of a task, and in theirs."""
    return sum(1 + tasks_below(child) for nursery in task.child_nurseries for child in nursery.child_tasks)


@pytest.mark.parametrize(("scheme", "tasks"), [("moqt", 2), ("https", 3)])
async def test_tasks(scheme, tasks):
    """A QUIC connection has a task that sends and one that runs its handler; a WebTransport session has its own."""

    async def handle(request):
        async with request.accept() as session:
            await session.wait_closed()

    limits = moqt.Limits(setup_timeout=1.0)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            listener = await nursery.start(partial(moqt.serve, handle, "127.0.0.1", 0, limits=limits))
            (server,) = nursery.child_tasks
            alone = tasks_below(server)
            url = next(url for url in listener.urls if url.startswith(scheme))
            async with AsyncExitStack() as sessions:
                for _ in range(SESSIONS):
                    await sessions.enter_async_context(moqt.connect(url, fingerprint=listener.fingerprint))
                # What looks whether a stream waits too long for its type runs for a while.
                await eventually(lambda: tasks_below(server) == alone + SESSIONS * tasks)
            await listener.aclose(grace=0)
