"""A server in memory that is cancelled, at any await of its own or of a client: it ends, and leaves nothing."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from moqt_trio.testing import serve_in_memory
from tests.api.interrupting import cancel_everywhere, until

URLS = pytest.mark.parametrize("url", ["https://localhost/", "moqt://localhost/"])


async def hold(request):
    async with request.accept() as session:
        await session.wait_closed()


def tasks():
    return trio.lowlevel.current_statistics().tasks_living


@URLS
async def test_a_client(url, autojump_clock):
    """A client that is cancelled as it connects or leaves is gone from the server, which serves the next one."""

    async def scenario(attempt):
        async with serve_in_memory(hold) as server:
            before = tasks()

            async def work():
                async with server.connect(url):
                    pass

            await attempt(work)
            with trio.fail_after(10):
                await until(lambda: not server.sessions and tasks() <= before)
            async with server.connect(url) as session:
                assert session.closed is None

    await cancel_everywhere(scenario, least=10)


@URLS
async def test_a_server(url, autojump_clock):
    """A server whose block is cancelled, as it begins, runs or ends, leaves no task and no running handler."""

    async def scenario(attempt):
        before = tasks()
        running = []

        async def note(request):
            running.append(request)
            try:
                await hold(request)
            finally:
                running.remove(request)

        async def work():
            async with serve_in_memory(note) as server, server.connect(url) as session:
                assert session.closed is None

        await attempt(work)
        assert running == []
        await trio.testing.wait_all_tasks_blocked()
        assert tasks() == before

    await cancel_everywhere(scenario, least=10)
