"""A process of the moq-rs package that takes commands from a test: client and server, publisher and subscriber.

Usage: `python moq_rs_agent.py`. It listens on one UDP port for `https://` (WebTransport) and `moqt://` (raw QUIC), and
connects on command. It shares no line with this project. It ends when its standard input does.

Each event is a JSON line `{"event": …}` on standard output, first `{"event": "listening", "port": …,
"fingerprint": …}`; then, for each session that is there, `{"event": "session", "number": …, "path": …}`, and `closed`
with this number when it is over; the path is what a client asked for, if it could say.

Each command is a JSON line `{"do": …}` on standard input. `{"do": "connect", "url": …, "fingerprint": …}` makes it a
client; a client that connects makes it a server. All other commands, and their events, carry the number of a session
as `session`. Commands that take no time are done in the order of the lines.

| `do` | what happens | events |
|---|---|---|
| `publish` `path` `track` | announces a broadcast with one track | `published` |
| `write` `path` `sequence` `frames` | a whole group; the frames are hexadecimal | |
| `begin` `path` `sequence` `frames` | a group that is never finished | |
| `finish` `path` | the track ends | |
| `demand` `path` `wanted` | waits until the track has a subscriber (true) or none (false) | `used` or `unused` |
| `unannounce` `path` | the broadcast is closed | `unannounced` |
| `refuse` `path` `code` | announces a broadcast that refuses every track with this code | `refused` |
| `settle` | nothing: the commands before it are done | `settled` |
| `discover` `prefix` | watches what the peer announces | `announced` with `path`, `active` |
| `discover` … `hidden` | watches hidden paths, too | the same |
| `subscribe` `path` `track` `max_age` | reads a track | `subscribed`, `opened`, `group`, `end` or `failed` |
| | a group that fails alone is reported, and the subscription goes on | `incomplete` |
| `subscribe` … `start` `end` | reads its groups from `start` to before `end` | the same |
| `cancel` `path` `track` | cancels this subscription | `cancelled` |
| `fetch` `path` `track` `sequence` | reads one group | `fetched` or `failed` |

Each session has origins of its own: nothing passes from one to the other.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine
from typing import Any

import moq

CACHED_US = 60_000_000


def report(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def describe(error: moq.Error) -> dict[str, object]:
    """Returns the peer's error code and text, or moq-rs's own error."""
    protocol = moq.protocol_error(error)
    if protocol is None:
        return {"code": None, "text": f"{type(error).__name__}: {error}"}
    return {"code": protocol.code, "scope": protocol.scope.name, "text": protocol.message}


class Link:
    """One session, what is published on it and what is read from it."""

    def __init__(self) -> None:
        self.number = 0
        self.outgoing, self.incoming = moq.OriginProducer(), moq.OriginProducer()
        self._broadcasts: dict[str, moq.BroadcastProducer] = {}
        self._tracks: dict[str, moq.TrackProducer] = {}
        self._groups: list[moq.GroupProducer] = []
        self._refusing: list[moq.BroadcastDynamic] = []
        self._subscriptions: dict[tuple[str, str], moq.TrackConsumer] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def _report(self, **fields: object) -> None:
        report(session=self.number, **fields)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Ends the tasks of this session, and releases what it publishes."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for broadcast in self._broadcasts.values():
            broadcast.close()

    def settle(self) -> None:
        self._report(event="settled")

    # -- as a publisher ------------------------------------------------------------------------------------

    def publish(self, path: str, track: str) -> None:
        broadcast = self._broadcasts[path] = self.outgoing.create_broadcast(path)
        self._tracks[path] = broadcast.publish_track(track, moq.TrackInfo(max_age_us=CACHED_US))
        broadcast.announce()
        self._report(event="published", path=path)

    async def demand(self, path: str, wanted: bool) -> None:
        demand = self._tracks[path].demand()
        await (demand.used() if wanted else demand.unused())
        self._report(event="used" if wanted else "unused", path=path)

    def begin(self, path: str, sequence: int, frames: list[str]) -> moq.GroupProducer:
        group = self._tracks[path].create_group(sequence)
        # moq-rs drops a group that is not referenced.
        self._groups.append(group)
        for index, frame in enumerate(frames):
            group.write_frame(bytes.fromhex(frame), timestamp_us=(sequence * 100 + index) * 1000)
        return group

    def write(self, path: str, sequence: int, frames: list[str]) -> None:
        self.begin(path, sequence, frames).finish()

    def finish(self, path: str) -> None:
        self._tracks[path].finish()

    def unannounce(self, path: str) -> None:
        self._broadcasts.pop(path).close()
        self._report(event="unannounced", path=path)

    def refuse(self, path: str, code: int) -> None:
        broadcast = self._broadcasts[path] = self.outgoing.create_broadcast(path)
        dynamic = broadcast.dynamic()
        self._refusing.append(dynamic)
        broadcast.announce()
        self.start(self._refuse_each(path, dynamic, code))

    async def _refuse_each(self, path: str, dynamic: moq.BroadcastDynamic, code: int) -> None:
        while True:
            request = await dynamic.requested_track()
            self._report(event="refused", path=path, track=request.name)
            request.abort(code)

    # -- as a subscriber -----------------------------------------------------------------------------------

    async def discover(self, prefix: str, hidden: bool = False) -> None:
        async for update in self.incoming.consume().announced(prefix, hidden=hidden):
            self._report(event="announced", path=update.prefix, active=update.active)

    async def subscribe(
        self, path: str, track: str, max_age: float, start: int | None = None, end: int | None = None
    ) -> None:
        wanted = moq.Subscription(max_age_us=round(max_age * 1_000_000), group_start=start, group_end=end)
        where = {"path": path, "track": track}
        try:
            broadcast = await self.incoming.consume().announced_broadcast(path)
            async with await broadcast.subscribe_track(track, wanted) as reader:
                self._subscriptions[path, track] = reader
                self._report(event="subscribed", **where)
                async for group in reader.groups_as_arrived():
                    self._report(event="opened", **where, sequence=group.sequence)
                    try:
                        frames = [frame.payload.hex() async for frame in group]
                    except moq.Error as error:
                        # A group that is reset ends alone: the subscription goes on with the next one.
                        if describe(error).get("scope") != "STREAM":
                            raise
                        self._report(event="incomplete", **where, sequence=group.sequence, **describe(error))
                    else:
                        self._report(event="group", **where, sequence=group.sequence, frames=frames)
            self._report(event="end", **where)
        except moq.Error as error:
            self._report(event="failed", **where, **describe(error))

    def cancel(self, path: str, track: str) -> None:
        self._subscriptions.pop((path, track)).cancel()
        self._report(event="cancelled", path=path, track=track)

    async def fetch(self, path: str, track: str, sequence: int) -> None:
        where = {"path": path, "track": track, "sequence": sequence}
        try:
            broadcast = await self.incoming.consume().announced_broadcast(path)
            group = await broadcast.fetch_group(track, sequence)
            self._report(event="fetched", **where, frames=[frame.payload.hex() async for frame in group])
        except moq.Error as error:
            self._report(event="failed", **where, **describe(error))


class Agent:
    """All sessions."""

    def __init__(self) -> None:
        self._links: dict[int, Link] = {}
        self._sessions = 0

    async def accept(self, server: moq.Server) -> None:
        """Accepts every client."""
        async with asyncio.TaskGroup() as sessions:
            async for request in server:
                sessions.create_task(self._serve(request))

    async def _serve(self, request: moq.Request) -> None:
        link = Link()
        request.set_publish(link.outgoing)
        request.set_consume(link.incoming)
        path = request.path
        await self._live(link, await request.accept(), path)

    async def connect(self, url: str, fingerprint: str) -> None:
        """Becomes a client, and stays one until the server closes."""
        link = Link()
        client = moq.Client(
            url,
            tls_fingerprints=[fingerprint],
            websocket_enabled=False,
            reconnect=False,
            publish=link.outgoing,
            subscribe=link.incoming,
        )
        try:
            async with client:
                assert client.session is not None
                await self._live(link, client.session, None)
        except moq.Error as error:
            report(event="unconnected", **describe(error))

    async def _live(self, link: Link, session: moq.Session, path: str | None) -> None:
        self._sessions += 1
        link.number = self._sessions
        self._links[link.number] = link
        report(event="session", number=link.number, path=path)
        try:
            await session.closed()
            how: dict[str, object] = {"code": 0}
        except moq.Error as error:
            how = describe(error)
        del self._links[link.number]
        await link.close()
        report(event="closed", number=link.number, **how)

    def execute(self, do: str, session: int, **arguments: Any) -> None:
        """Executes one command; what takes long goes on in the background."""
        # The session may have ended meanwhile.
        if (link := self._links.get(session)) is not None:
            result = getattr(link, do)(**arguments)
            if asyncio.iscoroutine(result):
                link.start(result)


async def run() -> None:
    """Serves and executes commands until standard input ends."""
    agent = Agent()
    nowhere = moq.OriginProducer()
    async with moq.Server("127.0.0.1:0", tls_generate=["localhost"], publish=nowhere, subscribe=nowhere) as server:
        background = [asyncio.create_task(agent.accept(server))]
        port = int(server.local_addr.rpartition(":")[2])
        report(event="listening", port=port, fingerprint=server.cert_fingerprints()[0])
        while line := await asyncio.to_thread(sys.stdin.readline):
            command = json.loads(line)
            if command["do"] == "connect":
                background.append(asyncio.create_task(agent.connect(command["url"], command["fingerprint"])))
            else:
                agent.execute(**command)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(run())
