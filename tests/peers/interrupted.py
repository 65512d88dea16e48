"""A client or a server that is interrupted (Ctrl-C) within the library, at one place after another.

`interrupted.py connect URL FINGERPRINT STEPS`, or `stay_connected` in place of `connect`, opens one session after
another, reads three groups on each, and leaves. The first is not interrupted: its calls into the library are counted,
from the first group to the end. In the others SIGINT arrives at one of as many steps of the fewest calls that a session
needed so far, spread evenly.

`interrupted.py server STEPS` runs one server after another, which publishes on its first session until SIGINT arrives,
each time some calls of the library later.

Both print a JSON line for each run that has ended, and the server one when it listens.
"""

from __future__ import annotations

import dis
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import cache, partial
from typing import TYPE_CHECKING

import aioquic
import trio

import moqt_trio as moqt

if TYPE_CHECKING:
    from types import CodeType, FrameType

GROUPS = 3
SERVER_STEP = 37
"""Calls of the library from one place at which the server is interrupted to the next: about half a frame's."""
PLACES = tuple(os.path.dirname(str(module.__file__)) + os.sep for module in (moqt, aioquic))


@cache
def entry(code: CodeType) -> int:
    """Return where a function begins to run."""
    return next(each.offset for each in dis.get_instructions(code) if each.opname == "RESUME")


def resumed(frame: FrameType) -> bool:
    """Return whether this call goes on with a coroutine or a generator.

    CPython handles no signal there: what it awaits goes on at once, and would never get the exception of a profiler.
    """
    return frame.f_lasti > entry(frame.f_code)


class Trap:
    """Counts the calls of functions of the library and of its QUIC engine, and raises SIGINT at one of them."""

    def __init__(self, number: int) -> None:
        self.calls = 0
        self.where = ""
        self._number = number

    def set(self) -> None:
        sys.setprofile(self._profile)

    def _profile(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PLACES) and not resumed(frame):
            self.calls += 1
            if self.calls == self._number:
                sys.setprofile(None)
                self.where = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_code.co_name}"
                signal.raise_signal(signal.SIGINT)


def tell(event: str, **values: object) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


async def read(session: moqt.Session, trap: Trap) -> bool:
    async with session.announcements() as announcements:
        await anext(announcements)
    async with session.subscribe("a", "t") as subscription:
        await (await anext(subscription)).read_all()
        trap.set()
        for _ in range(GROUPS):
            await (await anext(subscription)).read_all()
    return True


async def connect(url: str, fingerprint: str, trap: Trap) -> None:
    async with moqt.connect(url, fingerprint=fingerprint) as session:
        await read(session, trap)


async def stay_connected(url: str, fingerprint: str, trap: Trap) -> None:
    await moqt.stay_connected(url, lambda session: read(session, trap), fingerprint=fingerprint)


async def serve(trap: Trap) -> None:
    async def handle(request: moqt.SessionRequest) -> None:
        broadcast = moqt.Broadcast()
        track = broadcast.track("t")
        async with request.accept() as session, session.publish("a", broadcast):
            await track.wait_subscribed()
            trap.set()
            while True:
                await track.write(bytes(3000))

    router = moqt.Router({"/x": handle}, default="/x")
    try:
        async with trio.open_nursery() as nursery:
            listener = await nursery.start(partial(moqt.serve, router, "localhost", 0))
            tell("listening", port=listener.port, fingerprint=listener.fingerprint)
    except* KeyboardInterrupt:
        # The nursery is the application's own, and raises groups.
        raise KeyboardInterrupt from None


def run(program: Callable[[Trap], Awaitable[None]], number: int) -> int:
    """Run a program, and print how it ended; return the calls of the library."""
    trap = Trap(number)
    ended = "clean"
    try:
        trio.run(program, trap)
    except BaseException as error:
        ended = repr(error)
    finally:
        sys.setprofile(None)
    tell("ended", how=ended, where=trap.where, calls=trap.calls)
    return trap.calls


def main(role: str, *arguments: str) -> None:
    steps = int(arguments[-1])
    if role == "server":
        for step in range(steps):
            run(serve, 1 + step * SERVER_STEP)
        return
    program = partial(connect if role == "connect" else stay_connected, *arguments[:2])
    least = run(program, 0)
    for step in range(steps):
        number = 1 + step * least // steps
        calls = run(program, number)
        if calls < number:
            # A session that got more at a time was over before its place.
            least = calls


main(*sys.argv[1:])
