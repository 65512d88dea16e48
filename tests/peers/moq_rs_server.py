"""A server made with the moq-rs package alone: a relay, a publisher and a subscriber. It shares no line with us.

Usage: `python moq_rs_server.py [options]`. Everything it says is a JSON line on standard output, first
`{"event": "listening", "port": …, "fingerprint": …}`. One UDP port takes `https://` (WebTransport) and `moqt://` (raw
QUIC). It runs until its standard input ends.

What it serves, on one origin shared by all sessions, so that one client sees what another publishes:

- the broadcast `peer/known` with the track `data`: GROUPS groups of FRAMES frames, each as `known_payload` says; with
  `--finish` the track ends after them;
- with `--ending`, a broadcast `peer/ending` that is announced, and retracted at the line `end` on standard input;
- with `--refuse`, a broadcast `peer/refusing` of which every track is refused with the code given.

With `--read PATH TRACK`, it subscribes to that track of what a client publishes, and prints each group as
`{"event": "group", "sequence": …, "frames": [hex, …]}`. With `--echo` it is an echo server instead: each session has
origins of its own, and the track `text` of `japan/kyoto` is sent back on the session that published it.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys

import moq

KNOWN_PATH, KNOWN_TRACK = "peer/known", "data"
ECHO_PATH, ECHO_TRACK = "japan/kyoto", "text"
# moq-rs's default age of zero delivers the newest group only.
MAX_AGE_US = 60_000_000


def known_payload(group: int, frame: int) -> bytes:
    """Returns the bytes of one frame of `peer/known`: the SHA-256 of "GROUP/FRAME", cut or repeated to its length.

    The length is `(group * 37 + frame * frame * 4111) % 50000`: some frames are empty, and some span many packets.
    """
    size = (group * 37 + frame * frame * 4111) % 50_000
    digest = hashlib.sha256(f"{group}/{frame}".encode()).digest()
    return (digest * (size // len(digest) + 1))[:size]


def report(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def describe(error: moq.Error) -> str:
    """Returns the text of a peer's error."""
    protocol = moq.protocol_error(error)
    if protocol is None:
        return f"{type(error).__name__}: {error}"
    return f"{protocol.scope.name} {protocol.code}: {protocol.message}"


def publish_known(origin: moq.OriginProducer, groups: int, frames: int, finish: bool) -> list[object]:
    """Publishes `peer/known`, and returns what must stay referenced to keep it published."""
    broadcast = origin.create_broadcast(KNOWN_PATH)
    track = broadcast.publish_track(KNOWN_TRACK, moq.TrackInfo(max_age_us=MAX_AGE_US))
    for sequence in range(groups):
        group = track.create_group(sequence)
        for index in range(frames):
            group.write_frame(known_payload(sequence, index), timestamp_us=(sequence * frames + index) * 1000)
        group.finish()
    if finish:
        track.finish()
    broadcast.announce()
    return [broadcast, track]


async def refuse_tracks(dynamic: moq.BroadcastDynamic, code: int) -> None:
    """Refuses every track that is asked for."""
    while True:
        request = await dynamic.requested_track()
        report(event="refused", track=request.name)
        request.abort(code)


async def read_track(origin: moq.OriginProducer, path: str, name: str) -> None:
    """Prints what a client publishes, group by group in the order of their arrival."""
    broadcast = await origin.consume().announced_broadcast(path)
    report(event="announced", path=path)
    try:
        async with await broadcast.subscribe_track(name, moq.Subscription(max_age_us=MAX_AGE_US)) as track:
            report(event="subscribed", path=path, track=name)
            async for group in track.groups_as_arrived():
                frames = [frame.payload.hex() async for frame in group]
                report(event="group", sequence=group.sequence, frames=frames)
        report(event="end", path=path, track=name)
    except moq.Error as error:
        report(event="error", path=path, track=name, text=describe(error))


async def echo(incoming: moq.OriginProducer, outgoing: moq.OriginProducer) -> None:
    """Publishes what one session publishes back to it."""
    source = await incoming.consume().announced_broadcast(ECHO_PATH)
    broadcast = outgoing.create_broadcast(ECHO_PATH)
    track = broadcast.publish_track(ECHO_TRACK, moq.TrackInfo(max_age_us=MAX_AGE_US))
    broadcast.announce()
    async with await source.subscribe_track(ECHO_TRACK, moq.Subscription(max_age_us=MAX_AGE_US)) as messages:
        async for group in messages.groups_as_arrived():
            copy = track.create_group(group.sequence)
            async for frame in group:
                copy.write_frame(frame.payload, frame.timestamp_us)
            copy.finish()


async def serve_session(request: moq.Request, echoing: bool) -> None:
    """Accepts one session and lives as long as it does."""
    path, url = request.path, request.url
    echo_task: asyncio.Task[None] | None = None
    if echoing:
        incoming, outgoing = moq.OriginProducer(), moq.OriginProducer()
        request.set_consume(incoming)
        request.set_publish(outgoing)
        echo_task = asyncio.create_task(echo(incoming, outgoing))
    try:
        session = await request.accept()
        report(event="session", path=path, url=url)
        await session.closed()
    except moq.Error as error:
        report(event="closed", path=path, text=describe(error))
    finally:
        if echo_task is not None:
            echo_task.cancel()
            await asyncio.gather(echo_task, return_exceptions=True)


async def accept_sessions(server: moq.Server, echoing: bool) -> None:
    """Accepts sessions until cancelled."""
    async with asyncio.TaskGroup() as sessions:
        async for request in server:
            sessions.create_task(serve_session(request, echoing))


async def run(arguments: argparse.Namespace) -> None:
    """Serves until standard input ends."""
    origin = moq.OriginProducer()
    async with moq.Server(arguments.bind, tls_generate=["localhost"], publish=origin, subscribe=origin) as server:
        kept = publish_known(origin, arguments.groups, arguments.frames, arguments.finish)
        tasks = [asyncio.create_task(accept_sessions(server, arguments.echo))]
        ending: moq.BroadcastProducer | None = None
        if arguments.ending:
            ending = origin.create_broadcast("peer/ending")
            kept.append(ending.publish_track("data"))
            ending.announce()
        if arguments.refuse is not None:
            refusing = origin.create_broadcast("peer/refusing")
            dynamic = refusing.dynamic()
            refusing.announce()
            kept += [refusing, dynamic]
            tasks.append(asyncio.create_task(refuse_tracks(dynamic, arguments.refuse)))
        if arguments.read:
            tasks.append(asyncio.create_task(read_track(origin, *arguments.read)))
        port = int(server.local_addr.rpartition(":")[2])
        report(event="listening", port=port, fingerprint=server.cert_fingerprints()[0])
        while line := await asyncio.to_thread(sys.stdin.readline):
            if line.strip() == "end" and ending is not None:
                ending.close()
                report(event="ended", path="peer/ending")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        kept.clear()


def main() -> None:
    """Runs the server."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bind", default="127.0.0.1:0", help="address and port")
    parser.add_argument("--groups", type=int, default=5, help="groups of peer/known")
    parser.add_argument("--frames", type=int, default=4, help="frames in each group of peer/known")
    parser.add_argument("--finish", action="store_true", help="end the track of peer/known after its groups")
    parser.add_argument("--read", nargs=2, metavar=("PATH", "TRACK"), help="print what a client publishes there")
    parser.add_argument("--ending", action="store_true", help="publish peer/ending")
    parser.add_argument("--refuse", type=int, metavar="CODE", help="publish peer/refusing")
    parser.add_argument("--echo", action="store_true", help="be an echo server")
    parser.add_argument("--log-level", help="what moq-rs logs to standard error")
    arguments = parser.parse_args()
    if arguments.log_level:
        moq.log_level(arguments.log_level)
    asyncio.run(run(arguments))


if __name__ == "__main__":
    main()
