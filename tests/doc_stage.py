"""What the pieces of programs in the documentation take for granted: a session, a subscription, a router and so on.

The server, its sessions and its tracks are real ones. Ports are replaced by free ones, and paths of files by those of a
certificate that was made for the test.
"""

from __future__ import annotations

import ast
import base64
import inspect
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.config import Config

import moqt_trio

if TYPE_CHECKING:
    from pathlib import Path

LONGEST = 1.0
"""Seconds after which a piece that goes on for ever, such as a server, has shown that it runs."""


async def _app(scope: Any, receive: Any, send: Any) -> None:
    """An application of ASGI without a lifespan."""
    raise AssertionError(scope["type"])


async def _alice(request: moqt_trio.SessionRequest) -> None:
    """Publish two tracks, and end them once there was a subscriber; later ones get all of them, too."""
    broadcast = moqt_trio.Broadcast()
    tracks = [broadcast.track(name, delivery="reliable", max_age=600) for name in ("video", "chat")]

    async def write(track: moqt_trio.Track) -> None:
        await track.wait_subscribed()
        await track.write(b"a frame")
        track.finish()

    async with request.accept() as session, session.publish("room/alice", broadcast), trio.open_nursery() as nursery:
        for track in tracks:
            nursery.start_soon(write, track)
        await session.wait_closed()


@asynccontextmanager
async def stage() -> AsyncIterator[dict[str, Any]]:
    """Yield the names that a piece may use."""
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(moqt_trio.serve, _alice, "localhost", 0)
        url, fingerprint = listener.urls[1], listener.fingerprint
        # Certificates are the subject of a page of their own: elsewhere the right ones are trusted.
        trusting = partial(moqt_trio.stay_connected, fingerprint=fingerprint)
        names = {name: getattr(moqt_trio, name) for name in moqt_trio.__all__} | {"stay_connected": trusting}
        broadcast = moqt_trio.Broadcast()
        async with (
            moqt_trio.connect(url, fingerprint=fingerprint) as session,
            moqt_trio.connect(url, fingerprint=fingerprint) as downstream,
            session.subscribe("room/alice", "video") as subscription,
        ):
            yield {
                "moqt": SimpleNamespace(**names),
                "trio": trio,
                "base64": base64,
                "os": os,
                "partial": partial,
                "signal": signal,
                "sys": sys,
                "nursery": nursery,
                "router": moqt_trio.Router({}),
                "app": _app,
                "config": Config(),
                "url": url,
                "session": session,
                "upstream": session,
                "downstream": downstream,
                "subscription": subscription,
                "path": moqt_trio.BroadcastPath.parse("room/alice"),
                "broadcast": broadcast,
                "origin": moqt_trio.Origin(),
                "pointer": broadcast.track("pointer"),
                "frame": moqt_trio.Frame(b"a frame", 0),
                "handler": _return,
                "play": _play,
            }
        nursery.cancel_scope.cancel()


async def _return(session: moqt_trio.Session) -> None:
    """A handler of `stay_connected` that has nothing to do."""


async def _play(group: moqt_trio.GroupReader) -> None:
    await group.read_all()


def prepared(text: str, files: Path) -> str:
    """Returns a piece with free ports, and with the files of a test."""
    for port in ('"localhost", 4443', "None, 443"):
        text = text.replace(port, '"localhost", 0')
    return text.replace("/srv/cam/", f"{files}/")


async def run_piece(text: str, name: str, names: dict[str, Any]) -> None:
    """Run a piece, and then the async functions that it defines, as far as the stage has what they take."""
    known = set(names)
    code = compile(text, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with trio.move_on_after(LONGEST):
        result = eval(code, names)
        if result is not None:
            await result
    for function in [names[each] for each in names if each not in known and inspect.iscoroutinefunction(names[each])]:
        wanted = [each for each, how in inspect.signature(function).parameters.items() if how.default is how.empty]
        if not names.keys() >= set(wanted):
            continue
        with trio.move_on_after(LONGEST):
            await function(*[names[each] for each in wanted])
