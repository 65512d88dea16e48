"""The numbers of a session and of a subscription, as the application reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from ..transport.connection import TransportStatistics


@attrs.frozen(kw_only=True)
class SessionStatistics:
    """Numbers of one session.

    Attributes:
        transport: Those of its connection.
        publications: Broadcasts published now.
        subscriptions: Subscriptions of ours that are open.
        subscriptions_served: Subscriptions of the peer's that are served now.
        groups_dropped: Groups dropped for those subscriptions, because the peer was too slow or the group too old.
        datagrams_dropped: Datagrams from the peer that belonged to no subscription or did not decode.
        peer_bitrate: The peer's estimate of the connection in bits per second, in the versions where it comes without
            a probe, up to moq-lite-02; None while it is unknown, and in later versions, which have `Session.probe`.
    """

    transport: TransportStatistics
    publications: int
    subscriptions: int
    subscriptions_served: int
    groups_dropped: int
    datagrams_dropped: int
    peer_bitrate: int | None = None


@attrs.frozen
class SubscriptionStatistics:
    """Numbers of one subscription.

    Attributes:
        groups_received: Groups whose header arrived.
        groups_dropped: Groups that the publisher reported as dropped, and those that were dropped here, unread.
        groups_reset: Groups that the publisher reset after they had begun.
        frames_received: Frames that arrived completely.
        bytes_received: Payload bytes of those frames.
        groups_expired: Of the groups dropped, those that were too old.
    """

    groups_received: int = 0
    groups_dropped: int = 0
    groups_reset: int = 0
    frames_received: int = 0
    bytes_received: int = 0
    groups_expired: int = 0
