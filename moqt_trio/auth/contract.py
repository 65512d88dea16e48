"""What a relay asks an auth server, and what that answers: moq-relay's contract, as values and as JSON.

A relay POSTs a request when a session asks to be admitted (`connect`), when its grant is to be asked for again
(`revalidate`), and when it has ended (`end`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

import attrs

from .. import Token
from ..access import Grant
from .documents import (
    Document,
    decode_base64url,
    encode_base64url,
    needed_text,
    optional_text,
    read_document_untrusted,
    seconds,
    texts,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

Event = Literal["connect", "revalidate", "end"]
_EVENTS: dict[str, Event] = {"connect": "connect", "revalidate": "revalidate", "end": "end"}

MAX_DOCUMENT = 64 * 1024
"""Bytes of a request, and of an answer."""


@attrs.frozen(kw_only=True)
class PeerCertificate:
    """The certificate of a client, verified by the relay. It admits nothing by itself.

    Attributes:
        name: Its first DNS name, else its common name, else its fingerprint.
        fingerprint: The SHA-256 of the certificate, in hexadecimal.
        issuer: The distinguished name of its issuer.
        expires: When it ends, in Unix seconds; None if unknown.
    """

    name: str
    fingerprint: str
    issuer: str
    expires: float | None = None


@attrs.frozen(kw_only=True)
class SessionEnd:
    """How a session ended.

    Attributes:
        reason: `expired`, `refused`, `invalid`, `dropped`, or a word of the relay's own.
        duration: Seconds that it was admitted.
        bytes_sent: Bytes that the relay sent.
        bytes_received: Bytes that the relay received.
    """

    reason: str
    duration: float
    bytes_sent: int
    bytes_received: int


@attrs.frozen(kw_only=True)
class AuthRequest:
    """What a relay asks an auth server.

    Attributes:
        id: The same for all requests of a session: 32 hexadecimal digits.
        event: `"connect"`, `"revalidate"` or `"end"`.
        node: The name of the relay.
        transport: `"quic"` for raw QUIC and WebTransport; moq-relay has others, too.
        path: The path as it was dialled.
        query: The query, without the `?`: often a credential, so never log it.
        remote: The client's address and port, as `203.0.113.9:4433`; None without one.
        local: The relay's address and port, likewise.
        server_name: The host that the client asked for; None where its transport does not say.
        alpn: The negotiated protocol.
        tokens: The token of the client's SETUP; one at most.
        role: `"publisher"`, `"subscriber"` or `"both"`.
        tls: The client's certificate; None without one.
        end: How the session ended, at its end.
    """

    id: str
    event: Event
    node: str
    transport: str
    path: str
    query: str = attrs.field(default="", repr=False)
    remote: str | None = None
    local: str | None = None
    server_name: str | None = None
    alpn: str | None = None
    tokens: tuple[Token, ...] = ()
    role: str = "both"
    tls: PeerCertificate | None = None
    end: SessionEnd | None = None

    def encode(self) -> bytes:
        """Return the request as JSON."""
        document: dict[str, object] = {"id": self.id, "event": self.event}
        if self.end is not None:
            document |= {
                "reason": self.end.reason,
                "duration": self.end.duration,
                "bytes": {"sent": self.end.bytes_sent, "received": self.end.bytes_received},
            }
        document |= {"node": self.node, "transport": self.transport, "path": self.path}
        optional = {
            "remote": self.remote,
            "local": self.local,
            "server_name": self.server_name,
            "alpn": self.alpn,
            "query": self.query or None,
            "role": None if self.role == "both" else self.role,
            "token": next(({"kind": each.kind, "value": encode_base64url(each.value)} for each in self.tokens), None),
            "tls": None if self.tls is None else _present(attrs.asdict(self.tls)),
        }
        return json.dumps(document | _present(optional)).encode()

    @classmethod
    def decode_untrusted(cls, data: bytes) -> AuthRequest:
        """Return the request of a JSON text. Raises ValueError: it is none.

        What is not known in it is passed over: a later moq-relay may say more.
        """
        document = read_document_untrusted(data, "the request")
        name = needed_text(document, "event")
        if name not in _EVENTS:
            raise ValueError("event is connect, revalidate or end")
        role = optional_text(document, "role") or "both"
        if role not in ("both", "publisher", "subscriber"):
            raise ValueError("role is publisher or subscriber")
        token, tls = _object(document, "token"), _object(document, "tls")
        return cls(
            id=needed_text(document, "id"),
            event=_EVENTS[name],
            node=needed_text(document, "node"),
            transport=needed_text(document, "transport"),
            path=needed_text(document, "path"),
            query=optional_text(document, "query") or "",
            remote=optional_text(document, "remote"),
            local=optional_text(document, "local"),
            server_name=optional_text(document, "server_name"),
            alpn=optional_text(document, "alpn"),
            tokens=() if token is None else (_token(token),),
            role=role,
            tls=None if tls is None else _certificate(tls),
            end=_end(document) if name == "end" else None,
        )


def _present(found: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in found.items() if value is not None}


def _object(document: Document, name: str) -> dict[str, object] | None:
    found = document.get(name)
    if found is not None and not isinstance(found, dict):
        raise ValueError(f"{name} is no JSON object")
    return found


def _count(document: Document, name: str) -> int:
    found = document.get(name, 0)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < 2**64:
        raise ValueError(f"{name} is no number of 64 bits")
    return found


def _token(document: Document) -> Token:
    return Token(decode_base64url(needed_text(document, "value"), "the token"), _count(document, "kind"))


def _certificate(document: Document) -> PeerCertificate:
    return PeerCertificate(
        name=needed_text(document, "name"),
        fingerprint=needed_text(document, "fingerprint"),
        issuer=needed_text(document, "issuer"),
        expires=seconds(document, "expires"),
    )


def _end(document: Document) -> SessionEnd:
    moved = _object(document, "bytes") or {}
    return SessionEnd(
        reason=needed_text(document, "reason"),
        duration=seconds(document, "duration") or 0.0,
        bytes_sent=_count(moved, "sent"),
        bytes_received=_count(moved, "received"),
    )


# -- grants ------------------------------------------------------------------------------------------------


def encode_grant(grant: Grant) -> bytes:
    """Return a grant as JSON. Times are whole seconds, as moq-relay reads no others: rounded down, but none to 0."""
    document: dict[str, object] = {name: list(found) for name, found in _both(grant).items() if found}
    document |= _present(
        {
            "root": grant.root,
            "expires": None if grant.expires is None else max(1, int(grant.expires)),
            "revalidate": None if grant.revalidate is None else max(1, int(grant.revalidate)),
            "tier": grant.tier,
        }
    )
    return json.dumps(document | ({"peer": True} if grant.peer else {})).encode()


def _both(grant: Grant) -> dict[str, tuple[str, ...]]:
    return {"publish": grant.publish, "subscribe": grant.subscribe}


def decode_grant_untrusted(data: bytes) -> Grant:
    """Return the grant of a JSON text. Raises ValueError: it is none, or it asks for what this library does not do."""
    document = read_document_untrusted(data, "the grant")
    if _object(document, "mounts"):
        raise ValueError("the grant has mounts, which are not supported")
    peer = document.get("peer", False)
    if not isinstance(peer, bool):
        raise ValueError("peer is neither true nor false")
    return Grant(
        publish=texts(document, "publish") or (),
        subscribe=texts(document, "subscribe") or (),
        root=optional_text(document, "root"),
        expires=seconds(document, "expires"),
        revalidate=seconds(document, "revalidate"),
        tier=optional_text(document, "tier"),
        peer=peer,
    )
