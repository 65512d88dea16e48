"""A client's wish for a WebTransport session, and the two answers to it.

Knows nothing of who decides, or by what.

Spec: RFC 9220; draft-ietf-webtrans-http3, sections 3.2 and 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from .subprotocols import PROTOCOL, encode_protocol

if TYPE_CHECKING:
    from ..http3.exchange import Exchange
    from ..http3.fields import Headers
    from .session import WebTransportSession


@attrs.define(eq=False)
class WebTransportRequest:
    """A client asks for a session. Answer it once, with `accept` or `reject`.

    Attributes:
        path: The path that is asked for, without its query.
        query: What stands behind `?`; "" when there is nothing.
        authority: The host and port that is asked for.
        origin: The web page's origin; None when the client is no browser.
        headers: All fields, pseudo-fields first.
        protocols: The subprotocols that the client offers, best first.
        peer: The client's address and port.
        answered: True once it was accepted or rejected.
    """

    path: str
    query: str
    authority: str
    origin: str | None
    headers: Headers = attrs.field(repr=False)
    protocols: tuple[str, ...]
    peer: tuple[str, int] | None
    _session: WebTransportSession = attrs.field(alias="session", repr=False)
    _exchange: Exchange = attrs.field(alias="exchange", repr=False)
    answered: bool = attrs.field(default=False, init=False)

    def accept(self, protocol: str | None = None) -> WebTransportSession:
        """Opens the session and returns it.

        Args:
            protocol: The subprotocol, one of `protocols`; None answers without one.

        Raises:
            ValueError: The client did not offer this subprotocol.
            RuntimeError: The request was answered before.
            SessionClosed: The client has gone away.
        """
        if protocol is not None and protocol not in self.protocols:
            raise ValueError(f"the client did not offer {protocol!r}")
        self._answer()
        if self._session.closed is not None:
            raise self._session.closed.with_traceback(None)
        headers = [(b":status", b"200"), (b"sec-webtransport-http3-draft", b"draft02")]
        if protocol is not None:
            headers.append((PROTOCOL, encode_protocol(protocol)))
        self._exchange.send_headers(headers)
        self._session.establish(protocol)
        return self._session

    def reject(self, status: int, body: bytes = b"") -> None:
        """Refuses the session.

        Args:
            status: An HTTP status of 300 or above: 404 no such path, 403 not allowed, 421 not this host.
            body: A text for people.

        Raises:
            ValueError: The status would mean success.
            RuntimeError: The request was answered before.
        """
        if not 300 <= status <= 599:
            raise ValueError(f"status {status} refuses nothing")
        self._answer()
        self._exchange.respond(status, body)
        self._session.close(reason=f"rejected with status {status}")

    def _answer(self) -> None:
        if self.answered:
            raise RuntimeError("the request was answered before")
        self.answered = True
