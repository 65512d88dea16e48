"""The handshake of the versions up to moq-lite-02, in the forms that it has taken.

It is read before the version is known, so it belongs to no version. `protocol/handshake.py` chooses the version.

| form | client | server | used by |
|---|---|---|---|
| `UNFRAMED` | `0x00, fields` | `fields` | moq-transfork-03 |
| `PREFIXED` | `0x00, i length, fields` | `i length, fields` | gomoqt's develop version; moq-lite in 2025 |
| `TYPED` | `i 0x40, i length, fields` | `i 0x41, i length, fields` | as moq-transport-07 did |
| `COMPAT` | `0x20, u16 length, fields` | `0x21, u16 length, fields` | moq-lite-01 and -02; as moq-transport-14 does |

The fields are `i count, i version …, parameters` from a client and `i version, parameters` from a server, with
`parameters = i count, {i id, b value} …`. In `COMPAT` the value of an even id is a varint. In `PREFIXED` the
parameters may be left out altogether.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from ..codes import SessionCode
from ..errors import LimitExceeded, LocalProtocolError, Malformed
from .buffer import Incomplete, Reader, UnframedReader, Writer
from .messages import Parameters, SessionClient, SessionServer, SessionUpdate

if TYPE_CHECKING:
    from ..limits import Limits
    from .buffer import StreamBuffer

PATH: Final = 0x1
"""The parameter that carries the request path, in every form."""

_SESSION_STREAM: Final = 0x00
_COMPAT: Final = (0x20, 0x21)
_TYPED: Final = (0x40, 0x41)

# A version's number is above this, and a count of versions below: that distinguishes the two forms with 0x00.
_LEAST_VERSION: Final = 0x1_0000


class HandshakeForm(enum.Enum):
    """How the handshake is framed."""

    UNFRAMED = "unframed"
    PREFIXED = "prefixed"
    TYPED = "typed"
    COMPAT = "compat"


# -- writing --------------------------------------------------------------------------------------------------


def encode_client(form: HandshakeForm, message: SessionClient) -> bytes:
    """Return the bytes that open a client's handshake, the stream's type included.

    Raises:
        LocalProtocolError: A value does not fit in this form.
    """
    writer = Writer()
    writer.varint(len(message.versions))
    for version in message.versions:
        writer.varint(version)
    _write_parameters(writer, form, message.parameters)
    opening = bytes((_SESSION_STREAM,)) if form in (HandshakeForm.UNFRAMED, HandshakeForm.PREFIXED) else b""
    return opening + _framed(writer, form, 0)


def encode_server(form: HandshakeForm, message: SessionServer) -> bytes:
    """Return the bytes of a server's answer. Raises as `encode_client` does."""
    writer = Writer()
    writer.varint(message.version)
    _write_parameters(writer, form, message.parameters)
    return _framed(writer, form, 1)


def _write_parameters(writer: Writer, form: HandshakeForm, parameters: Parameters | None) -> None:
    if parameters is None:
        if form is not HandshakeForm.PREFIXED:
            raise LocalProtocolError(f"the {form.value} form of the handshake always has parameters")
        return
    writer.varint(len(parameters))
    for number, value in parameters:
        writer.varint(number)
        if isinstance(value, bytes):
            if form is HandshakeForm.COMPAT and not number & 1:
                raise LocalProtocolError(f"parameter {number:#x} is a number in this form of the handshake")
            writer.data(value)
        elif form is HandshakeForm.COMPAT and not number & 1:
            writer.varint(value)
        else:
            raise LocalProtocolError(f"parameter {number:#x} is bytes in this form of the handshake")


def _framed(writer: Writer, form: HandshakeForm, side: int) -> bytes:
    match form:
        case HandshakeForm.UNFRAMED:
            return writer.getvalue()
        case HandshakeForm.PREFIXED:
            return writer.framed()
        case HandshakeForm.TYPED:
            return writer.framed(_TYPED[side])
        case HandshakeForm.COMPAT:
            if len(writer) > 0xFFFF:
                raise LocalProtocolError(f"this form of the handshake holds 65535 bytes, not {len(writer)}")
            return bytes((_COMPAT[side],)) + len(writer).to_bytes(2, "big") + writer.getvalue()


# -- reading --------------------------------------------------------------------------------------------------


def read_client_untrusted(buffer: StreamBuffer, limits: Limits) -> tuple[HandshakeForm, SessionClient] | None:
    """Take a client's opening out of a buffer. Until it is complete, return None and leave the buffer as it is.

    Raises:
        Malformed: The bytes are no handshake of any form; scope `"session"`.
        LimitExceeded: A length or a count goes past `limits`; scope `"session"`.
    """
    found = buffer.peek_varint()
    if found is None:
        return None
    number, offset = found
    if number == _SESSION_STREAM:
        return _read_session_client_untrusted(buffer, offset, limits)
    if number == _COMPAT[0]:
        form, reader = HandshakeForm.COMPAT, _compat_reader(buffer, offset, "CLIENT_SETUP", limits)
    elif number == _TYPED[0]:
        form, reader = HandshakeForm.TYPED, _prefixed_reader(buffer, offset, "CLIENT_SETUP", limits)
    else:
        raise Malformed(f"a session does not start with {number:#x}", code=SessionCode.PROTOCOL_VIOLATION)
    return None if reader is None else (form, _read_whole_client(reader, form, limits))


def _read_session_client_untrusted(
    buffer: StreamBuffer, offset: int, limits: Limits
) -> tuple[HandshakeForm, SessionClient] | None:
    first = buffer.peek_varint(offset)
    if first is None:
        return None
    if not first[0]:
        raise Malformed("SESSION_CLIENT: offers no version", code=SessionCode.PROTOCOL_VIOLATION)
    second = buffer.peek_varint(first[1])
    if second is None:
        return None
    if second[0] < _LEAST_VERSION:
        reader = _prefixed_reader(buffer, offset, "SESSION_CLIENT", limits)
        if reader is None:
            return None
        return HandshakeForm.PREFIXED, _read_whole_client(reader, HandshakeForm.PREFIXED, limits)
    try:
        unframed = UnframedReader(buffer, limits.max_message, "SESSION_CLIENT")
        unframed.varint()
        message = _read_client(unframed, HandshakeForm.UNFRAMED, limits)
    except Incomplete:
        return None
    unframed.finish()
    return HandshakeForm.UNFRAMED, message


def read_server_untrusted(form: HandshakeForm, buffer: StreamBuffer, limits: Limits) -> SessionServer | None:
    """Take a server's answer out of a buffer. Until it is complete, return None and leave the buffer as it is.

    Args:
        form: The form that the client opened with. Peers with several forms may answer `COMPAT` with `PREFIXED`.
        buffer: What has arrived.
        limits: The bounds.

    Raises:
        Malformed: The bytes are no answer in this form; scope `"session"`.
        LimitExceeded: A length or a count goes past `limits`; scope `"session"`.
    """
    if form is HandshakeForm.UNFRAMED:
        try:
            unframed = UnframedReader(buffer, limits.max_message, "SESSION_SERVER")
            message = _read_server(unframed, form, limits)
        except Incomplete:
            return None
        unframed.finish()
        return message
    reader: Reader | None
    if form is HandshakeForm.PREFIXED:
        reader = _prefixed_reader(buffer, 0, "SESSION_SERVER", limits)
    else:
        found = buffer.peek_varint()
        if found is None:
            return None
        number, offset = found
        if form is HandshakeForm.COMPAT and number == _COMPAT[1]:
            reader = _compat_reader(buffer, offset, "SERVER_SETUP", limits)
        elif form is HandshakeForm.COMPAT:
            form, reader = HandshakeForm.PREFIXED, _prefixed_reader(buffer, 0, "SESSION_SERVER", limits)
        elif number == _TYPED[1]:
            reader = _prefixed_reader(buffer, offset, "SERVER_SETUP", limits)
        else:
            raise Malformed(f"a server does not answer with {number:#x}", code=SessionCode.PROTOCOL_VIOLATION)
    if reader is None:
        return None
    message = _read_server(reader, form, limits)
    reader.expect_end()
    return message


def _prefixed_reader(buffer: StreamBuffer, offset: int, what: str, limits: Limits) -> Reader | None:
    found = buffer.peek_varint(offset)
    return None if found is None else _cut(buffer, found[0], found[1], what, limits)


def _compat_reader(buffer: StreamBuffer, offset: int, what: str, limits: Limits) -> Reader | None:
    size = buffer.peek_u16(offset)
    return None if size is None else _cut(buffer, size, offset + 2, what, limits)


def _cut(buffer: StreamBuffer, size: int, offset: int, what: str, limits: Limits) -> Reader | None:
    if size > limits.max_message:
        raise LimitExceeded("max_message", size, code=SessionCode.PROTOCOL_VIOLATION)
    if len(buffer) < offset + size:
        return None
    buffer.skip(offset)
    return Reader(buffer.take(size), what)


def _read_whole_client(reader: Reader, form: HandshakeForm, limits: Limits) -> SessionClient:
    message = _read_client(reader, form, limits)
    reader.expect_end()
    return message


def _read_client(reader: Reader, form: HandshakeForm, limits: Limits) -> SessionClient:
    versions = tuple(reader.varint() for _ in range(reader.count("max_parameters", limits.max_parameters)))
    return SessionClient(versions, _read_parameters(reader, form, limits))


def _read_server(reader: Reader, form: HandshakeForm, limits: Limits) -> SessionServer:
    return SessionServer(reader.varint(), _read_parameters(reader, form, limits))


def _read_parameters(reader: Reader, form: HandshakeForm, limits: Limits) -> Parameters | None:
    if form is HandshakeForm.PREFIXED and not reader.remaining:
        return None
    values: list[tuple[int, int | bytes]] = []
    for _ in range(reader.count("max_parameters", limits.max_parameters, item_size=2)):
        number = reader.varint()
        if form is HandshakeForm.COMPAT and not number & 1:
            values.append((number, reader.varint()))
        else:
            values.append((number, reader.data("max_message", limits.max_message)))
    return tuple(values)


# -- on the stream of the handshake, once there is a version ---------------------------------------------------


def read_session_update(reader: Reader, limits: Limits) -> SessionUpdate:
    """Read `i bitrate`, 0 for unknown."""
    return SessionUpdate(reader.varint() or None)


def write_session_update(writer: Writer, message: SessionUpdate) -> None:
    """Write `i bitrate`; a measured rate of 0 is written as 1."""
    writer.varint(0 if message.bitrate is None else message.bitrate or 1)
