"""The exceptions of moqt_trio.

MoqtError
├─ ProtocolError(code)            abstract
│   ├─ LocalProtocolError         the caller misused the API; state is unchanged
│   └─ RemoteProtocolError        the peer broke the specification
│        ├─ Malformed             undecodable bytes
│        └─ LimitExceeded         a peer exceeded a bound of `Limits`
├─ SessionClosed                  the session ended, with both sides' codes
├─ GoingAway(uri)                 the peer sent GOAWAY: new requests need a new session
├─ StreamReset(code)              one stream was reset; a trio.BrokenResourceError too
├─ ConnectError                   no session was opened
│   ├─ HandshakeFailed            the QUIC or HTTP/3 handshake failed
│   ├─ CertificateInvalid         the server's certificate is not trusted
│   ├─ VersionUnsupported         both sides speak MoQ, but share no version
│   ├─ ConnectTimeout             no session in time
│   └─ RedirectRefused            a GOAWAY leads to a URL that this client does not follow
├─ Rejected(status)               the server refused the session
├─ Unauthorized(path)             the peer may not use this path
├─ NotFound(path, track)          the publisher has no such broadcast, track or group
├─ CertificateUnusable            a certificate, a key or their store cannot be used
└─ WorkerFailed(index)            one of several processes on a port does not start, or not again

Each can be copied and pickled with its attributes, but without its cause and its traceback.
"""

from __future__ import annotations

from copy import copy
from typing import Literal, TypeVar

import trio

from .codes import SessionCode, StreamCode, describe_session_code, describe_stream_code

Scope = Literal["stream", "session"]
"""What a peer's mistake breaks: one stream, or the session."""

_TEXT_LIMIT = 256
"""Characters of a peer's text that are shown: enough for a sentence, too few to fill a log."""

ErrorT = TypeVar("ErrorT", bound="MoqtError")
ExceptionT = TypeVar("ExceptionT", bound=Exception)


class _Printable(str):
    """A text that is escaped already: a reason passes from one error to the next, and is escaped once."""

    __slots__ = ()


def printable(text: str | bytes) -> str:
    """Return a peer's text in a form that is safe to log: ASCII only, escaped, at most 256 characters.

    What it returned is returned unchanged.
    """
    if isinstance(text, _Printable):
        return text
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    shown = ascii(text)[1:-1]
    return _Printable(shown if len(shown) <= _TEXT_LIMIT else shown[: _TEXT_LIMIT - 1] + "~")


def _restore(kind: type[ErrorT], arguments: tuple[object, ...]) -> ErrorT:
    """Return an exception without its `__init__`, which takes other arguments than `args` has."""
    return kind.__new__(kind, *arguments)


def fresh(error: ExceptionT) -> ExceptionT:
    """Return a copy to raise of an exception that is kept.

    One that was raised has the frames that it passed through. They refer to what keeps it: work for the garbage
    collector.
    """
    raised = copy(error)
    raised.__cause__, raised.__suppress_context__ = error.__cause__, error.__suppress_context__
    return raised


class MoqtError(Exception):
    """The base of every exception that this library defines."""

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (type(self), self.args), self.__dict__.copy()


class ProtocolError(MoqtError):
    """A rule of the protocol was broken, here or by the peer.

    Attributes:
        code: The error code that goes (or would go) on the wire.
    """

    def __init__(self, message: str, *, code: int = SessionCode.NO_ERROR) -> None:
        super().__init__(message)
        self.code = code


class LocalProtocolError(ProtocolError):
    """The caller asked for something that the protocol forbids. Nothing was sent and no state changed."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the specification.

    Attributes:
        code: The code that the stream or the session is closed with.
        scope: `"stream"` when only the stream is broken, `"session"` when the session has to end.
    """

    def __init__(self, message: str, *, code: int = SessionCode.PROTOCOL_VIOLATION, scope: Scope = "session") -> None:
        super().__init__(message, code=code)
        self.scope: Scope = scope


class Malformed(RemoteProtocolError):
    """The peer sent bytes that do not decode."""


class LimitExceeded(RemoteProtocolError):
    """The peer exceeded a bound.

    Attributes:
        limit: The name of the field of `Limits`.
        value: What the peer asked for, in that field's unit.
    """

    def __init__(
        self, limit: str, value: int, *, code: int = SessionCode.PROTOCOL_VIOLATION, scope: Scope = "session"
    ) -> None:
        super().__init__(f"the peer exceeded {limit}: {value}", code=code, scope=scope)
        self.limit = limit
        self.value = value


class SessionClosed(MoqtError):
    """The session ended.

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
        closer = "the peer" if by_peer else "this side"
        code = remote_code if by_peer else local_code
        text = f"the session was closed by {closer}"
        if code is not None:
            text += f" with code {describe_session_code(code)}"
        if self.reason:
            text += f": {self.reason}"
        super().__init__(text)


class GoingAway(MoqtError):
    """The peer sent GOAWAY. Running requests may finish; new requests need a new session.

    Attributes:
        uri: Where the peer asks this side to connect instead; empty when it names no URI.

    Spec: draft-lcurley-moq-lite-06, section 5.1.6.
    """

    def __init__(self, uri: str = "") -> None:
        super().__init__("the peer asked us to leave (GOAWAY): ask on a new session; stay_connected opens it")
        self.uri = uri


class StreamReset(MoqtError, trio.BrokenResourceError):
    """One stream ended before it was complete. The session goes on.

    A peer that leaves resets its streams just before it ends the session: that is raised as `SessionClosed`.

    Attributes:
        code: The error code, in the negotiated version's stream code space; an unknown code stays an int.
        by_peer: True when the peer ended it (RESET_STREAM or STOP_SENDING).
    """

    def __init__(self, code: int, *, by_peer: bool = True) -> None:
        self.code = code
        self.by_peer = by_peer
        closer = "the peer" if by_peer else "this side"
        message = f"the stream was reset by {closer} with code {describe_stream_code(code)}"
        if by_peer and code == StreamCode.NO_CAPACITY:
            message += "; it serves no more requests at once: leave others first, or raise its limits"
        super().__init__(message)

    @classmethod
    def after(cls, mistake: ProtocolError) -> StreamReset:
        """Return the error for a reader of a stream that this side reset for the peer's mistake, which is the cause."""
        reset = cls(mistake.code, by_peer=False)
        reset.__cause__ = mistake
        return reset


class ConnectError(MoqtError):
    """No session was opened."""


class HandshakeFailed(ConnectError):
    """The QUIC or HTTP/3 handshake failed, or no server was listening."""


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
    """No session was opened within `Limits.connect_timeout`."""


class RedirectRefused(ConnectError):
    """A server redirected this client to a URL that the client does not follow; see `stay_connected`.

    Attributes:
        uri: The URI of the server's GOAWAY, made safe to log and without its query.
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
    """The peer may not publish or subscribe under this path. For the handlers of a server to raise.

    Raised before the request was accepted, it is answered with its status; afterwards the session closes with
    UNAUTHORIZED. Of the library itself, only `moqt_trio.auth` raises it.

    Attributes:
        path: The broadcast path.
        status: The HTTP status of the answer; raw QUIC uses the same numbers. 401: the credential is not accepted;
            403: it does not allow this; 502: what decides does not answer.

    Args:
        path: The broadcast path.
        detail: Why, for this side's log: the peer is not told.
        status: The status.
    """

    def __init__(self, path: str, detail: str = "", *, status: int = 403) -> None:
        self.path = path
        self.status = status
        super().__init__(f"not allowed: {printable(path)}{f' ({printable(detail)})' if detail else ''}")


class NotFound(MoqtError):
    """The publisher has no such broadcast, track or group.

    Attributes:
        path: The broadcast path.
        track: The track's name; empty when the whole broadcast is missing.
    """

    def __init__(self, path: str, track: str, detail: str = "") -> None:
        self.path = path
        self.track = track
        suffix = f" ({detail})" if detail else ""
        what = f"track {printable(track)!r} of {printable(path)!r}" if track else f"broadcast {printable(path)!r}"
        super().__init__(f"not found: {what}{suffix}")


class CertificateUnusable(MoqtError):
    """A certificate, a key or the store of development certificates cannot be used.

    The message names the file and the remedy.
    """


class WorkerFailed(MoqtError):
    """A worker of `run_workers` could not start, or ended again and again. The others were ended.

    Attributes:
        index: Which worker it was.
    """

    def __init__(self, message: str, *, index: int) -> None:
        super().__init__(message)
        self.index = index
