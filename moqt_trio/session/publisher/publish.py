"""Publication: a broadcast while it is announced on one session, as `Session.publish` returns it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from types import TracebackType

    from ...model.origin import PublishedBroadcast
    from ...path import BroadcastPath
    from .request import ServedSubscription, Serving


async def finish_all(subscriptions: Iterable[ServedSubscription], timeout: float) -> None:
    """End subscriptions once what was written has been delivered; cancel those that are not done in time.

    When it is cancelled, it cancels all of them at once.
    """
    finishing = list(subscriptions)
    for subscription in finishing:
        subscription.finish()
    try:
        with trio.move_on_after(timeout):
            for subscription in finishing:
                await subscription.ended.wait()
    finally:
        for subscription in finishing:
            subscription.scope.cancel()


class Publication:
    """A broadcast that is announced; see `Session.publish`."""

    def __init__(self, serving: Serving, published: PublishedBroadcast) -> None:
        self._serving = serving
        self._published = published

    async def __aenter__(self) -> Publication:
        await trio.lowlevel.checkpoint()
        self._serving.context.check_open()
        self._serving.origin.add(self._published)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        serving = self._serving
        serving.origin.remove(self._published)
        served = [item for item in serving.subscriptions if item.publication is self._published]
        if kind is None:
            await finish_all(served, serving.context.limits.close_timeout)
        for subscription in served:
            subscription.scope.cancel()

    @property
    def path(self) -> BroadcastPath:
        """The path under which it is announced."""
        return self._published.path

    def __repr__(self) -> str:
        return f"<Publication {str(self.path)!r}>"
