"""The probe stream: target bitrates one way, estimates of bitrate and round trip the other, any number of each.

Spec: draft-lcurley-moq-lite-06, section 7 (PROBE).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import LocalProtocolError
from ..wire.messages import Expect, Message, Probe, ProbeLevel, StreamKind
from .events import Event, RequestFinished, RequestRefused
from .machine import CountedResponder, MessageMachine, RequestState

if TYPE_CHECKING:
    from .state import SessionState


class ProbeResponder(CountedResponder):
    """The peer requests our estimates. Opening the stream is the request; a PROBE message on it sets a target.

    Events: `Probe` when the stream opens, without a target, and for each message; `RequestCancelled`.
    """

    _first = Expect.PROBE

    def report(self, bitrate: int | None, rtt_ms: int | None = None) -> bytes:
        """Return PROBE; b"" once the peer has cancelled.

        Args:
            bitrate: Bits per second; None for unknown.
            rtt_ms: The smoothed round trip in milliseconds; None for unknown. moq-lite-03 does not carry it.
        """
        if self._session.dialect.features.probe == "bitrate":
            rtt_ms = None
        data = self._session.dialect.encode(Probe(bitrate, rtt_ms))
        return b"" if self._over else data

    def _read_untrusted(self, data: bytes, fin: bool, events: list[Event]) -> None:
        if self._state is RequestState.WAITING:
            # Peers write the stream's type alone, so the answer does not wait for a message.
            self._state = RequestState.PENDING
            events.append(Probe())
        super()._read_untrusted(data, fin, events)

    def _on_message(self, message: Message, events: list[Event]) -> None:
        assert isinstance(message, Probe)
        events.append(message)


class ProbeRequester(MessageMachine):
    """We request the peer's estimates. Events: `Probe`, `RequestFinished`, `RequestRefused`."""

    _first = Expect.PROBE

    def __init__(self, session: SessionState, bitrate: int | None) -> None:
        super().__init__(session)
        setup = session.peer_setup
        if setup is not None and setup.probe is ProbeLevel.NONE:
            raise LocalProtocolError("the SETUP of the peer says that it answers no probe")
        self.opening = session.dialect.stream_type(StreamKind.PROBE)
        if bitrate is not None:
            self.opening += session.dialect.encode(Probe(bitrate))

    def update(self, bitrate: int | None) -> bytes:
        """Return PROBE with a new target in bits per second, None for none; b"" once the publisher has ended it."""
        data = self._session.dialect.encode(Probe(bitrate))
        return b"" if self._closed else data

    def _on_message(self, message: Message, events: list[Event]) -> None:
        assert isinstance(message, Probe)
        events.append(message)

    def _on_fin(self, events: list[Event]) -> None:
        events.append(RequestFinished())

    def _on_reset(self, code: int) -> list[Event]:
        return [RequestRefused(code)]
