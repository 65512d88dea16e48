"""A relay: its sessions share one origin.

Usage: `python -m tests.peers.relay_server`. It listens on a free UDP port of 127.0.0.1 for WebTransport and raw QUIC,
with every version, and prints `{"event": "listening", "port": …, "fingerprint": …}`. It ends when its standard input
does.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from functools import partial

import trio

import moqt_trio as moqt


async def serve() -> None:
    """Listen until standard input ends."""
    origin = moqt.Origin()

    async def relay(request: moqt.SessionRequest) -> None:
        async with request.accept(view=origin.view(request.path)) as session:
            await session.wait_closed()

    async with trio.open_nursery() as nursery:
        versions = moqt.version_names(opt_in=True)
        router = moqt.Router(fallback=relay, default="/")
        options = {"versions": versions, "hop_id": origin.hop_id}
        listener = await nursery.start(partial(moqt.serve, router, "127.0.0.1", 0, **options))
        about = {"event": "listening", "port": listener.port, "fingerprint": listener.fingerprint}
        print(json.dumps(about), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        await listener.aclose(grace=0)


def main() -> None:
    """Run the relay."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--log-level", default="info")
    arguments = parser.parse_args()
    logging.basicConfig(level=arguments.log_level.upper(), format="%(relativeCreated)d %(name)s: %(message)s")
    trio.run(serve)


if __name__ == "__main__":
    main()
