"""Link: one session to another relay, again and again.

Theory of operation. It is `client.reconnect.ReconnectLoop` with the patience of a link between relays. A GOAWAY without
a URI comes from a relay that restarts: the session is left alone until that relay closes it, for there is nothing to go
to before, and what it still serves is served. Nothing ends the link: what would be final for a client, such as a
refusal, may be put right at the other end, and is tried again at the longest delay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..client.backoff import Backoff
from ..client.reconnect import Attempt, ReconnectLoop, is_temporary
from ..errors import RedirectRefused, printable
from ..loggers import Logger
from ..session.run import wait_goaway_received
from ..tasks import defer_interrupts
from ..url import printable_url

if TYPE_CHECKING:
    from ..client.redirect import Candidate
    from ..errors import MoqtError
    from ..session.session import Session

logger = Logger(__name__)

LINK_BACKOFF = Backoff(retries=None, initial=1.0, maximum=30.0, jitter=1.0)
"""The delays of a link: any share of a bound that doubles from 1 s to 30 s."""


async def stay(session: Session) -> None:
    """Do nothing on a session: its view does all."""
    await session.wait_closed()


@defer_interrupts
class LinkLoop(ReconnectLoop[None]):
    """The sessions of one link."""

    _retry: Backoff

    async def _watch(self, attempt: Attempt) -> None:
        await attempt.session.wait_closed()
        attempt.record_loss()
        attempt.start_drain()

    async def _watch_redirect(self, attempt: Attempt) -> None:
        if await wait_goaway_received(attempt.session):
            attempt.record_reason()

    def _handler_returned(self, attempt: Attempt, value: None) -> None:
        attempt.record_loss()

    async def _open_next(self, nursery: trio.Nursery, previous: Attempt) -> Attempt:
        try:
            return await super()._open_next(nursery, previous)
        except RedirectRefused as error:
            await previous.session.wait_closed()
            return await self._open_one_of(nursery, [previous.candidate], error)

    async def _pause(self, error: MoqtError, candidate: Candidate) -> None:
        if is_temporary(error):
            await super()._pause(error, candidate)
            return
        self._failures += 1
        retry = self._retry
        seconds = retry.maximum * (1 - retry.jitter * retry.random() / 2)
        url = printable_url(candidate.url)
        logger.warning("the link to %s is refused; next attempt in %.0f s: %s", url, seconds, printable(str(error)))
        await trio.sleep(seconds)
