"""The client's side of one echo session: publish, find the echo, send, and compare what comes back.

It prints what it receives, and knows nothing of the command line.
"""

from __future__ import annotations

import math
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING

import trio

import moqt_trio as moqt

from .names import PATIENCE, PREFIX, TRACK

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .tally import Tally


class EchoFailed(Exception):
    """A session came about, but not everything was sent and echoed; the message is one line that says why."""


class Conversation:
    """Sends messages on one session and receives their echoes.

    Args:
        session: An open session with an echo server.
        messages: What to send, one group each. It is closed at the end.
        tally: Where it is counted.
        interval: Seconds from one message to the next.
        timeout: Seconds without any echo after which those that are missing count as lost.
        first: The number under which the first message is shown; the groups of a session count from 0.

    Attributes:
        sent_away: Where the server asked this client to go, empty for no place in particular; None before it asks.
    """

    def __init__(
        self,
        session: moqt.Session,
        messages: AsyncGenerator[bytes, None],
        tally: Tally,
        *,
        interval: float,
        timeout: float,
        first: int = 0,
    ) -> None:
        self._session = session
        self._messages = messages
        self._tally = tally
        self._interval = interval
        self._timeout = timeout
        self._first = first
        self._all_sent = False
        self._stopped_early = False
        self.sent_away: str | None = None
        self._sending = trio.CancelScope()
        self._running = trio.CancelScope()

    async def run(self) -> None:
        """Talks until everything was sent and came back, or nothing more will come.

        Raises:
            EchoFailed: The server does not echo, has stopped doing so, or a message is too long.
            moqt.MoqtError: The session ended, or the server refused what an echo needs.
        """
        broadcast = moqt.Broadcast()
        text = broadcast.track(TRACK, delivery="reliable", max_age=60.0)
        async with (
            aclosing(self._messages),
            self._session.publish(PREFIX, broadcast),
            self._session.announcements(PREFIX) as announcements,
        ):
            with trio.move_on_after(self._timeout) as waiting:
                await self._find_echo(announcements)
                # Only now does the server know the track: what is sent before its subscription may not be echoed.
                await text.wait_subscribed()
            if waiting.cancelled_caught:
                raise EchoFailed(f"no echo of {PREFIX!r} within {self._timeout:g} s; is this the echo server?")
            async with self._session.subscribe(PREFIX, TRACK, max_age=PATIENCE, ordered=True) as echoes:
                await self._exchange(text, echoes)

    async def _find_echo(self, announcements: moqt.Announcements) -> None:
        wanted = moqt.BroadcastPath.parse(PREFIX)
        async for announcement in announcements:
            if announcement.active and announcement.path == wanted:
                return
        raise EchoFailed(f"the server announces no echo of {PREFIX!r}; is this the echo server?")

    async def _exchange(self, text: moqt.Track, echoes: moqt.Subscription) -> None:
        with self._running:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_goaway)
                nursery.start_soon(self._send, text)
                async with trio.open_nursery() as readers:
                    async for group in echoes:
                        # In a task of its own: a group that was lost on the way must not delay the next one.
                        readers.start_soon(self._read, group)
                self._running.cancel()
        if self._tally.waiting and self._running.deadline <= trio.current_time():
            # Raised here, for a server that has fallen silent is not worth a clean end.
            raise EchoFailed(f"nothing has come back for {self._timeout:g} s")

    async def _watch_goaway(self) -> None:
        self.sent_away = await self._session.wait_goaway()
        self._stopped_early = not self._all_sent
        self._sending.cancel()

    async def _send(self, text: moqt.Track) -> None:
        with self._sending:
            due = trio.current_time()
            # Closed as soon as sending stops: somebody else may send what is left, while the echoes are waited for.
            async with aclosing(self._messages):
                async for payload in self._messages:
                    await trio.sleep_until(due)
                    began = trio.current_time()
                    due = began + self._interval
                    try:
                        sequence = await text.write(payload)
                    except ValueError as error:
                        raise EchoFailed(str(error)) from error
                    self._tally.note_sent(sequence, payload, began)
                    if len(self._tally.waiting) == 1:
                        self._be_patient()
        self._all_sent = True
        text.finish()
        if not self._tally.waiting:
            self._be_patient()

    async def _read(self, group: moqt.GroupReader) -> None:
        reason = "it came back empty"
        try:
            async for frame in group:
                self._compare(group.sequence, frame)
        except moqt.StreamReset as error:
            reason = str(error)
        if self._tally.note_lost(group.sequence):
            print(f"{self._first + group.sequence}: lost: {reason}", file=sys.stderr, flush=True)
            self._be_patient()

    def _compare(self, sequence: int, frame: moqt.Frame) -> None:
        round_trip = self._tally.note_echo(sequence, frame, trio.current_time())
        text = frame.decode("utf-8", "replace")
        if round_trip is None:
            print(f"{self._first + sequence}: unexpected echo {text!r}", file=sys.stderr, flush=True)
        else:
            print(f"{self._first + sequence}: {text}  ({round_trip * 1000:.2f} ms)", flush=True)
            self._be_patient()

    def _be_patient(self) -> None:
        """Gives the next echo its time; ends the exchange when there is none to come."""
        if self._tally.waiting:
            self._running.deadline = trio.current_time() + self._timeout
        else:
            self._running.deadline = -math.inf if self._all_sent else math.inf

    @property
    def stopped_early(self) -> bool:
        """Whether the server asked this client to leave before everything was sent."""
        return self._stopped_early

    def check(self, total: Tally | None = None) -> None:
        """Raises `EchoFailed` unless everything was sent and came back. Call it once `run` has returned.

        Args:
            total: What this conversation and those before it have counted, when there were some before it.
        """
        total = self._tally if total is None else total
        if self._stopped_early:
            raise EchoFailed(f"the server is shutting down; stopped after {total.sent} messages")
        if self._tally.waiting or not self._all_sent:
            raise EchoFailed("the server ended the echo before everything came back")
        if not total.sent:
            raise EchoFailed("there is nothing to send: standard input is empty")
        if total.lost or total.wrong:
            raise EchoFailed("not everything came back as it was sent")
