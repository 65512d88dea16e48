"""The first bytes of a stream that the peer opened: its type, which decides the machine for the rest.

A stream that ends before its type is complete was never anything, and leaves nothing behind.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Final

from ..codes import SessionCode, StreamCode
from ..errors import RemoteProtocolError
from ..wire.messages import StreamKind
from .announce import AnnounceResponder
from .fetch import FetchResponder
from .goaway import GoawayReceiver
from .group import GroupReceiver
from .machine import StreamMachine
from .probe import ProbeResponder
from .setup import SetupReceiver
from .subscribe import SubscribeResponder
from .track import TrackInfoResponder

if TYPE_CHECKING:
    from .events import Event
    from .state import SessionState

_REQUESTS: Final = {
    StreamKind.ANNOUNCE: AnnounceResponder,
    StreamKind.FETCH: FetchResponder,
    StreamKind.TRACK: TrackInfoResponder,
    StreamKind.PROBE: ProbeResponder,
}


class _IncomingStream(StreamMachine, abc.ABC):
    _bidirectional: ClassVar[bool]

    def __init__(self, state: SessionState) -> None:
        self.kind: StreamKind | None = None
        self.machine: StreamMachine | None = None
        self._state = state
        self._head = b""
        self._deaf = False

    def receive_data(self, data: bytes, fin: bool) -> list[Event]:
        if self.machine is not None:
            return self.machine.receive_data(data, fin)
        if self._deaf:
            return []
        if self._head:
            data = self._head + data
        found = self._state.dialect.split_stream_type(data)
        if found is None:
            self._head = data
            self._deaf = fin
            return []
        number, end = found
        self._head = b""
        # Set while the machine is not there: whatever still arrives for a stream that was refused is ignored.
        self._deaf = True
        kind = self._state.dialect.stream_kind_untrusted(number, bidirectional=self._bidirectional)
        machine = self._make_untrusted(kind, end) if kind is not None else None
        if machine is None:
            raise self._unknown(number)
        self.kind, self.machine = kind, machine
        return machine.receive_data(data[end:], fin)

    def receive_reset(self, code: int) -> list[Event]:
        if self.machine is not None:
            return self.machine.receive_reset(code)
        self._deaf = True
        return []

    def receive_stop(self, code: int) -> list[Event]:
        if self.machine is not None:
            return self.machine.receive_stop(code)
        self._deaf = True
        return []

    def release(self) -> None:
        self._deaf = True
        if self.machine is not None:
            self.machine.release()

    @abc.abstractmethod
    def _make_untrusted(self, kind: StreamKind, type_bytes: int) -> StreamMachine | None:
        """Returns the machine for a kind of stream, or None for a kind that has none in this direction."""

    def _unknown(self, number: int) -> RemoteProtocolError:
        problem = f"a stream of unknown type {number:#x}"
        if self._state.dialect.features.unknown_stream_closes:
            return RemoteProtocolError(problem, code=SessionCode.PROTOCOL_VIOLATION)
        return RemoteProtocolError(problem, code=StreamCode.CANCELLED, scope="stream")


class IncomingBidi(_IncomingStream):
    """A bidirectional stream that the peer opened.

    Attributes:
        kind: What it carries; None until its type arrived.
        machine: What handles it; None until its type arrived. It may be driven directly from then on.
    """

    _bidirectional = True

    def _make_untrusted(self, kind: StreamKind, type_bytes: int) -> StreamMachine | None:
        if kind is StreamKind.SUBSCRIBE:
            return SubscribeResponder(self._state)
        if kind is StreamKind.GOAWAY:
            return GoawayReceiver(self._state)
        make: Callable[[SessionState], StreamMachine] | None = _REQUESTS.get(kind)
        if make is None:
            return None
        self._state.requests.take_untrusted()
        return make(self._state)


class IncomingUni(_IncomingStream):
    """A unidirectional stream that the peer opened.

    Attributes:
        kind: What it carries; None until its type arrived.
        machine: What handles it; None until its type arrived. It may be driven directly from then on.
    """

    _bidirectional = False

    def _make_untrusted(self, kind: StreamKind, type_bytes: int) -> StreamMachine | None:
        if kind is StreamKind.GROUP:
            return GroupReceiver(self._state, type_bytes)
        if kind is StreamKind.SETUP:
            return SetupReceiver(self._state)
        return None
