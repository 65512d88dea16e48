"""A process of the aiomoqt package that takes commands from a test: a client, publisher and subscriber.

Usage, with a Python that has aiomoqt: `python aiomoqt_agent.py`. It shares no line with this project. It ends when its
standard input does.

Each command is a JSON line `{"do": …}` on standard input, each event a JSON line `{"event": …}` on standard output. A
command that was carried out is answered by `did`, with its name as `do`, and one that failed by `failed`, with `text`.
They are carried out one after the other. `connect` starts a session, `close` ends it; there is one at a time, and
`session` and `closed` are its events. Groups, subgroups and objects have their numbers, payloads are hexadecimal.

As a publisher, of subscriptions that the peer makes (event `requested` with `path` and `track`):

| `do` | what happens |
|---|---|
| `announce` `path`, `withdraw` `path` | PUBLISH_NAMESPACE, and its end |
| `serve` `path` `track` | accepts each SUBSCRIBE of this track from now on; others are refused |
| `open` `stream` `track` `group` `subgroup` | opens a stream, which the commands below name; also `priority`, |
| | `properties` (whether objects have them) and `first` (whether it begins with the subgroup's first object) |
| `object` `stream` `id` `payload` | writes an object; also `properties`, and `status` for one without a payload |
| `fin` `stream`, `reset` `stream` | ends a stream |
| `datagram` `track` `group` `id` `payload` | sends an object as a datagram; also `properties`, `last`, `priority` |
| `offer` `path` `track` | PUBLISH, which sends nothing before the peer wants it: `forward` with `track` and `value` |
| `finish` `track` | PUBLISH_DONE with TRACK_ENDED, and the number of the streams that were opened |
| `generate` `path` `track` `groups` `size` | has aiomoqt's own publisher write groups of so many objects, the first |
| | `groups` of them at once; it announces the path, and answers every request of this track; also `subgroups` |

A subscription that the peer cancels is the event `cancelled` with `track`. A FETCH of a track that is served is
answered with the objects that were written on it, each with the subgroup, the priority and the properties that it had.

As a subscriber:

| `do` | events besides `did` |
|---|---|
| `subscribe` `path` `track` | `object` for each object, `end` for each stream that ended, `done` for PUBLISH_DONE |
| `discover_track` `path` | `discovered` with `path` and `track`, of the first track below a path; the same from there |
| `forward` `track` `value` | none: it pauses a subscription, or has it go on |
| `unsubscribe` `track` | none |
| `status` `path` `track` | `status` with `largest`, the group and the id of the newest object, or null |
| `fetch` `path` `track` `first` `last` | `fetched` for each object of whole groups, `complete` with `clean` |
| `join` `path` `track` `groups` | the same for the groups before the subscription, and `object` for those of it |
| `discover` `path` | `namespace` and `namespace_done` with `suffix` |

As either: `pad` sends a stream of padding and, over raw QUIC, a datagram of it; `goaway` sends GOAWAY.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from aiomoqt.client import MOQTClient
from aiomoqt.context import profile_for
from aiomoqt.messages import FetchObject, ObjectDatagram, RequestOk, SubgroupHeader
from aiomoqt.track import PublishedTrack, SubscribedTrack
from aiomoqt.types import (
    D16MessageType,
    FetchType,
    FilterType,
    GroupOrder,
    MOQTMessageType,
    ObjectStatus,
    ParamType,
    RequestErrorCode,
    SubscribeDoneCode,
)
from aiomoqt.utils.url import parse_relay_url

NAMESPACES_ONLY = 1
"""What draft 16 calls a SUBSCRIBE_NAMESPACE that asks for NAMESPACE, not for PUBLISH."""
TIMEOUT = 10.0
EVERY = 1 << 60
"""More than the number of any object."""


def report(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def text(field: object) -> str:
    """Returns a field of a namespace, or a track's name."""
    return bytes(field).decode() if isinstance(field, bytes | bytearray | memoryview) else str(field)


def path_of(namespace: tuple[bytes, ...]) -> str:
    return "/".join(map(text, namespace))


def properties_of(found: dict[int, Any] | None) -> dict[str, Any]:
    """Returns properties for JSON: bytes are hexadecimal."""
    return {str(key): bytes(value).hex() if isinstance(value, bytes) else value for key, value in (found or {}).items()}


def properties_from(found: dict[str, Any] | None) -> dict[int, Any] | None:
    if found is None:
        return None
    return {int(key): bytes.fromhex(value) if isinstance(value, str) else value for key, value in found.items()}


def describe(message: Any, group: int | None, subgroup: int | None) -> dict[str, object]:
    """Returns what an object is. Its header is reused for the next one."""
    own_group = getattr(message, "group_id", None)
    return {
        "group": group if own_group is None else own_group,
        "subgroup": subgroup,
        "id": message.object_id,
        "status": int(getattr(message, "status", None) or 0),
        "priority": getattr(message, "publisher_priority", None),
        "properties": properties_of(message.extensions),
        "payload": bytes(message.payload or b"").hex(),
    }


class Served:
    """A subscription of the peer's."""

    def __init__(self, request_id: int, alias: int) -> None:
        self.request_id = request_id
        self.alias = alias
        self.streams = 0


def range_of(message: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns the first and the last place that a FETCH asks for; the last object is `EVERY` for a whole group."""
    wanted = message.location_filter
    if wanted is not None:
        last = EVERY if wanted.end_object is None else wanted.end_object
        return (wanted.start_group, wanted.start_object), (wanted.end_group, last)
    # Up to draft 19 the last object is one too many, and 0 for a whole group.
    return (message.start_group, message.start_object), (message.end_group, (message.end_object or EVERY + 1) - 1)


def forward_of(message: Any) -> int | None:
    """Returns FORWARD of a message, or None where it has none."""
    forward = getattr(message, "forward", None)
    return (message.parameters or {}).get(ParamType.FORWARD) if forward is None else int(forward)


class Agent:
    """The session, and what is published and read on it."""

    def __init__(self) -> None:
        self.session: Any = None
        self._running: asyncio.Task[None] | None = None
        self._leave = asyncio.Event()
        self._open: set[tuple[str, str]] = set()
        self._served: dict[str, Served] = {}
        self._streams: dict[str, tuple[int, SubgroupHeader]] = {}
        self._track_of: dict[str, str] = {}
        self._written: dict[str, list[FetchObject]] = {}
        self._reading: dict[str, SubscribedTrack] = {}
        self._generated: PublishedTrack | None = None

    # -- the session ---------------------------------------------------------------------------------------

    async def connect(self, url: str, draft: int) -> None:
        where = parse_relay_url(url)
        client = MOQTClient(
            where.host,
            where.port,
            path=where.path or "",
            use_quic=where.use_quic,
            verify_tls=False,
            supported_drafts=draft,
        )
        client.register_handler(MOQTMessageType.SUBSCRIBE, self._on_subscribe)
        client.register_handler(MOQTMessageType.FETCH, self._on_fetch)
        client.register_handler(D16MessageType.REQUEST_UPDATE, self._on_update)
        self._leave.clear()
        self._open, self._served, self._streams, self._reading = set(), {}, {}, {}
        self._track_of, self._written = {}, {}
        ready = asyncio.get_running_loop().create_future()
        self._running = asyncio.create_task(self._run(client, ready))
        await ready

    async def _run(self, client: MOQTClient, ready: asyncio.Future[None]) -> None:
        try:
            async with client.connect() as session:
                await session.client_session_init()
                self.session = session
                about = session.handshake_info
                report(event="session", draft=session.negotiated_draft, transport=about["transport"])
                ready.set_result(None)
                closed = asyncio.ensure_future(session.async_closed())
                leave = asyncio.ensure_future(self._leave.wait())
                await asyncio.wait({closed, leave}, return_when=asyncio.FIRST_COMPLETED)
                for task in (closed, leave):
                    task.cancel()
                session.close()
        except Exception as error:
            if ready.done():
                raise
            ready.set_exception(error)
        finally:
            report(event="closed")

    async def pad(self) -> None:
        await self.session.send_padding(2000)
        if self.session.datagram_max_payload():
            await self.session.send_padding(100, datagram=True)

    async def goaway(self) -> None:
        self.session.goaway()

    async def close(self) -> None:
        self._leave.set()
        if self._running is not None:
            await self._running

    # -- as a publisher ------------------------------------------------------------------------------------

    async def announce(self, path: str) -> None:
        await asyncio.wait_for(self.session.publish_namespace(namespace=path, wait_response=True), TIMEOUT)

    async def withdraw(self, path: str) -> None:
        self.session.publish_namespace_done(namespace=path)

    async def serve(self, path: str, track: str) -> None:
        self._open.add((path, track))

    async def _on_subscribe(self, session: Any, message: Any) -> None:
        path, track = path_of(message.track_namespace), text(message.track_name)
        if (path, track) not in self._open:
            code, reason = RequestErrorCode.DOES_NOT_EXIST, "track does not exist"
            session.subscribe_error(request_id=message.request_id, error_code=code, reason=reason)
            return
        accepted = session.subscribe_ok(request_msg=message)
        self._served[track] = Served(message.request_id, accepted.track_alias)
        session.register_request_cancel_handler(
            message.request_id, lambda _request: report(event="cancelled", track=track)
        )
        report(event="requested", path=path, track=track)

    async def open(
        self,
        stream: str,
        track: str,
        group: int,
        subgroup: int = 0,
        priority: int = 128,
        properties: bool = False,
        first: bool = True,
    ) -> None:
        served = self._served[track]
        served.streams += 1
        header = SubgroupHeader(
            track_alias=served.alias,
            group_id=group,
            subgroup_id=subgroup,
            publisher_priority=priority,
            extensions_present=properties,
            first_object=first,
            prof=profile_for(self.session.negotiated_draft),
        )
        number = await self.session.open_uni_stream()
        self._streams[stream] = number, header
        self._track_of[stream] = track
        self.session.stream_write(number, header.serialize().data)

    async def object(
        self, stream: str, id: int, payload: str = "", properties: dict[str, Any] | None = None, status: int = 0
    ) -> None:
        number, header = self._streams[stream]
        data = header.next_object(
            payload=bytes.fromhex(payload),
            extensions=properties_from(properties),
            status=ObjectStatus(status),
            object_id=id,
        ).data
        await self.session.stream_write_drain(number, data)
        if not status:
            self._remember(
                self._track_of[stream],
                FetchObject(
                    group_id=header.group_id,
                    subgroup_id=header.subgroup_id or 0,
                    object_id=id,
                    publisher_priority=header.publisher_priority,
                    extensions=properties_from(properties),
                    payload=bytes.fromhex(payload),
                ),
            )

    def _remember(self, track: str, written: FetchObject) -> None:
        self._written.setdefault(track, []).append(written)

    async def _on_fetch(self, session: Any, message: Any) -> None:
        path, track = path_of(message.namespace), text(message.track_name)
        first, last = range_of(message)
        found = [item for item in self._written.get(track, ()) if first <= (item.group_id, item.object_id) <= last]
        if (path, track) not in self._open or not found:
            code = RequestErrorCode.INVALID_RANGE if self._written.get(track) else RequestErrorCode.DOES_NOT_EXIST
            session.fetch_error(request_id=message.request_id, error_code=code, reason="nothing of that")
            return
        found.sort(key=lambda item: (item.group_id, item.object_id))
        inclusive = session.negotiated_draft >= 20
        session.fetch_ok(
            request_id=message.request_id,
            largest_group_id=found[-1].group_id,
            largest_object_id=found[-1].object_id + (not inclusive),
        )
        await session.serve_fetch(message.request_id, found)

    async def fin(self, stream: str) -> None:
        self.session.stream_write(self._streams.pop(stream)[0], b"", end_stream=True)

    async def reset(self, stream: str, code: int = 0) -> None:
        self.session.stream_reset(self._streams.pop(stream)[0], code)

    async def datagram(
        self,
        track: str,
        group: int,
        id: int,
        payload: str,
        properties: dict[str, Any] | None = None,
        last: bool = False,
        priority: int = 128,
    ) -> None:
        message = ObjectDatagram(
            track_alias=self._served[track].alias,
            group_id=group,
            object_id=id,
            publisher_priority=priority,
            extensions=properties_from(properties),
            payload=bytes.fromhex(payload),
            end_of_group=last,
        )
        await self.session.dgram_write_drain(message.serialize(profile_for(self.session.negotiated_draft)))

    async def finish(self, track: str) -> None:
        served = self._served.pop(track)
        self.session.subscribe_done(
            request_id=served.request_id,
            status_code=SubscribeDoneCode.TRACK_ENDED,
            stream_count=served.streams,
            reason="track ended",
        )

    async def offer(self, path: str, track: str) -> None:
        message = self.session.publish(namespace=path, track_name=track)
        self._served[track] = Served(message.request_id, message.track_alias)
        self._open.add((path, track))
        reply = await self.session._await_response(message.request_id)
        report(event="forward", track=track, value=forward_of(reply))

    async def generate(self, path: str, track: str, groups: int, size: int, subgroups: int = 1) -> None:
        published = PublishedTrack(
            self.session, path, track, object_size=200, group_size=size, num_subgroups=subgroups, rate=100
        )
        # It prints statistics otherwise.
        published._quiet = published._stats_header_printed = True
        published.prefill(groups)
        await published.publish(announce_namespace=True, publish_track=False)
        self._generated = published

    async def _on_update(self, session: Any, message: Any) -> None:
        session._send_reply(message.request_id, RequestOk(request_id=message.request_id, parameters={}))
        served = (item for item in self._served.items() if item[1].request_id == message.existing_request_id)
        for track, _ in served:
            report(event="forward", track=track, value=forward_of(message))

    # -- as a subscriber -----------------------------------------------------------------------------------

    async def subscribe(self, path: str, track: str) -> None:
        await self._subscribe(path, track)

    async def discover_track(self, path: str) -> None:
        await self._subscribe(path, None)

    async def _subscribe(self, path: str, track: str | None) -> None:
        def on_object(message: Any, size: int, time: int, group: int | None, subgroup: int | None) -> None:
            report(event="object", track=reading.trackname, **describe(message, group, subgroup))

        def on_end(group: int, subgroup: int, clean: bool = True, reset_code: int = 0) -> None:
            report(event="end", track=reading.trackname, group=group, subgroup=subgroup, clean=clean, code=reset_code)

        def on_done(message: Any) -> None:
            report(event="done", track=reading.trackname, status=int(message.status_code), streams=message.stream_count)

        draft = self.session.negotiated_draft
        # It prints what it does otherwise.
        reading = SubscribedTrack(
            self.session, path, track, on_object=on_object, on_done=on_done, timestamp_errors="report"
        )
        reading._quiet = True
        # What a draft has as parameters is left out; up to draft 14 these are fields.
        await reading.subscribe(
            forward=None if draft > 14 and track is not None else 1,
            group_order=None if draft > 14 else GroupOrder.ASCENDING,
            filter_type=FilterType.LATEST_OBJECT,
            timeout=TIMEOUT,
        )
        self.session.register_stream_end_handler(reading.track_alias, on_end)
        self._reading[reading.trackname] = reading
        if track is None:
            report(event="discovered", path=reading.namespace, track=reading.trackname)

    async def forward(self, track: str, value: int) -> None:
        await self.session.request_update(self._reading[track].request_id, forward=value, wait_response=True)

    async def status(self, path: str, track: str) -> None:
        reply = await self.session.track_status(path, track, wait_response=True)
        report(event="status", largest=(reply.parameters or {}).get(ParamType.LARGEST_OBJECT))

    async def unsubscribe(self, track: str) -> None:
        self.session.unsubscribe(self._reading.pop(track).request_id)

    async def fetch(self, path: str, track: str, first: int, last: int) -> None:
        accepted = await self.session.fetch(
            namespace=path,
            track_name=track,
            start_group=first,
            start_object=0,
            end_group=last,
            end_object=0,
            wait_response=True,
            on_object=self._fetched,
        )
        clean = await self.session.await_fetch_done(accepted.request_id, timeout=TIMEOUT)
        report(event="complete", clean=clean)

    def _fetched(self, message: Any, *more: object) -> None:
        report(event="fetched", **describe(message, None, getattr(message, "subgroup_id", None)))

    async def join(self, path: str, track: str, groups: int) -> None:
        def on_object(message: Any, size: int, time: int, group: int | None, subgroup: int | None) -> None:
            report(event="object", track=track, **describe(message, group, subgroup))

        self.session.on_fetch_object = self._fetched
        _, fetched = await self.session.join(
            namespace=path,
            track_name=track,
            fetch_type=FetchType.RELATIVE_JOINING,
            joining_start=groups,
            wait_response=True,
            on_object=on_object,
        )
        clean = await self.session.await_fetch_done(fetched.request_id, timeout=TIMEOUT)
        report(event="complete", clean=clean)

    async def discover(self, path: str) -> None:
        # `discover_track` needs what aiomoqt itself does with them.
        self.session.register_handler(D16MessageType.NAMESPACE, self._on_namespace)
        self.session.register_handler(D16MessageType.NAMESPACE_DONE, self._on_namespace_done)
        options = NAMESPACES_ONLY if self.session.negotiated_draft == 16 else 0
        await self.session.subscribe_namespace(path, subscribe_options=options, wait_response=True)

    async def _on_namespace(self, session: Any, message: Any) -> None:
        report(event="namespace", suffix=path_of(message.namespace_suffix))

    async def _on_namespace_done(self, session: Any, message: Any) -> None:
        report(event="namespace_done", suffix=path_of(message.namespace_suffix))


COMMANDS = {
    "announce",
    "close",
    "connect",
    "datagram",
    "discover",
    "discover_track",
    "fetch",
    "fin",
    "finish",
    "forward",
    "generate",
    "goaway",
    "join",
    "object",
    "offer",
    "open",
    "pad",
    "reset",
    "serve",
    "status",
    "subscribe",
    "unsubscribe",
    "withdraw",
}


async def main() -> None:
    """Carries out the commands."""
    logging.basicConfig(level=logging.WARNING)
    agent = Agent()
    report(event="ready")
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        do = command.pop("do")
        assert do in COMMANDS
        try:
            await asyncio.wait_for(getattr(agent, do)(**command), 2 * TIMEOUT)
            report(event="did", do=do)
        except (Exception, asyncio.CancelledError) as error:
            # A stream that the peer stopped is a CancelledError in aiomoqt.
            report(event="failed", do=do, text=f"{type(error).__name__}: {error}")
    await agent.close()


if __name__ == "__main__":
    asyncio.run(main())
