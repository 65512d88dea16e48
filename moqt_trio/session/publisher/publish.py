"""Publication: a broadcast while it is announced on one session, as `Session.publish` returns it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio

from ...arguments import want_id
from ...block import Block
from ...errors import SessionClosed, StreamReset, printable
from ...loggers import Logger
from ...model.origin import NO_ROUTE, Route
from ...tasks import defer_interrupts
from ...timeouts import Timeout

if TYPE_CHECKING:
    from types import TracebackType

    from ...model.origin import PublishedBroadcast
    from ...path import BroadcastPath
    from .request import ServedSubscription, Serving
    from .tracks import TrackOffers

logger = Logger(__name__)


_PROGRESS_BYTES = 1200
"""Bytes that count as progress: what the smallest path carries in a packet. With less, a peer that takes a byte at a
time could hold up the end of a block for days."""


async def finish_all(subscriptions: Iterable[ServedSubscription], timeout: float) -> None:
    """End subscriptions once what was written has been delivered; cancel those that do not get there.

    A subscription of a live track gets `timeout` seconds in all. What a reliable track accepted is delivered for as
    long as the peer takes some of it within each `timeout` seconds; what is lost after all is logged. When this is
    cancelled, it cancels all of them at once.
    """
    finishing = list(subscriptions)
    for subscription in finishing:
        subscription.finish()
    left = {subscription: subscription.undelivered for subscription in finishing}
    try:
        while left:
            if await Timeout(timeout).wait(partial(_wait_ended, left)):
                return
            for subscription, before in list(left.items()):
                now = subscription.undelivered
                if subscription.ended.is_set():
                    del left[subscription]
                elif subscription.track.delivery == "reliable" and now <= before - _PROGRESS_BYTES:
                    left[subscription] = now
                else:
                    del left[subscription]
                    _cancel_unfinished(subscription, now, timeout)
    finally:
        for subscription in finishing:
            subscription.scope.cancel()


async def _wait_ended(subscriptions: Iterable[ServedSubscription]) -> None:
    for subscription in subscriptions:
        await subscription.ended.wait()


def _cancel_unfinished(subscription: ServedSubscription, lost: int, timeout: float) -> None:
    """Cancel a subscription, and log what its subscriber loses."""
    track = subscription.track
    logger.log(
        logging.WARNING if track.delivery == "reliable" else logging.INFO,
        "track %s of %s: %s not delivered, as the subscriber took too little in %g s (Limits.close_timeout)",
        printable(track.name),
        printable(str(subscription.publication.path)),
        f"{lost} bytes were" if lost else "its end was",
        timeout,
    )
    subscription.scope.cancel()


def announce(serving: Serving, published: PublishedBroadcast) -> None:
    """Announce a broadcast until `withdraw`. Raises ValueError when its path is taken."""
    serving.origin.add(published)
    serving.ageing.add(published.broadcast)


def withdraw(serving: Serving, published: PublishedBroadcast) -> None:
    """End `announce`. Subscriptions that run go on."""
    serving.origin.remove(published)
    if not serving.origin.publishes(published.broadcast):
        serving.ageing.remove(published.broadcast)


def checked_route(hops: Collection[int], cost: int, cold_cost: int | None) -> Route:
    """Return a route; the arguments are those of `Session.publish`, checked here."""
    for number in (*hops, cost, *([] if cold_cost is None else [cold_cost])):
        want_id("a hop id or a cost", number)
    route = Route(tuple(hops), cost, cost if cold_cost is None else cold_cost)
    return NO_ROUTE if route == NO_ROUTE else route


@defer_interrupts
class Publication(Block):
    """A broadcast that is announced; see `Session.publish`."""

    def __init__(self, serving: Serving, published: PublishedBroadcast, offers: TrackOffers | None = None) -> None:
        self._serving = serving
        self._published = published
        self._offers = offers
        self._offering = trio.CancelScope()
        path = printable(str(published.path))
        self._expect_entry(
            lambda: (
                f"{path} was never announced, as its block was not entered; "
                f"write: async with session.publish({path!r}, broadcast):"
            )
        )

    async def __aenter__(self) -> Publication:
        self._entered()
        await trio.lowlevel.checkpoint()
        self._serving.context.check_open()
        announce(self._serving, self._published)
        if self._offers is not None:
            self._serving.context.start(self._offer, self._offers)
        return self

    async def _offer(self, offers: TrackOffers) -> None:
        with suppress(SessionClosed, StreamReset, trio.ClosedResourceError), self._offering:
            await offers.run()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        serving = self._serving
        self._offering.cancel()
        withdraw(serving, self._published)
        served = list(serving.subscriptions.get(self._published, ()))
        if kind is None:
            await finish_all(served, serving.context.limits.close_timeout)
        for subscription in served:
            subscription.scope.cancel()

    def update(self, *, hops: Collection[int] = (), cost: int = 0, cold_cost: int | None = None) -> None:
        """Change the route of the broadcast, which stays announced: running subscriptions go on.

        The peer gets an update where the version carries what changed: costs in moq-lite-06, hop ids from moq-lite-04
        on, and how many they are in moq-lite-03.

        Args:
            hops, cost, cold_cost: As for `Session.publish`.

        Raises:
            ValueError: A number is out of range.
        """
        self._serving.origin.update(self._published, checked_route(hops, cost, cold_cost))

    @property
    def path(self) -> BroadcastPath:
        """The path under which it is announced."""
        return self._published.path

    def __repr__(self) -> str:
        return f"<Publication {str(self.path)!r}>"
