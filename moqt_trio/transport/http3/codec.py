"""HTTP/3 frames and QPACK, by aioquic's H3Connection over any `Connection`.

The one file that touches aioquic.h3 and its private names; `tests/transport/webtransport/test_contract.py` fails when
they move. WebTransport streams never come here: see `demux.py`.

Spec: RFC 9114, RFC 9204, RFC 9220.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import attrs
import pylsqpack
from aioquic.h3 import events as h3_events
from aioquic.h3.connection import FrameType, H3Connection, Setting, encode_frame
from aioquic.quic.events import StopSendingReceived, StreamDataReceived, StreamReset

from ... import varint
from ...loggers import Logger
from .constants import (
    SETTING_ENABLE_CONNECT_PROTOCOL,
    SETTING_H3_DATAGRAM,
    SETTING_MAX_FIELD_SECTION_SIZE,
    WEBTRANSPORT_SETTINGS,
    H3Error,
)

if TYPE_CHECKING:
    from ..connection import Connection
    from ..send_stream import SendStream
    from .fields import Headers

logger = Logger(__name__)
_FIELD_OVERHEAD = 32  # counted for every field line, RFC 9114 section 4.2.2


@attrs.frozen
class HeadersReceived:
    """A header section is complete: a request's, a response's, or the trailers after a body."""

    headers: Headers
    fin: bool


@attrs.frozen
class DataReceived:
    """Bytes of a body, and whether they are its last."""

    data: bytes
    fin: bool


@attrs.frozen
class HeadersTooLarge:
    """The header section passed `Limits.max_header_bytes`; nothing more can be read from this stream."""


Event = HeadersReceived | DataReceived | HeadersTooLarge


@attrs.frozen
class _Configuration:
    is_client: bool


class _Quic:
    """The part of aioquic's QuicConnection that H3Connection uses, on top of a `Connection`."""

    _quic_logger = None

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.configuration = _Configuration(connection.is_client)
        self.streams: dict[int, SendStream] = {}

    @property
    def _remote_max_datagram_frame_size(self) -> int | None:
        return self._connection.max_datagram_size or None

    def get_next_available_stream_id(self, is_unidirectional: bool = False) -> int:
        opened = self._connection.open_uni_nowait() if is_unidirectional else self._connection.open_bidi_nowait()
        self.streams[opened.stream_id] = opened
        return opened.stream_id

    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        stream = self.streams.get(stream_id)
        # H3Connection writes without regard to whether the stream can still be written to.
        if (data or end_stream) and stream is not None and not stream.send_ended and self._connection.closed is None:
            stream.write(data, end_stream)

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        stream = self.streams.get(stream_id)
        if stream is not None and not stream.send_ended:
            stream.reset(error_code)

    def close(self, error_code: int, reason_phrase: str = "") -> None:
        self._connection.close(int(error_code), reason_phrase)


class _H3(H3Connection):
    """H3Connection with our SETTINGS, without QPACK's dynamic table and without server push.

    A dynamic table lets 64 KiB on the wire unfold to 256 MiB of headers, and lets header blocks arrive blocked.
    """

    def __init__(self, quic: _Quic, max_header_bytes: int) -> None:
        self.goaway_received = False
        self._max_header_bytes = max_header_bytes
        super().__init__(cast("Any", quic), enable_webtransport=True)

    def _init_connection(self) -> None:
        self._max_table_capacity = 0
        self._blocked_streams = 0
        self._decoder = pylsqpack.Decoder(0, 0)
        self._max_push_id = None
        super()._init_connection()

    def _check_control_frame_type(self, frame_type: int) -> None:
        # aioquic drops what a GOAWAY says. The type is enough: no request is opened after it, whatever its id.
        super()._check_control_frame_type(frame_type)
        if frame_type == FrameType.GOAWAY:
            self.goaway_received = True

    def _get_local_settings(self) -> dict[int, int]:
        return {
            Setting.QPACK_MAX_TABLE_CAPACITY: 0,
            Setting.QPACK_BLOCKED_STREAMS: 0,
            SETTING_MAX_FIELD_SECTION_SIZE: self._max_header_bytes,
            SETTING_ENABLE_CONNECT_PROTOCOL: 1,
            SETTING_H3_DATAGRAM: 1,
            **dict.fromkeys(WEBTRANSPORT_SETTINGS, 1),
        }


class Http3:
    """One connection's HTTP/3 state. Opens the control and QPACK streams when it is made.

    What the peer does wrong on a critical stream or in a frame closes the connection with HTTP/3's own code.

    Raises:
        trio.WouldBlock: The peer allows fewer than three unidirectional streams.
    """

    def __init__(self, connection: Connection, max_header_bytes: int) -> None:
        self._connection = connection
        self._max_header_bytes = max_header_bytes
        self._quic = _Quic(connection)
        self._h3 = _H3(self._quic, max_header_bytes)
        self.local_streams = tuple(self._quic.streams.values())

    @property
    def settings(self) -> dict[int, int] | None:
        """The peer's SETTINGS, or None before they arrived."""
        return self._h3.received_settings

    @property
    def goaway_received(self) -> bool:
        """True once the peer asked this side to leave (GOAWAY). A server answers no request that is opened later."""
        return self._h3.goaway_received

    def add(self, stream: SendStream) -> None:
        """Register a request stream, so that HTTP/3 can write on it."""
        self._quic.streams[stream.stream_id] = stream

    def receive(self, stream_id: int, data: bytes, fin: bool) -> list[Event]:
        """Read bytes of one stream, and return what they complete. Never raises; may close the connection."""
        found: list[Event] = []
        try:
            for event in self._h3.handle_event(StreamDataReceived(data=data, end_stream=fin, stream_id=stream_id)):
                if isinstance(event, h3_events.HeadersReceived):
                    size = sum(len(name) + len(value) + _FIELD_OVERHEAD for name, value in event.headers)
                    if size > self._max_header_bytes:
                        found.append(HeadersTooLarge())
                        return found
                    found.append(HeadersReceived(event.headers, event.stream_ended))
                elif isinstance(event, h3_events.DataReceived):
                    found.append(DataReceived(event.data, event.stream_ended))
        except Exception:
            logger.exception("HTTP/3 failed on stream %d", stream_id)
            self._quic.close(H3Error.INTERNAL_ERROR)
            return []
        state = self._h3._stream.get(stream_id)
        if state is not None and len(state.buffer) > self._max_header_bytes:
            found.append(HeadersTooLarge())
        return found

    def send_headers(self, stream_id: int, headers: Headers, end_stream: bool = False) -> None:
        """Send a header section. The caller keeps HTTP's order: headers, body, trailers."""
        self._h3.send_headers(stream_id, headers, end_stream)

    def send_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        """Send a DATA frame."""
        self._h3.send_data(stream_id, data, end_stream)

    def finish(self, stream_id: int) -> None:
        """End a message: FIN without an empty DATA frame, which would be illegal after trailers."""
        with self._h3._get_or_create_stream(stream_id) as state:
            state.sending_ended = True
        self._quic.send_stream_data(stream_id, b"", end_stream=True)

    def send_goaway(self, stream_id: int) -> None:
        """Send GOAWAY: requests from this stream id on will not be answered (RFC 9114, section 5.2)."""
        control = self._h3._local_control_stream_id
        assert control is not None
        self._quic.send_stream_data(control, encode_frame(FrameType.GOAWAY, varint.encode(stream_id)))

    def receiving_ended(self, stream_id: int) -> None:
        """Called when the receiving half of a stream ended early: the peer reset it, or this side stopped it."""
        self._h3.handle_event(StreamReset(error_code=H3Error.NO_ERROR, stream_id=stream_id))

    def sending_ended(self, stream_id: int) -> None:
        """Called when the sending half of a stream ended early: the peer stopped it, or this side reset it."""
        self._h3.handle_event(StopSendingReceived(error_code=H3Error.NO_ERROR, stream_id=stream_id))

    def remove(self, stream_id: int) -> None:
        """Remove the state of a stream whose halves both ended."""
        self._quic.streams.pop(stream_id, None)
        self._h3._stream.pop(stream_id, None)
