"""The exceptions of moqt_trio.

MoqtError
├─ ProtocolError(code)            abstract
│   ├─ LocalProtocolError         the caller misused the API; state is unchanged
│   │    └─ GoingAway             the peer asked us to leave: nothing new can be asked for on this session
│   └─ RemoteProtocolError        the peer broke the specification
│        ├─ Malformed             undecodable bytes
│        └─ LimitExceeded         a peer went past a bound of `Limits`
├─ SessionClosed                  the session is over, with both sides' codes
├─ StreamReset(code)              one stream was reset; a trio.BrokenResourceError too
├─ ConnectError                   no session came about
│   ├─ HandshakeFailed            the QUIC or HTTP/3 handshake was refused
│   ├─ CertificateInvalid         the server's certificate is not trusted
│   ├─ VersionUnsupported         both sides speak MoQ, but share no version
│   ├─ ConnectTimeout             nobody answered in time
│   └─ RedirectRefused            a GOAWAY led to where this client does not go
├─ Rejected(status)               the server refused the session
├─ Unauthorized(path)             the peer may not use this path
├─ NotFound(path, track)          the publisher has no such broadcast, track or group
└─ CertificateUnusable            a certificate, a key or their store cannot be used
"""

from __future__ import annotations

from typing import Literal

import trio

Scope = Literal["stream", "session"]
"""The smallest thing that a peer's mistake breaks."""

_TEXT_LIMIT = 256


def printable(text: str | bytes) -> str:
    """Returns a peer's text in a form that is safe to log: ASCII only, escaped, at most 256 characters."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    shown = ascii(text)[1:-1]
    return shown if len(shown) <= _TEXT_LIMIT else shown[: _TEXT_LIMIT - 1] + "~"


class MoqtError(Exception):
    """The base of every exception that this library defines."""


class ProtocolError(MoqtError):
    """A rule of the protocol was broken, here or by the peer.

    Attributes:
        code: The error code that goes (or would go) on the wire.
    """

    def __init__(self, message: str, *, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class LocalProtocolError(ProtocolError):
    """The caller asked for something that the protocol forbids. Nothing was sent and no state changed."""


class GoingAway(LocalProtocolError):
    """The peer asked us to leave with GOAWAY: what runs may end in peace, and nothing new may be asked for here.

    Attributes:
        uri: Where the peer sends us; empty when it names no place.

    Spec: draft-lcurley-moq-lite-06, section 5.1.6.
    """

    def __init__(self, uri: str = "") -> None:
        super().__init__("the peer asked us to leave (GOAWAY): ask on a new session; stay_connected opens it")
        self.uri = uri


class RemoteProtocolError(ProtocolError):
    """The peer broke the specification.

    Attributes:
        code: The code that the stream or the session is closed with.
        scope: `"stream"` when only the stream is broken, `"session"` when the session has to end.
        said_before: What the same bytes said in front of the mistake, which counts: frames where a decoder raises this,
            events where a session's machine does. Else how a stream is cut would decide what is heard of it.
    """

    def __init__(self, message: str, *, code: int = 3, scope: Scope = "session") -> None:
        super().__init__(message, code=code)
        self.scope: Scope = scope
        self.said_before: tuple[object, ...] = ()


class Malformed(RemoteProtocolError):
    """The peer sent bytes that do not decode."""


class LimitExceeded(RemoteProtocolError):
    """The peer went past a bound.

    Attributes:
        limit: The name of the field of `Limits`.
        value: What the peer asked for, in that field's unit.
    """

    def __init__(self, limit: str, value: int, *, code: int = 3, scope: Scope = "session") -> None:
        super().__init__(f"the peer exceeded {limit}: {value}", code=code, scope=scope)
        self.limit = limit
        self.value = value


class SessionClosed(MoqtError):
    """The session is over.

    Attributes:
        local_code: The code that this side closed with, or None when this side did not close.
        remote_code: The code that the peer closed with, or None when the peer did not close.
        reason: The closing side's text, made safe to log.
        by_peer: True when the peer closed first.
    """

    def __init__(
        self,
        *,
        local_code: int | None = None,
        remote_code: int | None = None,
        reason: str = "",
        by_peer: bool = False,
    ) -> None:
        self.local_code = local_code
        self.remote_code = remote_code
        self.reason = printable(reason)
        self.by_peer = by_peer
        who = "the peer" if by_peer else "this side"
        code = remote_code if by_peer else local_code
        text = f"the session was closed by {who}"
        if code is not None:
            text += f" with code {code:#x}"
        if self.reason:
            text += f": {self.reason}"
        super().__init__(text)


class StreamReset(MoqtError, trio.BrokenResourceError):
    """One stream was given up before its end. The session goes on.

    Attributes:
        code: The error code, in the negotiated version's stream code space; an unknown code stays an int.
        by_peer: True when the peer gave up (RESET_STREAM or STOP_SENDING).
    """

    def __init__(self, code: int, *, by_peer: bool = True) -> None:
        self.code = code
        self.by_peer = by_peer
        super().__init__(f"the stream was reset by {'the peer' if by_peer else 'this side'} with code {code:#x}")

    @classmethod
    def after(cls, mistake: ProtocolError) -> StreamReset:
        """Returns what a reader sees of a stream that this side gave up for the peer's mistake, which is the cause."""
        reset = cls(mistake.code, by_peer=False)
        reset.__cause__ = mistake
        return reset


class ConnectError(MoqtError):
    """No session came about."""


class HandshakeFailed(ConnectError):
    """The peer, or nobody at all, refused the QUIC or HTTP/3 handshake."""


class CertificateInvalid(ConnectError):
    """The server's certificate is not one that this client trusts."""


class VersionUnsupported(ConnectError):
    """The two sides share no MoQ version.

    Attributes:
        offered: The versions that this side offered, best first.
    """

    def __init__(self, message: str, *, offered: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.offered = offered


class ConnectTimeout(ConnectError):
    """Nobody answered within `Limits.connect_timeout`."""


class RedirectRefused(ConnectError):
    """A server asked this client to go to a place that the client does not go to; see `stay_connected`.

    Attributes:
        uri: What the server's GOAWAY says, made safe to log and without its query.
        chain: The URLs that led there, the first one first, likewise without their queries.
    """

    def __init__(self, message: str, *, uri: str, chain: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.uri = uri
        self.chain = chain


class Rejected(MoqtError):
    """The server refused the session.

    Attributes:
        status: The HTTP status of the answer (404: no such path, 403: not allowed); raw QUIC uses the same numbers.
    """

    def __init__(self, status: int, reason: str = "") -> None:
        self.status = status
        self.reason = printable(reason)
        detail = f": {self.reason}" if reason else ""
        super().__init__(f"the server refused the session with status {status}{detail}")


class Unauthorized(MoqtError):
    """The peer may not publish or subscribe under this path. For handlers to raise; the library itself never does.

    Attributes:
        path: The broadcast path.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"not allowed: {printable(path)}")


class NotFound(MoqtError):
    """The publisher has no such broadcast, track or group.

    Attributes:
        path: The broadcast path.
        track: The track's name.
    """

    def __init__(self, path: str, track: str, detail: str = "") -> None:
        self.path = path
        self.track = track
        suffix = f" ({detail})" if detail else ""
        super().__init__(f"not found: track {printable(track)!r} of {printable(path)!r}{suffix}")


class CertificateUnusable(MoqtError):
    """A certificate, a key or the store of development certificates cannot be used.

    The message names the file and the remedy.
    """
