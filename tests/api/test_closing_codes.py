"""The code that a session is closed with: what each side is told, whatever number it has on the wire."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.testing import session_pair
from tests.http.serving import CERTIFICATE

TRANSPORTS = pytest.mark.parametrize("transport", ["memory", "moqt", "https"])

WITHOUT_A_NUMBER = {moqt.SessionCode.CONTROL_MESSAGE_TIMEOUT, moqt.SessionCode.VERSION_NEGOTIATION_FAILED}
"""The codes that gomoqt's develop version has no number for: they go out as an internal error."""


@asynccontextmanager
async def two_sides(version, transport):
    """Yield two sessions with each other, the client's first."""
    if transport == "memory":
        async with session_pair(version) as sides:
            yield sides
        return
    accepted: list[moqt.Session] = []
    known = trio.Event()

    async def handler(request):
        async with request.accept() as session:
            accepted.append(session)
            known.set()
            await session.wait_closed()

    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, handler, "localhost", 0, certificate=CERTIFICATE, versions=[version])
        listener = await nursery.start(serve)
        url = f"{transport}://localhost:{listener.port}/"
        async with moqt.connect(url, versions=[version], fingerprint=CERTIFICATE.fingerprint) as client:
            await known.wait()
            yield client, accepted[0]
        nursery.cancel_scope.cancel()


async def both_ends(closer, other, code):
    closer.close(code, "enough")
    return await closer.wait_closed(), await other.wait_closed()


@TRANSPORTS
@pytest.mark.parametrize("version", ["gomoqt-develop", "moq-lite-06"])
@pytest.mark.parametrize("by_client", [True, False], ids=["client", "server"])
async def test_a_code_is_the_same_on_both_sides(version, transport, by_client):
    """Both sides get the code that was given to `close`, with its name; only one without a number becomes another."""
    for code in moqt.SessionCode:
        lost = version == "gomoqt-develop" and code in WITHOUT_A_NUMBER
        arrives = moqt.SessionCode.INTERNAL_ERROR if lost else code
        with trio.fail_after(5):
            async with two_sides(version, transport) as (client, server):
                closer, other = (client, server) if by_client else (server, client)
                mine, theirs = await both_ends(closer, other, code)
        assert (mine.by_peer, mine.local_code, mine.remote_code) == (False, code, None)
        assert (theirs.by_peer, theirs.local_code, theirs.remote_code) == (True, None, arrives)
        assert str(mine).endswith(f"closed by this side with code {code:#x} ({code.name}): enough")
        assert str(theirs).endswith(f"closed by the peer with code {arrives:#x} ({arrives.name}): enough")


@TRANSPORTS
async def test_a_code_of_the_application(transport):
    """A code from 64 on is no version's, and arrives as it is."""
    with trio.fail_after(5):
        async with two_sides("gomoqt-develop", transport) as sides:
            mine, theirs = await both_ends(*sides, 0x4321)
    assert mine.local_code == theirs.remote_code == 0x4321
