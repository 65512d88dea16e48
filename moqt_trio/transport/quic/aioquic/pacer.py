"""The pacer of a connection, which also decides when a flush ends; see patches 5 and 6 in `patched.py`.

`tests/transport/test_aioquic_sending.py` fails when the names of aioquic that are used move.
"""

from __future__ import annotations

from typing import Protocol

from aioquic.quic.recovery import QuicPacketPacer

PACER_BURST = 0.002
"""Seconds of sending that may leave in one burst. Timers fire up to a millisecond late, and the task that sends needs
its turn: with less than two, a fast link idles between bursts."""
FLUSH_PACKETS = 32
"""Packets of one flush: a millisecond's work. With more, the peer has nothing to do while they are made, and this side
nothing while the peer reads them."""


class Flushing(Protocol):
    """What a pacer asks of its connection.

    Attributes:
        unsent: Bytes that were written and may leave.
    """

    unsent: int

    def has_work(self, now: float) -> bool:
        """Return False when there is surely nothing to send now."""
        ...


class Pacer(QuicPacketPacer):
    """The pacer (patches 5 and 6 of `patched.py`). aioquic asks it before every packet, so it can end a flush too.

    Attributes:
        packets: How many packets of this flush have something in them.
        most: How many it may have.
        ended: True when this flush was ended here, and not for pacing.
    """

    def __init__(self, owner: Flushing, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self._owner = owner
        self.packets = 0
        self.most = FLUSH_PACKETS
        self.ended = False

    def next_send_time(self, now: float) -> float | None:  # type: ignore[override]
        if self.packets >= self.most or (self.packets and not self._owner.unsent and not self._owner.has_work(now)):
            self.ended = True
            return now
        return super().next_send_time(now)

    def update_after_send(self, now: float) -> None:
        self.packets += 1
        super().update_after_send(now)

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        super().update_rate(congestion_window, smoothed_rtt)
        self.bucket_max = max(self.bucket_max, PACER_BURST)
