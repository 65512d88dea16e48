"""Claims: what a token says, and the scope of a key, in moq-relay's form.

What is granted is written in one of two ways. `put` and `get` are prefixes, each for a path and all below it; every
verifier reads them. `publish` and `subscribe` are patterns, which older verifiers refuse: they are written only where
prefixes do not say it. A document never has both.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import attrs

from ..arguments import want, want_seconds
from ..errors import printable
from ..patterns import Pattern, Patterns, parts_of, patterns_of
from .documents import Document, names_of, optional_text, read_document_untrusted, seconds, texts

_GRANTS = {"root", "put", "get", "publish", "subscribe"}
_TIMES = {"exp", "iat", "nbf"}
_IGNORED = {"iss", "sub", "jti"}
"""Who issued the token, to whom, and its number: they allow nothing less."""


def _publish_texts(given: Sequence[str]) -> tuple[str, ...]:
    return patterns_of("publish", given).texts


def _subscribe_texts(given: Sequence[str]) -> tuple[str, ...]:
    return patterns_of("subscribe", given).texts


@attrs.frozen(kw_only=True)
class Scope:
    """The most that the tokens of a key may allow; see `TokenKey`.

    Attributes:
        root: The path that the patterns are below.
        publish: Patterns of what may be published.
        subscribe: Patterns of what may be subscribed to.

    Raises:
        ValueError: A text is no pattern, or the root has a `*`.
    """

    root: str = ""
    publish: tuple[str, ...] = attrs.field(default=(), converter=_publish_texts)
    subscribe: tuple[str, ...] = attrs.field(default=(), converter=_subscribe_texts)

    def __attrs_post_init__(self) -> None:
        want(self.root, str, "a root is a text such as 'live'")
        self._named_from_above()

    def _named_from_above(self) -> tuple[Patterns, Patterns]:
        """Return what may be published and what may be subscribed to, below no root."""
        publish, subscribe = Patterns.parse(self.publish), Patterns.parse(self.subscribe)
        return publish.rooted(self.root), subscribe.rooted(self.root)

    def allows(self, other: Scope) -> bool:
        """Return whether all that another one allows is allowed here, however its root is split."""
        (publish, subscribe), (theirs, theirs_too) = self._named_from_above(), other._named_from_above()
        return publish.covers(theirs) and subscribe.covers(theirs_too)

    def _document(self) -> dict[str, object]:
        publish, subscribe = Patterns.parse(self.publish), Patterns.parse(self.subscribe)
        put = [pattern.prefix for pattern in publish]
        get = [pattern.prefix for pattern in subscribe]
        prefixes = None not in put and None not in get
        granted = {"put": put, "get": get} if prefixes else {"publish": publish.texts, "subscribe": subscribe.texts}
        # @moq/token 0.2 reads no token without a root.
        return {"root": self.root, **{name: list(found) for name, found in granted.items() if found}}


@attrs.frozen(kw_only=True)
class Claims(Scope):
    """What a token allows.

    Attributes:
        root: The path that the patterns are below.
        publish: Patterns of the broadcasts that may be published; see `Grant`.
        subscribe: Patterns of the broadcasts that may be subscribed to.
        expires: When the token, and each session with it, ends, in Unix seconds; None for never.
        issued: When it was issued, likewise; nothing heeds it.
        not_before: When it begins to hold, likewise.

    Raises:
        ValueError: A text is no pattern, or the root has a `*`.
    """

    expires: float | None = None
    issued: float | None = None
    not_before: float | None = None

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        for name in ("expires", "issued", "not_before"):
            if getattr(self, name) is not None:
                want_seconds(name, getattr(self, name))

    def at(self, path: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return what may be published and what may be subscribed to, as patterns below a path that was dialled.

        Args:
            path: The path: below the root, or above it.

        Raises:
            ValueError: The path and the root have nothing in common, or nothing is allowed below the path.
        """
        dialled, root = parts_of(path), parts_of(self.root)
        publish, subscribe = Patterns.parse(self.publish), Patterns.parse(self.subscribe)
        if dialled[: len(root)] == root:
            rest = dialled[len(root) :]
            publish, subscribe = publish.rebased(rest), subscribe.rebased(rest)
        elif root[: len(dialled)] == dialled:
            rest_of_root = "/".join(root[len(dialled) :])
            publish, subscribe = publish.rooted(rest_of_root), subscribe.rooted(rest_of_root)
        else:
            raise ValueError(f"the root {printable(self.root)!r} and the path {printable(path)!r} do not overlap")
        if not publish and not subscribe:
            raise ValueError(f"nothing is granted at {printable(path)!r}")
        return publish.texts, subscribe.texts

    def check_time(self, now: float | None = None) -> None:
        """Raise ValueError before `not_before` and from `expires` on.

        Args:
            now: The time in Unix seconds; None for the present.
        """
        now = time.time() if now is None else now
        if self.expires is not None and self.expires <= now:
            raise ValueError("the token has expired")
        if self.not_before is not None and self.not_before > now:
            raise ValueError("the token does not hold yet")

    def encode(self) -> bytes:
        """Return the claims as a token has them. Raises ValueError if they allow nothing, which none verifies."""
        if not self.publish and not self.subscribe:
            raise ValueError("a token has to allow something: give publish= or subscribe=")
        times = {"exp": self.expires, "iat": self.issued, "nbf": self.not_before}
        # moq-relay reads whole seconds.
        whole = {name: int(found) for name, found in times.items() if found is not None}
        return json.dumps(self._document() | whole, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, payload: bytes) -> Claims:
        """Return the claims of a token's payload. Raises ValueError: it is not what a token carries.

        A claim that is not known refuses the token, as it may narrow what the others allow.
        """
        document = read_document_untrusted(payload, "the token")
        names_of(document, _GRANTS | _TIMES | _IGNORED, "the token")
        publish, subscribe = _granted(document, one=True)
        if not publish and not subscribe:
            raise ValueError("the token allows nothing")
        return cls(
            root=optional_text(document, "root") or "",
            publish=publish,
            subscribe=subscribe,
            expires=seconds(document, "exp"),
            issued=seconds(document, "iat"),
            not_before=seconds(document, "nbf"),
        )


def scope_of(document: object) -> Scope:
    """Return the scope that a key has. Raises ValueError: it is none, or it allows nothing."""
    if not isinstance(document, dict):
        raise ValueError("the scope of the key is no JSON object")
    names_of(document, _GRANTS, "the scope of the key")
    publish, subscribe = _granted(document, one=False)
    if not publish and not subscribe:
        raise ValueError("the scope of the key allows nothing")
    return Scope(root=optional_text(document, "root") or "", publish=publish, subscribe=subscribe)


def _granted(document: Document, *, one: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the patterns of both directions, in whichever way they are written."""
    put, get = (texts(document, name, one=one) for name in ("put", "get"))
    publish, subscribe = (texts(document, name) for name in ("publish", "subscribe"))
    if put is None and get is None:
        return Patterns.parse(publish or ()).texts, Patterns.parse(subscribe or ()).texts
    if publish is not None or subscribe is not None:
        raise ValueError("put and get do not go together with publish and subscribe")
    below = ([Pattern.below(prefix) for prefix in prefixes or ()] for prefixes in (put, get))
    from_put, from_get = (Patterns.of(patterns).texts for patterns in below)
    return from_put, from_get
