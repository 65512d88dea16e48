"""One HTTP/3 request and its response on one stream: order, credit and endings, for both sides.

What the request is for is its owner's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..code_mapping import PLAIN_CODES
from ..interface import StreamHandler
from .codec import DataReceived, HeadersReceived, HeadersTooLarge
from .constants import H3Error

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...errors import MoqtError
    from ..stream import BidiStream
    from .codec import Http3
    from .fields import Headers


class ExchangeOwner(Protocol):
    """Called with what the peer does on one exchange: synchronously, so it must not block, and must not raise."""

    def headers_received(self, exchange: Exchange, headers: Headers, fin: bool) -> None:
        """Called with the headers of the request or of the response, and of each interim response."""

    def body_received(self, exchange: Exchange, data: bytes, fin: bool) -> None:
        """Called with each piece of the body. Its credit returns to the peer by `Exchange.consumed`."""

    def headers_too_large(self, exchange: Exchange) -> None:
        """Called when the peer's headers passed the limit, and were dropped."""

    def exchange_ended(self, exchange: Exchange, error: MoqtError | None) -> None:
        """Called when the peer reset or stopped one of the halves, or the connection was lost (`error`)."""


class _NoOwner:
    """The owner of an exchange that has ended; what was read before the end may still be delivered."""

    def headers_received(self, exchange: Exchange, headers: Headers, fin: bool) -> None:
        pass

    def body_received(self, exchange: Exchange, data: bytes, fin: bool) -> None:
        exchange.consumed(len(data))

    def headers_too_large(self, exchange: Exchange) -> None:
        pass

    def exchange_ended(self, exchange: Exchange, error: MoqtError | None) -> None:
        pass


_NO_OWNER = _NoOwner()


class Exchange(StreamHandler):
    """A request and its response.

    Sending after the sending half ended does nothing: the peer may stop the stream at any moment.

    Attributes:
        stream_id: The stream's id; for a CONNECT it is the session id.
        owner: Called with what the peer does, until the exchange has settled.
        when_acknowledged: Called once the peer has acknowledged all that was sent, the end included.
        when_settled: Called once both halves have ended, and the peer has acknowledged or stopped the sending half.
        delays_goaway: True while GOAWAY must not be sent because of this exchange.
    """

    __slots__ = (
        "_final_headers",
        "_http3",
        "_pending",
        "_stream",
        "delays_goaway",
        "owner",
        "stream_id",
        "when_acknowledged",
        "when_settled",
    )

    def __init__(self, http3: Http3, stream: BidiStream, owner: ExchangeOwner) -> None:
        self._http3 = http3
        self._stream = stream
        self._final_headers = False
        self.owner = owner
        self.delays_goaway = False
        self._pending = False
        self.when_acknowledged: Callable[[], None] | None = None
        self.when_settled: Callable[[], None] | None = None
        self.stream_id = stream.stream_id
        http3.add(stream)
        stream.codes = PLAIN_CODES
        stream.handler = self

    @property
    def started(self) -> bool:
        """True once the peer's headers have arrived, or cannot arrive any more."""
        return self._final_headers or self._stream.receive_ended

    # -- sending -------------------------------------------------------------------------------------------

    @property
    def send_ended(self) -> bool:
        """True once nothing more can be sent."""
        return self._stream.send_ended

    def send_headers(self, headers: Headers) -> None:
        """Send headers, or trailers."""
        if not self._stream.send_ended:
            self._http3.send_headers(self.stream_id, headers)

    def send_data(self, data: bytes) -> None:
        """Send a piece of the body."""
        if not self._stream.send_ended:
            self._http3.send_data(self.stream_id, data)

    async def wait_writable(self) -> None:
        """Wait until the stream has room. Raises `StreamReset`, `SessionClosed` or trio.ClosedResourceError."""
        await self._stream.wait_writable()

    def finish(self) -> None:
        """End the message."""
        if not self._stream.send_ended:
            self._pending = True
            self._http3.finish(self.stream_id)
            self._release()

    def respond(self, status: int, body: bytes = b"", headers: Headers | None = None) -> None:
        """Send a whole response, and read no more of the request."""
        fields = [(b":status", b"%d" % status), (b"content-length", b"%d" % len(body)), *(headers or [])]
        self.send_headers(fields)
        if body:
            self.send_data(body)
        self.finish()
        self.stop(H3Error.NO_ERROR)

    def abort(self, code: int) -> None:
        """Reset and stop what is left of the stream."""
        if not self._stream.send_ended:
            self._stream.reset(code)
            self._http3.sending_ended(self.stream_id)
        self.stop(code)

    # -- receiving -----------------------------------------------------------------------------------------

    def consumed(self, count: int) -> None:
        """Return credit for bytes of the body."""
        self._stream.consumed(count)

    def stop(self, code: int) -> None:
        """Read no more; what still arrives is dropped and credited."""
        ended = self._stream.receive_ended
        self._stream.stop(code)
        if not ended:
            self._http3.receiving_ended(self.stream_id)
        self._release()

    def data_received(self, data: bytes, fin: bool) -> None:
        body = 0
        for event in self._http3.receive(self.stream_id, data, fin):
            if isinstance(event, DataReceived):
                body += len(event.data)
                self.owner.body_received(self, event.data, event.fin)
            elif isinstance(event, HeadersReceived):
                self._headers_received(event.headers, event.fin)
            elif isinstance(event, HeadersTooLarge):
                self.owner.headers_too_large(self)
                break
        self._stream.consumed(len(data) - body)
        self._release()

    def _headers_received(self, headers: Headers, fin: bool) -> None:
        if self._final_headers:
            # Trailers are ignored, but they may end the body.
            if fin:
                self.owner.body_received(self, b"", True)
            return
        status = next((value for name, value in headers if name == b":status"), b"")
        self._final_headers = not status.startswith(b"1")
        self.owner.headers_received(self, headers, fin)

    def reset_received(self, code: int) -> None:
        self._http3.receiving_ended(self.stream_id)
        self.owner.exchange_ended(self, None)
        self._release()

    def stop_received(self, code: int) -> None:
        self._http3.sending_ended(self.stream_id)
        self._pending = False
        # With NO_ERROR a server stops the rest of a request that it has answered (RFC 9114, section 4.1).
        if code != H3Error.NO_ERROR:
            self.owner.exchange_ended(self, None)
        self._release()

    def send_finished(self) -> None:
        self._pending = False
        if self.when_acknowledged is not None:
            self.when_acknowledged()
        self._release()

    def connection_lost(self, error: MoqtError) -> None:
        self.owner.exchange_ended(self, error)
        self._drop_owner()

    def _release(self) -> None:
        if self._stream.receive_ended and self._stream.send_ended:
            self._http3.remove(self.stream_id)
            if not self._pending:
                settled = self.when_settled
                self._drop_owner()
                if settled is not None:
                    settled()

    def _drop_owner(self) -> None:
        """Drop what is called: an owner that holds its exchange would be work for the garbage collector."""
        self.owner = _NO_OWNER
        self.when_acknowledged = self.when_settled = None
