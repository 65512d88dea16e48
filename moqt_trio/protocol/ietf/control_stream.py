"""The one control stream of drafts 14 to 16: it carries all requests, each of which has a virtual stream here.

Theory of operation. The machines of requests expect a stream for each request. `RequestsStream` cuts the control stream
into messages, and finds by its first number, a request's id, to which virtual stream a message belongs:

| message of the peer's | its virtual stream |
|---|---|
| SUBSCRIBE, PUBLISH, FETCH, TRACK_STATUS, PUBLISH_NAMESPACE, SUBSCRIBE_NAMESPACE (14, 15) | opens it |
| an acceptance or a refusal of a request of ours | gets it; a refusal also ends it |
| an acceptance or a refusal of an update of ours | that of the request that was updated gets it |
| SUBSCRIBE_UPDATE, REQUEST_UPDATE | that of the request that it names gets it, whichever side made it |
| PUBLISH_DONE | gets it, and is finished |
| UNSUBSCRIBE, FETCH_CANCEL, PUBLISH_NAMESPACE_DONE, _CANCEL, UNSUBSCRIBE_NAMESPACE | is reset and stopped |

What a machine writes has its request's id in it, and goes to the control stream as it is. A reset or a stop of a
virtual stream becomes the message that ends such a request, once (`cancel`); a FIN becomes nothing (`finish`).

A message about a request that is over is dropped: it crossed the end on its way; an update is refused. A reply to a
request that was never made ends the session, and so does an end of the control stream.

Spec: draft-ietf-moq-transport-14 to -16, sections 3.3 and 9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from ...codes import StreamCode
from ...errors import Malformed
from ...wire.buffer import StreamBuffer
from ...wire.ietf import messages as ietf
from ...wire.ietf.messages import Option
from ...wire.messages import Setup
from ..machine import StreamMachine
from .control import (
    knows_hidden,
    path_untrusted,
    read_goaway_untrusted,
    read_setup_untrusted,
    setup_options,
    tokens_untrusted,
)
from .endings import ENDS, VirtualRequest, ending
from .events import ListAnswered, RequestBytes, RequestsAllowed, RequestWithdrawn
from .machine import number_in, request_code, violation

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...wire.ietf.properties import Pairs
    from ...wire.messages import Message
    from ..events import Event
    from .state import DueUpdate, IetfState

_OPENING: Final = frozenset(
    {ietf.Subscribe, ietf.Publish, ietf.Fetch, ietf.TrackStatus, ietf.PublishNamespace, ietf.SubscribeNamespace}
)
_REPLIES: Final = frozenset(
    {ietf.SubscribeOk, ietf.RequestOk, ietf.RequestError, ietf.PublishOk, ietf.FetchOk, ietf.TrackStatusOk}
)
_SESSION: Final = frozenset({ietf.ClientSetup, ietf.ServerSetup, ietf.Goaway, ietf.MaxRequestId, ietf.RequestsBlocked})
_CLIENT_SETUP: Final = 0x20
_SUBSCRIBE_NAMESPACE: Final = 0x11
_MAX_UPDATES: Final = 32
"""Updates of one request whose answers are awaited; some peers never answer, so the oldest are forgotten."""


class RequestsStream(StreamMachine):
    """The control stream of a session, both ways, after its opening by the client.

    Events: `Setup` once, `Goaway`, `RequestsAllowed`, `ListAnswered`, and for the virtual streams `RequestBytes` and
    `RequestWithdrawn`.

    Attributes:
        setup_received: True once the peer's SETUP has arrived.
        pending: Bytes that have arrived and were not handled.
    """

    def __init__(self, session: IetfState) -> None:
        self.setup_received = False
        self._session = session
        self._buffer = StreamBuffer()
        self._finished = False
        self._requests: dict[int, VirtualRequest] = {}
        self._updates: dict[int, VirtualRequest] = {}
        # The requests of ours for announcements that are never ended (14), until they are answered.
        self._lists: dict[int, tuple[bytes, ...]] = {}
        self._named: dict[tuple[type[Message], bool, tuple[bytes, ...]], list[VirtualRequest]] = {}

    def __len__(self) -> int:
        return len(self._requests)

    @property
    def pending(self) -> int:
        return len(self._buffer)

    @property
    def allowed(self) -> bool:
        """True while the peer allows another request."""
        return self.left > 0

    @property
    def left(self) -> int:
        """How many requests the peer allows now."""
        return self._session.own_requests.left

    @property
    def due_updates(self) -> list[DueUpdate]:
        """The updates of this side that wait for an id, the oldest first."""
        return list(self._session.updates_due)

    def classify_untrusted(self, first: int, *, begun: bool) -> Literal["control", "request"]:
        """Return what a bidirectional stream of the peer's is for, by its first byte.

        Args:
            first: The byte: these types of messages have one.
            begun: True once there is the control stream.

        Raises:
            RemoteProtocolError: There is no such stream; it ends the session.
        """
        session = self._session
        if first == _CLIENT_SETUP and not session.is_client and not begun:
            return "control"
        if first == _SUBSCRIBE_NAMESPACE and session.profile.namespaces == "stream":
            return "request"
        raise violation(f"a stream that begins with {first:#x}")

    def setup(self, own: Setup) -> bytes:
        """Return this side's SETUP: what a client opens the stream with, and a server answers."""
        options = setup_options(own, self._session.profile, self._session.requests_of_peer.limit)
        if self._session.is_client:
            return self._session.codec.encode(ietf.ClientSetup(options))
        return self._session.codec.encode(ietf.ServerSetup(options, self._session.dialect.number))

    def begin_untrusted(self, options: Pairs, path: str | None, *, has_uri: bool) -> Setup:
        """Record the options of the peer's SETUP, where it was read before the version was known.

        Args:
            options: What it carried.
            path: The client's request target, where that was among them.
            has_uri: True where a URI has the request target (WebTransport).

        Raises:
            RemoteProtocolError: A token is not one, or there is a path where none may be; it ends the session.
        """
        path_untrusted(options, may_be=not (self._session.is_client or has_uri))
        self.setup_received = True
        self._note_limit(options)
        session = self._session
        session.peer_knows_hidden = knows_hidden(options)
        session.peer_setup = Setup(path=path, tokens=tokens_untrusted(options, session.profile))
        return session.peer_setup

    # -- reading ---------------------------------------------------------------------------------------------

    def _read_untrusted(self, data: bytes, fin: bool, events: list[Event]) -> None:
        buffer, budget = self._buffer, self._session.budget
        buffer += data
        self._finished = self._finished or fin
        self.unread = False
        first = True
        while buffer:
            if budget.left <= 0 and not first:
                self.unread = True
                return
            if not self._read_message_untrusted(buffer, events):
                break
            budget.left -= 1
            first = False
        if self._finished:
            self._closed = True
            raise violation("the control stream ended" + (" inside a message" if buffer else ""))

    def _read_message_untrusted(self, buffer: StreamBuffer, events: list[Event]) -> bool:
        """Handle the next message; return False until it is complete."""
        codec = self._session.codec
        found = codec.split_type(buffer)
        if found is None:
            return False
        number, offset = found
        kind = codec.message_type(number)
        if kind is None:
            raise violation(f"a message of unknown type {number:#x}")
        size = buffer.peek_u16(offset)
        end = offset + 2 + (size or 0)
        if size is None or len(buffer) < end:
            return False
        if not self.setup_received and kind is not (ietf.ServerSetup if self._session.is_client else ietf.ClientSetup):
            raise violation(f"{kind.__name__} before SETUP")
        if kind in _SESSION:
            self._on_session_message(self._decoded(buffer), events)
        elif kind in _OPENING and (
            kind is not ietf.SubscribeNamespace or self._session.profile.namespaces == "control"
        ):
            self._on_request(kind, buffer.take(end), offset + 2, events)
        elif kind in ENDS:
            self._on_end(self._decoded(buffer), events)
        elif kind in _REPLIES:
            self._on_reply(kind, buffer.take(end), offset + 2, events)
        elif kind is ietf.RequestUpdate:
            self._on_update(buffer.take(end), offset + 2, events)
        elif kind is ietf.PublishDone:
            self._on_done(buffer.take(end), offset + 2, events)
        else:
            raise violation(f"{kind.__name__} on the control stream")
        return True

    def _decoded(self, buffer: StreamBuffer) -> Message:
        """Take a message that is complete."""
        message = self._session.codec.read_untrusted(buffer, self._session.limits)
        assert message is not None
        return message

    def _number(self, data: bytes, offset: int) -> tuple[int, int]:
        """Return a number of a message, and the offset after it."""
        found = self._session.profile.decode(data, offset)
        if found is None:
            raise Malformed("a message without its request's id", code=violation("").code)
        return found

    def _on_session_message(self, message: Message, events: list[Event]) -> None:
        session = self._session
        match message:
            case ietf.ClientSetup() | ietf.ServerSetup() if not self.setup_received:
                setup = read_setup_untrusted(message.options, session)
                self.setup_received = True
                self._note_limit(message.options)
                events += (setup, RequestsAllowed())
            case ietf.Goaway():
                events.append(read_goaway_untrusted(message, session))
            case ietf.MaxRequestId():
                session.own_requests.allow_untrusted(message.limit)
                events.append(RequestsAllowed())
            case ietf.RequestsBlocked():
                pass
            case _:
                raise violation(f"{type(message).__name__} out of its place")

    def _note_limit(self, options: Pairs) -> None:
        limit = next((value for kind, value in options if kind == Option.MAX_REQUEST_ID), 0)
        assert isinstance(limit, int)
        self._session.own_requests.limit = limit

    def _on_request(self, kind: type[Message], data: bytes, offset: int, events: list[Event]) -> None:
        request_id = self._number(data, offset)[0]
        self._session.requests_of_peer.admit_untrusted(request_id)
        self._add(VirtualRequest(request_id, kind, ours=False), data)
        events.append(RequestBytes(request_id, data, opens=True))

    def _on_reply(self, kind: type[Message], data: bytes, offset: int, events: list[Event]) -> None:
        answered = self._number(data, offset)[0]
        if not self._session.own_requests.has_used(answered):
            raise violation(f"a reply to the request {answered}, which was not made")
        if answered in self._lists:
            self._on_list(self._lists.pop(answered), kind is not ietf.RequestError, events)
        request = self._updates.pop(answered, None)
        if request is not None:
            request.updates.remove(answered)
            events.append(RequestBytes(request.request_id, data))
            return
        request = self._requests.get(answered)
        if request is None or request.answered:
            # It is over; or it is an answer to an update that is not awaited any more.
            return
        request.answered = True
        over = kind is ietf.RequestError or request.kind is ietf.TrackStatus or request.finished
        if over:
            self._remove(request)
        events.append(RequestBytes(answered, data, fin=over))

    def _on_list(self, prefix: tuple[bytes, ...], accepted: bool, events: list[Event]) -> None:
        """Handle the answer that all lists below a prefix wait for. The one that asked may have been left meanwhile."""
        if accepted:
            self._session.asked_for_good[prefix] = True
        else:
            self._session.asked_for_good.pop(prefix, None)
        events.append(ListAnswered(prefix))

    def _on_update(self, data: bytes, offset: int, events: list[Event]) -> None:
        own, peers = self._session.own_requests, self._session.requests_of_peer
        update_id, offset = self._number(data, offset)
        existing = self._number(data, offset)[0]
        peers.admit_untrusted(update_id)
        peers.end()
        if not (existing in self._requests or peers.may_be_used(existing) or own.has_used(existing)):
            raise violation(f"an update of the request {existing}, which was not made")
        events.append(RequestBytes(existing, data, update=update_id))

    def _on_done(self, data: bytes, offset: int, events: list[Event]) -> None:
        request_id = self._number(data, offset)[0]
        request = self._requests.get(request_id)
        if request is None:
            return
        if request.kind is not (ietf.Subscribe if request.ours else ietf.Publish):
            raise violation(f"PUBLISH_DONE for the request {request_id}, which is another")
        self._remove(request)
        events.append(RequestBytes(request_id, data, fin=True))

    def _on_end(self, message: Message, events: list[Event]) -> None:
        """Handle a message by which the peer ends a request, its own or one that it accepted."""
        for request in self._ended_by(message):
            if (request.kind, request.ours) not in ENDS[type(message)]:
                raise violation(f"{type(message).__name__} for the request {request.request_id}, which is another")
            self._remove(request)
            events.append(RequestWithdrawn(request.request_id))

    def _ended_by(self, message: Message) -> list[VirtualRequest]:
        request_id = getattr(message, "request_id", None)
        if request_id is not None:
            request = self._requests.get(request_id)
            return [] if request is None else [request]
        name = message.prefix if isinstance(message, ietf.UnsubscribeNamespace) else getattr(message, "namespace", None)
        assert name is not None
        found: list[VirtualRequest] = []
        for kind, ours in ENDS[type(message)]:
            found += self._named.get((kind, ours, name), ())
        return found

    # -- writing ---------------------------------------------------------------------------------------------

    def open(self, data: bytes) -> int:
        """Record a request of ours that is written now; return its id."""
        codec = self._session.codec
        found = codec.split_type(data)
        assert found is not None
        kind = codec.message_type(found[0])
        assert kind in _OPENING
        request_id = self._number(data, found[1] + 2)[0]
        request = VirtualRequest(request_id, kind, ours=True)
        self._add(request, data)
        if kind is ietf.SubscribeNamespace and self._session.profile.fixed_fields:
            assert request.name is not None
            self._lists[request_id] = request.name
        return request_id

    def sent(self, request_id: int, data: bytes) -> None:
        """Record what is written about a request that is open."""
        request = self._requests.get(request_id)
        if request is None:
            return
        codec = self._session.codec
        request.answered = request.answered or not request.ours
        offset = 0
        while offset < len(data):
            found = self._session.profile.decode(data, offset)
            assert found is not None
            number, start = found
            if codec.message_type(number) is ietf.RequestUpdate and not self._session.profile.fixed_fields:
                self._await_update(request, self._number(data, start + 2)[0])
            offset = start + 2 + int.from_bytes(data[start : start + 2], "big")

    def _await_update(self, request: VirtualRequest, update_id: int) -> None:
        request.updates.append(update_id)
        self._updates[update_id] = request
        if len(request.updates) > _MAX_UPDATES:
            del self._updates[request.updates.pop(0)]

    def finish(self, request_id: int) -> bool:
        """Record that this side has nothing more to say about a request; return whether it is over with that.

        An answer that is complete ends a request. A request that awaits its answer, or is in force, goes on.
        """
        request = self._requests.get(request_id)
        if request is None:
            return True
        request.finished = True
        goes_on = request.ours and (
            not request.answered or request.kind in (ietf.Subscribe, ietf.PublishNamespace, ietf.SubscribeNamespace)
        )
        if not goes_on:
            self._remove(request)
        return not goes_on

    def cancel(self, request_id: int, code: int) -> bytes:
        """End a request from this side; return the message that says so, b"" where there is none.

        Args:
            request_id: The request, ours or the peer's.
            code: A stream code of this library.
        """
        request = self._requests.get(request_id)
        if request is None:
            return b""
        self._remove(request)
        message = ending(request, code, self._session)
        return b"" if message is None else self._session.codec.encode(message)

    def refuse_update(self, update_id: int) -> bytes:
        """Return the answer to an update of what is over, or has not arrived; b"" in draft 14, which has none."""
        session = self._session
        if session.profile.fixed_fields:
            return b""
        number = number_in(session.profile, request_code(StreamCode.NOT_FOUND))
        return session.codec.encode(ietf.RequestError(update_id, number, "there is no such request"))

    def allowance(self) -> bytes:
        """Return MAX_REQUEST_ID when it is time to let the peer make further requests, else b""."""
        limit = self._session.requests_of_peer.raise_limit()
        return b"" if limit is None else self._session.codec.encode(ietf.MaxRequestId(limit))

    def watch_ends(self, ended: Callable[[], None]) -> None:
        """Have `ended` called when a request or an update of the peer's is over: `allowance` may have a message."""
        self._session.requests_of_peer.on_end = ended

    def ended(self) -> None:
        """Record that this side holds nothing of one of the peer's requests any more."""
        self._session.requests_of_peer.end()

    # -- the requests that are open ----------------------------------------------------------------------------

    def _add(self, request: VirtualRequest, data: bytes) -> None:
        by_name = request.kind in (ietf.PublishNamespace, ietf.SubscribeNamespace)
        if by_name and self._session.profile.done_by_namespace:
            message = self._decoded(StreamBuffer(data))
            assert isinstance(message, ietf.PublishNamespace | ietf.SubscribeNamespace)
            request.name = message.namespace if isinstance(message, ietf.PublishNamespace) else message.prefix
            self._named.setdefault((request.kind, request.ours, request.name), []).append(request)
        self._requests[request.request_id] = request

    def _remove(self, request: VirtualRequest) -> None:
        del self._requests[request.request_id]
        for update_id in request.updates:
            del self._updates[update_id]
        if request.name is not None:
            key = (request.kind, request.ours, request.name)
            self._named[key].remove(request)
            if not self._named[key]:
                del self._named[key]
