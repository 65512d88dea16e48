"""What is tried on IETF moq-transport: its codec (control messages, subgroups, fetches, datagrams) and its machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from moqt_trio.errors import RemoteProtocolError
from moqt_trio.limits import Limits
from moqt_trio.path import BroadcastPath
from moqt_trio.protocol.ietf.core import IetfCore
from moqt_trio.protocol.ietf.ends import TrackEnds
from moqt_trio.protocol.ietf.events import RequestBytes, RequestWithdrawn
from moqt_trio.wire.buffer import StreamBuffer
from moqt_trio.wire.ietf import objects
from moqt_trio.wire.ietf.codec import ControlCodec
from moqt_trio.wire.ietf.drafts import DRAFTS
from moqt_trio.wire.ietf.fetch_objects import FetchDecoder
from moqt_trio.wire.ietf.messages import Option, SubscribeOk
from moqt_trio.wire.ietf.profile import PROFILES
from moqt_trio.wire.ietf.subgroups import SubgroupDecoder

from .feeding import feed, pieces

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from moqt_trio.protocol.events import Event
    from moqt_trio.protocol.ietf.subscribe import SubscribeRequester
    from moqt_trio.protocol.machine import StreamMachine
    from moqt_trio.wire.ietf.profile import Profile

VECTORS = Path(__file__).parent.parent / "tests" / "vectors" / "ietf-vectors.json"
LIMITS = Limits()
DIALECTS = {dialect.profile.draft: dialect for dialect in DRAFTS}
CODECS = {draft: ControlCodec(profile) for draft, profile in PROFILES.items()}


def samples() -> dict[int, list[bytes]]:
    """Return the bytes of the records in the test vectors, by draft."""
    found: dict[int, list[bytes]] = {draft: [] for draft in PROFILES}
    for record in json.loads(VECTORS.read_text()):
        found[record["draft"]].append(bytes.fromhex(record["hex"]))
    return found


def read_control(profile: Profile, data: bytes, chance: random.Random) -> str:
    """Read a control stream in random pieces. What was read comes back when it is written."""
    codec = CODECS[profile.draft]
    buffer = StreamBuffer()
    try:
        for piece in pieces(data, chance):
            buffer.feed(piece)
            while (message := codec.read_untrusted(buffer, LIMITS)) is not None:
                again = codec.read_untrusted(StreamBuffer(codec.encode(message)), LIMITS)
                assert again == message, (again, message)
        return "read"
    except RemoteProtocolError as error:
        return type(error).__name__


def read_subgroup(profile: Profile, data: bytes, chance: random.Random) -> str:
    """Read a subgroup's stream: its header if it has one, and its objects in random pieces."""
    properties = bool(chance.randrange(2))
    try:
        found = objects.read_subgroup_header(data, profile)
        if found is not None and objects.is_subgroup(found[0].flags, profile):
            properties = found[0].has_properties
            data = data[found[1] :]
        decoder = SubgroupDecoder(profile, LIMITS, properties=properties)
        for piece in pieces(data, chance):
            sizes: list[int] = []
            start = 0
            while start < len(piece):
                start = decoder.feed_untrusted(piece, [], sizes, start, chance.choice((1, 3, 1 << 62)))
        return "read"
    except RemoteProtocolError as error:
        return f"{type(error).__name__} ({error.scope})"


def read_fetch(profile: Profile, data: bytes, chance: random.Random) -> str:
    """Read a fetch's stream in random pieces, after its header if it has one."""
    if data[:1] == bytes([objects.FETCH_STREAM]):
        data = data[2:]
    decoder = FetchDecoder(profile, LIMITS, descending=bool(chance.randrange(2)))
    try:
        for piece in pieces(data, chance):
            decoder.feed_untrusted(piece)
        return "read"
    except RemoteProtocolError as error:
        return f"{type(error).__name__} ({error.scope})"


def read_datagram(profile: Profile, data: bytes, chance: random.Random) -> str:
    """Read a datagram."""
    try:
        objects.read_datagram(data, profile, LIMITS)
        return "read"
    except RemoteProtocolError as error:
        return type(error).__name__


def open_stream(profile: Profile, data: bytes, chance: random.Random) -> str:
    """Feed a stream that the peer opened to one side of a session, which knows an alias or does not."""
    core, _ = _subscribed(profile, chance)
    return feed(core.accept_bidi() if chance.randrange(2) else core.accept_uni(), data, chance)


def receive_datagram(profile: Profile, data: bytes, chance: random.Random) -> str:
    """Pass a datagram to one side of a session. What it says of the ends of its group is remembered."""
    core, _ = _subscribed(profile, chance)
    ends = TrackEnds()
    try:
        event = core.receive_datagram(data)
    except RemoteProtocolError as error:
        return f"{type(error).__name__} ({error.scope})"
    if event is None:
        return "dropped"
    number = event.frame.object_id or 0
    ends.note(event.sequence, number, number + 1 if event.ends_group else None)
    return "read"


def reply(profile: Profile, data: bytes, chance: random.Random) -> str:
    """Feed the answer to a request of ours to the side that made it."""
    core, subscription = _subscribed(profile, chance)
    requests = (
        lambda: subscription,
        lambda: core.request_announcements("live"),
        lambda: core.request_tracks("live"),
        lambda: core.request_track_info("live", "t"),
        lambda: core.offer(BroadcastPath.parse("live"), "t", forward=bool(chance.randrange(2))),
    )
    return feed(chance.choice(requests)(), data, chance)


def share_stream(profile: Profile, data: bytes, chance: random.Random) -> str:
    """Feed the one control stream of a session, and each message to the machine that it belongs to."""
    core = IetfCore(DIALECTS[profile.draft], is_client=bool(chance.randrange(2)), limits=LIMITS)
    shared = core.requests
    assert shared is not None
    if chance.randrange(8):
        shared.begin_untrusted(((Option.MAX_REQUEST_ID, 100),), None, has_uri=False)
    subscription = core.subscribe("a", "t")
    streams: dict[int, StreamMachine] = {shared.open(subscription.opening): subscription}
    try:
        for piece in pieces(data, chance):
            for event in shared.receive_data(piece, False):
                _pass_on(event, core, streams)
            for request_id in list(streams):
                if not chance.randrange(8):
                    shared.cancel(request_id, chance.randrange(0x40))
                    streams.pop(request_id).release()
        shared.receive_data(b"", not chance.randrange(4))
        return "accepted"
    except RemoteProtocolError as error:
        return f"{type(error).__name__} ({error.scope})"
    finally:
        for machine in streams.values():
            machine.release()
        shared.release()


def _pass_on(event: Event, core: IetfCore, streams: dict[int, StreamMachine]) -> None:
    if isinstance(event, RequestBytes):
        if event.opens:
            streams[event.request_id] = core.accept_bidi()
        if event.request_id in streams:
            streams[event.request_id].receive_data(event.data, event.fin)
    elif isinstance(event, RequestWithdrawn) and event.request_id in streams:
        streams[event.request_id].receive_stop(1)
        streams.pop(event.request_id).release()


def _subscribed(profile: Profile, chance: random.Random) -> tuple[IetfCore, SubscribeRequester]:
    core = IetfCore(DIALECTS[profile.draft], is_client=bool(chance.randrange(2)), limits=LIMITS)
    subscription = core.subscribe("a", "t")
    if chance.randrange(2):
        request_id = subscription.subscribe_id if profile.one_control_stream else None
        accepted = CODECS[profile.draft].encode(SubscribeOk(request_id, chance.randrange(3)))
        subscription.receive_data(accepted, False)
    return core, subscription


def targets(draft: int) -> tuple[Callable[[Profile, bytes, random.Random], str], ...]:
    """Return what an input is tried on: the codec, the machines, and up to draft 16 the stream that requests share."""
    found = (read_control, read_subgroup, read_fetch, read_datagram, open_stream, receive_datagram, reply)
    return (*found, share_stream) if PROFILES[draft].one_control_stream else found
