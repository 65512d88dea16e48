"""What an origin tells of itself, for metrics and for people: plain values, taken at one moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from ..path import BroadcastPath


@attrs.frozen(kw_only=True)
class OriginStatistics:
    """The state of an origin in numbers.

    Attributes:
        sessions: Sessions that share it.
        broadcasts: Paths that can be reached.
        routes: Ways to them, over all sessions.
        tracks: Tracks that are read from a peer, or were and are kept for the next subscriber.
        subscriptions: Of these, the ones that are read from a peer now.
        subscribers: Who reads them.
        fetches: Groups that are fetched from a peer now.
        cached_bytes: Bytes of memory that the kept groups take, about: payloads, and what Python needs for each frame
            beside its payload. `Origin(cache_bytes=…)` bounds them.
    """

    sessions: int
    broadcasts: int
    routes: int
    tracks: int
    subscriptions: int
    subscribers: int
    fetches: int
    cached_bytes: int


@attrs.frozen(kw_only=True)
class OriginRoute:
    """One way to a broadcast.

    Attributes:
        path: The broadcast's path on the origin.
        hops: Hop ids from its publisher to the peer that announced it; empty for what is published on the origin.
        cost: What subscribing costs, with the price of the session.
        cold_cost: The same without a discount for a copy that is cached.
        peer: The address of the peer that announced it, as host and port; None for what is published on the origin, and
            where the transport has no address.
        best: True for the one that is taken first.
    """

    path: BroadcastPath
    hops: tuple[int, ...]
    cost: int
    cold_cost: int
    peer: tuple[str, int] | None
    best: bool


@attrs.frozen(kw_only=True)
class OriginSession:
    """One session that shares an origin.

    Attributes:
        peer: The peer's address, as host and port; None where the transport has none.
        version: The wire version.
        root: The peer's paths are below it.
        hop_id: The peer's hop id; 0 while it has said none.
        routes: Broadcasts that it announces.
        shown: Broadcasts that are announced to it, or that it has asked for.
        draining: True once it has asked to be left, by GOAWAY.
    """

    peer: tuple[str, int] | None
    version: str
    root: BroadcastPath
    hop_id: int
    routes: int
    shown: int
    draining: bool
