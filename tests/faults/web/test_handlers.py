"""Handlers and applications that fail beside others on one connection: each failure stays where it happened.

What a handler does to the session of a client of its own is in `faults/api/test_handlers.py`, over both transports.
"""

from __future__ import annotations

from functools import partial

import pytest
import trio

import moqt_trio as moqt
from tests.http.serving import CERTIFICATE
from tests.peers.aioquic_http3 import connect_http3

OFFER = ((b"wt-available-protocols", b'"moq-lite-06"'),)
INTERNAL_ERROR = moqt.SessionCode.INTERNAL_ERROR


class AppError(Exception):
    """An application's own failure."""


async def stays(request):
    async with request.accept() as session:
        await session.wait_closed()


async def raises(request):
    async with request.accept():
        raise AppError("within the session")


async def raises_first(request):
    raise AppError("before an answer")


async def answers_not(request):
    """Return without an answer."""


async def returns(request):
    async with request.accept():
        return


async def cancels_itself(request):
    with trio.CancelScope() as scope:
        async with request.accept():
            scope.cancel()
            await trio.sleep_forever()


async def cancels_first(request):
    with trio.CancelScope() as scope:
        scope.cancel()
        await trio.sleep_forever()


async def rejects(request):
    await request.reject(409)


class Application:
    """An ASGI application: one path waits, the others fail in a way of their own."""

    def __init__(self):
        self.waiting = trio.Event()
        self.resume = trio.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return
        if scope["path"] == "/wait":
            self.waiting.set()
            await self.resume.wait()
        elif scope["path"] == "/raise":
            raise AppError("in a request")
        elif scope["path"] == "/nothing":
            return
        elif scope["path"] == "/half":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise AppError("in mid-answer")
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


@pytest.mark.parametrize(
    ("handler", "status", "code"),
    [
        (raises, 200, INTERNAL_ERROR),
        (returns, 200, 0),
        (cancels_itself, 200, 0),
        (raises_first, 500, None),
        (answers_not, 500, None),
        (cancels_first, 500, None),
        (rejects, 409, None),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_beside_others_on_one_connection(handler, status, code, caplog):
    """A handler that fails, returns or is cancelled ends its own session with the code that fits, or is a status; the
    other session and the request in flight on the same connection, and a fresh client, notice nothing."""
    application = Application()
    router = moqt.Router({"/": stays, "/faulty": handler})
    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, router, "localhost", 0, certificate=CERTIFICATE, app=application)
        listener = await nursery.start(serve)
        async with connect_http3(listener.port) as peer:
            neighbour = peer.connect("/", headers=OFFER)
            assert await peer.status(neighbour) == 200
            waiting = peer.request("/wait")
            await application.waiting.wait()
            for _ in range(3):
                session = peer.connect("/faulty", headers=OFFER)
                assert await peer.status(session) == status
                await peer.wait(lambda session=session: peer.ended(session))
                if code is not None:
                    ((kind, value),) = peer.capsules(session)
                    assert (kind, int.from_bytes(value[:4], "big")) == (0x2843, code)
            for path, wanted in (("/raise", 500), ("/nothing", 500)):
                assert await peer.status(peer.request(path)) == wanted
            half = peer.request("/half")
            assert await peer.wait(lambda: peer.reset_code(half)) == 0x102
            application.resume.set()
            assert (await peer.answer(waiting))[0] == 204
            assert not peer.ended(neighbour)
            assert listener.statistics().sessions == 1
            async with moqt.connect(f"https://localhost:{listener.port}/", fingerprint=CERTIFICATE.fingerprint) as own:
                assert own.closed is None
        nursery.cancel_scope.cancel()
    failures = [record for record in caplog.records if record.exc_info and record.name.startswith("moqt_trio")]
    # Each is logged once, those of the two requests among them.
    assert len(failures) == 2 + (3 if handler.__name__.startswith("raises") else 0)
