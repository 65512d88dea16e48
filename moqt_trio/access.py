"""Grant: what one session may publish and subscribe to, and until when. Plain data; `moqt_trio.auth` makes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs

from .arguments import want, want_seconds
from .path import BroadcastPath
from .patterns import Patterns, patterns_of

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from .lease import LeasedSession


def _publish_texts(texts: Sequence[str]) -> tuple[str, ...]:
    return patterns_of("publish", texts).texts


def _subscribe_texts(texts: Sequence[str]) -> tuple[str, ...]:
    return patterns_of("subscribe", texts).texts


@attrs.frozen(kw_only=True)
class Grant:
    """What one session may do.

    A pattern is what moq-relay calls one: `live/cam` is one broadcast, `live/**` is `live` and all below it, `live/*`
    and `live/cam*` match one part, `**` is everything. It has at most 32 parts, and `**` once.

    Attributes:
        publish: Patterns of the broadcasts that the peer may announce, below the session's path; without those that
            another one contains. At most 256.
        subscribe: Patterns of the broadcasts that the peer is told of and may read, likewise.
        root: The path that takes the place of the session's own, which the patterns are below; None leaves that.
        expires: When the session has to end, in Unix seconds; None for no such time.
        revalidate: Seconds after which the auth server is asked again; only `AuthClient` heeds it.
        tier: A label for statistics.
        peer: True for another relay of the same cluster.

    Raises:
        TypeError: A value is of another type: one text in place of a list of patterns, say.
        ValueError: A text is no pattern, or a time is no number; `revalidate` without `expires`.
    """

    publish: tuple[str, ...] = attrs.field(default=(), converter=_publish_texts)
    subscribe: tuple[str, ...] = attrs.field(default=(), converter=_subscribe_texts)
    root: str | None = None
    expires: float | None = None
    revalidate: float | None = None
    tier: str | None = None
    peer: bool = False
    _publishing: Patterns = attrs.field(init=False, eq=False, repr=False)
    _subscribing: Patterns = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        for name, text in (("root", self.root), ("tier", self.tier)):
            if text is not None:
                want(text, str, f"the {name} of a grant is a text")
        for name, seconds in (("expires", self.expires), ("revalidate", self.revalidate)):
            if seconds is not None:
                want_seconds(name, seconds)
                if not 0 < seconds < math.inf:
                    raise ValueError(f"{name} is a number of seconds above 0, not {seconds}")
        if self.revalidate is not None and self.expires is None:
            raise ValueError(
                "a grant that is asked for again expires, too, so that an outage of the auth server ends: give expires="
            )
        object.__setattr__(self, "_publishing", Patterns.parse(self.publish))
        object.__setattr__(self, "_subscribing", Patterns.parse(self.subscribe))

    def may_publish(self, path: str | BroadcastPath) -> bool:
        """Return whether the peer may announce a broadcast.

        Args:
            path: As the peer has it, below the session's path.
        """
        return self._publishing.matches(BroadcastPath.parse(path).parts)

    def may_subscribe(self, path: str | BroadcastPath) -> bool:
        """Return whether the peer may be told of a broadcast, and read it.

        Args:
            path: As the peer has it, below the session's path.
        """
        return self._subscribing.matches(BroadcastPath.parse(path).parts)

    def allows(self, role: str) -> bool:
        """Return whether the grant is good for anything.

        Args:
            role: What the client says that it will do, as `SessionRequest.role` has it.
        """
        return (role != "subscriber" and bool(self.publish)) or (role != "publisher" and bool(self.subscribe))

    def covers(self, other: Grant) -> bool:
        """Return whether it allows all that another grant allows, below the same root. Times do not matter."""
        return (
            self.root == other.root
            and self._publishing.covers(other._publishing)
            and self._subscribing.covers(other._subscribing)
        )

    def lease(
        self, session: LeasedSession, *, changed: Callable[[Grant], None] | None = None
    ) -> AbstractAsyncContextManager[None]:
        """Return the block in which a session holds the grant: the session closes with UNAUTHORIZED when it expires.

        Use it as `async with request.accept() as session, grant.lease(session)`. A session whose view of an `Origin`
        has the grant holds it without this block.

        Args:
            session: The session.
            changed: Called with a grant that allows more, when an auth server is asked again and answers with one.
        """
        from .lease import expiring

        return expiring(session, self.expires)
