"""A client that subscribes and cancels as fast as it can, beside one that measures round trips.

The server, the client that measures and the one that disturbs are a process each. It imports public names only.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import trio

from .children import child
from .library import connected
from .workloads import add_child_options, say, until_stdin_ends

if TYPE_CHECKING:
    import moqt_trio as moqt

TASKS = 64
LIBRARY = "bench.library"
SECONDS = 4.0


async def disturb(port: int, fingerprint: str) -> None:
    """Subscribe and cancel until standard input ends; report when it has begun."""

    async def subscribe_and_cancel(session: moqt.Session) -> None:
        while True:
            async with session.subscribe("pong", "pong"):
                await trio.lowlevel.checkpoint()

    async with connected("moqt", port, fingerprint) as session, trio.open_nursery() as nursery:
        for _ in range(TASKS):
            nursery.start_soon(subscribe_and_cancel, session)
        say(begun=True)
        await until_stdin_ends()
        nursery.cancel_scope.cancel()


def round_trip_p99() -> tuple[float, float]:
    """Return the p99 of a round trip in µs, alone and beside the client that disturbs. Raises `ChildFailed`."""
    with child(LIBRARY, "publish", "pingpong") as server:
        hello = server.read_report()
        where = ["--port", str(hello["port"]), "--fingerprint", str(hello["fingerprint"])]
        measure = ["subscribe", "pingpong", *where, "--duration", str(SECONDS)]
        with child(LIBRARY, *measure) as client:
            alone = client.read_report()
        with child("bench.churn", *where) as disturbing:
            disturbing.read_report()
            with child(LIBRARY, *measure) as client:
                beside = client.read_report()
    return float(alone["p99"]), float(beside["p99"])


def main() -> None:
    """Disturb a server."""
    parser = argparse.ArgumentParser(prog="python -m bench.churn", description="Subscribe and cancel.")
    add_child_options(parser)
    arguments = parser.parse_args()
    trio.run(disturb, arguments.port, arguments.fingerprint)


if __name__ == "__main__":
    main()
