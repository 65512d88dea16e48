"""An echo client made with the moq-rs package alone, which shares no line with this project.

Usage: `python moq_rs_echo_client.py URL FINGERPRINT_HEX COUNT`. It publishes the broadcast `japan/kyoto` with the
track `text`, one message to a group, finds the broadcast of the same path that the server publishes on the same
session, and reads its own messages back from it. A JSON line is printed for each echo and one for the summary. The
exit code is 0 only when every message came back as it was sent.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import sys
import time

import moq

PATH = "japan/kyoto"
TRACK = "text"
# moq-rs's default age of zero delivers the newest group only, and an echo has to be complete.
MAX_AGE_US = 60_000_000


def message(number: int, size: int) -> bytes:
    """Returns the payload of one message: recognisable at its start, incompressible after it."""
    head = f"message {number} ".encode()
    body = b"".join(hashlib.sha256(head + bytes([block])).digest() for block in range(256))
    return (head + body * (size // len(body) + 1))[: max(size, len(head))]


def report(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


async def publish(
    track: moq.TrackProducer, payloads: list[bytes], sent_at: dict[bytes, float], first_echo: asyncio.Event
) -> None:
    """Writes every payload as a group of its own: the first once the track has a subscriber, the others after its echo.

    A subscription starts at the newest group in the versions before moq-lite-06, and asking for the track's properties
    counts as demand: what is written before the first echo might be older than the subscription.
    """
    await track.demand().used()
    for number, payload in enumerate(payloads):
        if number == 1:
            await first_echo.wait()
        sent_at[payload] = time.perf_counter()
        group = track.append_group()
        group.write_frame(payload)
        group.finish()


async def read_back(
    remote: moq.OriginProducer, payloads: list[bytes], sent_at: dict[bytes, float], first_echo: asyncio.Event
) -> int:
    """Reads the echoes until each payload came back once, and returns how many did."""
    broadcast = await remote.consume().announced_broadcast(PATH)
    report(event="announced", path=PATH)
    wanted = set(payloads)
    async with await broadcast.subscribe_track(TRACK, moq.Subscription(max_age_us=MAX_AGE_US)) as track:
        async for group in track.groups_as_arrived():
            async for frame in group:
                if frame.payload not in wanted:
                    raise ValueError(f"a frame that was not sent, or came twice: {frame.payload[:40]!r}")
                wanted.remove(frame.payload)
                first_echo.set()
                report(
                    event="echo",
                    group=group.sequence,
                    bytes=len(frame.payload),
                    milliseconds=round((time.perf_counter() - sent_at[frame.payload]) * 1000, 3),
                )
            if not wanted:
                break
    return len(payloads) - len(wanted)


async def run(url: str, fingerprint: str, count: int, size: int) -> int:
    """Echoes `count` messages and returns how many came back."""
    # With one origin for both directions moq-rs would find its own broadcast without asking the server.
    local, remote = moq.OriginProducer(), moq.OriginProducer()
    payloads = [message(number, size) for number in range(count)]
    sent_at: dict[bytes, float] = {}
    first_echo = asyncio.Event()
    async with moq.Client(
        url,
        tls_fingerprints=[fingerprint],
        websocket_enabled=False,
        reconnect=False,
        publish=local,
        subscribe=remote,
    ) as client:
        broadcast = local.create_broadcast(PATH)
        track = broadcast.publish_track(TRACK, moq.TrackInfo(max_age_us=MAX_AGE_US))
        broadcast.announce()
        writer = asyncio.create_task(publish(track, payloads, sent_at, first_echo))
        try:
            return await read_back(remote, payloads, sent_at, first_echo)
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            broadcast.close()
            # Leaving the block starts the close; a process that ends at once would often not send it.
            session = client.session
            assert session is not None
            session.shutdown()
            with contextlib.suppress(moq.Error):
                await session.closed()


def main() -> int:
    """Runs the client and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("fingerprint", help="SHA-256 of the server's certificate, in hexadecimal")
    parser.add_argument("count", type=int)
    parser.add_argument("--size", type=int, default=0, help="bytes of each message")
    parser.add_argument("--timeout", type=float, default=20, help="seconds for the whole run")
    parser.add_argument("--log-level", help="what moq-rs logs to standard error")
    arguments = parser.parse_args()
    if arguments.log_level:
        moq.log_level(arguments.log_level)
    echoed = 0
    try:
        echoed = asyncio.run(
            asyncio.wait_for(
                run(arguments.url, arguments.fingerprint, arguments.count, arguments.size), arguments.timeout
            )
        )
    except Exception as error:
        report(event="error", kind=type(error).__name__, text=str(error))
    report(event="summary", sent=arguments.count, echoed=echoed)
    return 0 if echoed == arguments.count else 1


if __name__ == "__main__":
    sys.exit(main())
