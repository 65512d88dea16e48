"""A server of several workers, for tests: `python -m tests.workers.program '{"count": 3}'`.

Each client is shown a broadcast whose track `who` says which worker it has. Each worker prints a line of JSON once it
serves.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial
from typing import Any

import trio

import moqt_trio as moqt
from moqt_trio.workers import supervisor

OPTIONS: dict[str, Any] = {
    "count": 3,
    "host": "127.0.0.1",
    "port": 0,
    "grace": 1.0,
    "limits": {},
    "steered": True,
    "link": False,
    "late": False,
    "app": False,
    "fails": "",
    "pass_on": [],
}


def tell(event: str, **values: object) -> None:
    # One write: print may take two, and the lines of two workers would mix.
    os.write(sys.stdout.fileno(), f"{json.dumps({'event': event, **values})}\n".encode())


async def serve(worker: moqt.Worker, options: dict[str, Any]) -> None:
    if options["fails"] == "start":
        raise OSError("the disk is gone")
    if options["fails"] == "bug":
        raise TypeError("a bug")
    origin = moqt.Origin()
    counted: list[moqt.Listener] = []

    async def who(request: moqt.SessionRequest) -> None:
        broadcast = moqt.Broadcast()
        retried = counted[0].statistics().retried
        await broadcast.track("who").write(f"{worker.index} {os.getpid()} {retried}".encode())
        async with request.accept() as session, session.publish("worker", broadcast):
            await session.wait_closed()

    async def relay(request: moqt.SessionRequest) -> None:
        async with request.accept(view=origin.view()) as session:
            await session.wait_closed()

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": f"{worker.index}".encode()})

    async with origin.publish(f"worker/{worker.index}", moqt.Broadcast()), trio.open_nursery() as nursery:
        if options["link"]:
            if options["late"] and worker.index < worker.count - 1:
                # The links of the later workers begin first.
                nursery.start_soon(link_later, worker, origin)
            else:
                nursery.start_soon(moqt.link_workers, worker, origin)
        router = moqt.Router({"/": who}, fallback=relay, default="/")
        listener = await nursery.start(
            partial(
                moqt.serve,
                worker=worker,
                hop_id=origin.hop_id,
                limits=moqt.Limits(**options["limits"]),
                app=app if options["app"] else None,
            ),
            router,
        )
        counted.append(listener)
        tell("serving", index=worker.index, pid=os.getpid(), port=listener.port, fingerprint=listener.fingerprint)
        for number in options["pass_on"]:
            with trio.open_signal_receiver(signal.Signals[number]) as signals:
                await anext(signals)
                tell("passed", index=worker.index)
        if options["fails"] == "later":
            raise ValueError("it breaks when it serves")
        if options["fails"] == "returns" and worker.index == 1:
            nursery.cancel_scope.cancel()


async def link_later(worker: moqt.Worker, origin: moqt.Origin) -> None:
    await trio.sleep(1.5)
    await moqt.link_workers(worker, origin)


def main(options: dict[str, Any]) -> None:
    if not options["steered"]:
        supervisor.steer = lambda sock, count: None
    try:
        ended_by = moqt.run_workers(
            options["count"],
            partial(serve, options=options),
            options["host"],
            options["port"],
            grace=options["grace"],
            pass_on=[signal.Signals[name] for name in options["pass_on"]],
        )
    except (moqt.MoqtError, OSError, ValueError, TypeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    tell("ended", by=ended_by.name if ended_by is not None else None)


if __name__ == "__main__":
    main({**OPTIONS, **json.loads(sys.argv[1])})
