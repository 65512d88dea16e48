"""A relay as a program: the lines of docs/howto/relay.md, with the signals of docs/howto/deploying.md.

`python -m tests.faults.relay_program GRACE` prints its port as JSON, and the origin's numbers at its end.
"""

from __future__ import annotations

import gc
import json
import signal
import sys
from functools import partial

import attrs
import trio

import moqt_trio as moqt


async def main(grace: float) -> None:
    """Relay until SIGTERM or SIGINT, and then for as long as clients take to leave."""
    origin = moqt.Origin()

    async def relay(request: moqt.SessionRequest) -> None:
        async with request.accept(view=origin.view(request.path)) as session:
            await session.wait_closed()

    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            router = moqt.Router(fallback=relay, default="/")
            serve = partial(moqt.serve, router, "127.0.0.1", 0, hop_id=origin.hop_id)
            listener = await nursery.start(serve)
            print(json.dumps({"event": "ready", "port": listener.port}), flush=True)
            async for _ in signals:
                break
            await listener.aclose(grace)
            nursery.cancel_scope.cancel()
    # Groups count until their track is freed.
    gc.collect()
    print(json.dumps({"event": "left", **attrs.asdict(origin.statistics())}), flush=True)


if __name__ == "__main__":
    trio.run(main, float(sys.argv[1]))
