"""What the session tests share: cores, ways to cut a stream, and an outcome that does not depend on the cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import moqt_trio.wire  # noqa: F401  (registers the versions)
from moqt_trio.errors import LocalProtocolError, RemoteProtocolError
from moqt_trio.path import BroadcastPath
from moqt_trio.protocol.core import SessionCore
from moqt_trio.protocol.events import Event, FramesReceived
from moqt_trio.wire import dialect

if TYPE_CHECKING:
    from moqt_trio.limits import Limits
    from moqt_trio.protocol.machine import StreamMachine
    from moqt_trio.wire.dialect import Dialect
    from moqt_trio.wire.messages import StreamKind

NAMES = ("moq-lite-03", "moq-lite-04", "moq-lite-05", "moq-lite-06")
OLD = NAMES[:2]
NEW = NAMES[2:]

path_of = BroadcastPath.parse

PEER_HOP = 77
OWN_HOP = 11


def version(name: str) -> Dialect:
    """Returns a version by its name."""
    return dialect.get(name)


def has_streams(name: str, kind: StreamKind) -> bool:
    """Returns whether a version has streams of a kind."""
    try:
        return bool(version(name).stream_type(kind))
    except LocalProtocolError:
        return False


def core(name: str, *, is_client: bool = True, hop_id: int = 0, limits: Limits | None = None, **kwargs) -> SessionCore:
    """Returns one side of a session."""
    return SessionCore(version(name), is_client=is_client, hop_id=hop_id, limits=limits, **kwargs)


def pair(name: str) -> tuple[SessionCore, SessionCore]:
    """Returns a client's and a server's core, with different hop ids."""
    return core(name, hop_id=OWN_HOP), core(name, is_client=False, hop_id=PEER_HOP)


def opened(side: SessionCore, opening: bytes, *, bidi: bool = True) -> tuple[StreamMachine, list[Event]]:
    """Feeds what opens a stream to the side that accepts it; returns the machine and the events."""
    stream = side.accept_bidi() if bidi else side.accept_uni()
    return stream, stream.receive_data(opening, False)


def merged(events: Iterable[Event]) -> list[Event]:
    """Returns the events with adjacent frames joined into one event, as in an uncut stream."""
    result: list[Event] = []
    for event in events:
        if isinstance(event, FramesReceived) and result and isinstance(result[-1], FramesReceived):
            result[-1] = FramesReceived([*result[-1].frames, *event.frames], [*result[-1].sizes, *event.sizes])
        else:
            result.append(event)
    return result


Outcome = tuple[list[Event], tuple[type, int, str] | None]


def outcome(make: Callable[[], StreamMachine], pieces: Iterable[bytes], *, fin: bool = True) -> Outcome:
    """Returns the outcome of a stream in pieces: the events until the end or an error, and the error."""
    machine = make()
    events: list[Event] = []
    try:
        for piece in pieces:
            events += machine.receive_data(piece, False)
        if fin:
            events += machine.receive_data(b"", True)
    except RemoteProtocolError as error:
        return merged(events), (type(error), error.code, error.scope)
    return merged(events), None


def by_bytes(data: bytes) -> list[bytes]:
    """Returns a stream one byte at a time."""
    return [data[i : i + 1] for i in range(len(data))]
