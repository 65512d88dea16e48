"""Loss detection for paths that reorder packets: thresholds that adapt, and reductions that are taken back.

Theory of operation
===================

aioquic 1.7 takes a packet for lost once three later ones are acknowledged, or one that was sent 9/8 of a round trip
later (RFC 9002, section 6.1). On a path that reorders, most of these packets arrive all the same. Each costs half of
the congestion window, until the window has two packets.

- A packet that was declared lost is a *suspect*. Its acknowledgement clears it: the loss was spurious. It may come for
  three probe timeouts, for which RFC 9000, section 10.2, expects reordered packets; after that the packet was lost.
- A spurious loss raises the thresholds to what it would have taken to wait for the packet: the distance in packet
  numbers, without a bound, and the time, up to two round trips or a probe timeout (RFC 9002, sections 6.1.1 and 6.1.2).
  As in RFC 8985, section 6.2, losses are then found by time. `_LOSSES_TO_FORGET` reductions in a row that stand set the
  thresholds back: the path reorders no more.
- A *reduction* of the window begins with a packet that was sent after the one before it began. All that was in flight
  by then belongs to it, so that there is one in a round trip. When all its suspects are cleared, the window is what it
  was. When one of them is not, the reduction stands.

What was sent again is not called back: the peer drops it.

The receiving side loses late packets, too. aioquic drops a packet that is 128 below the largest, as it may have come
before; and when an ACK frame is acknowledged it forgets all numbers up to the largest in it, also those that arrived
after the frame was written, which it then never acknowledges. `ReceivedPackets` mends both.

Tests: `tests/transport/test_reordering.py`; of the private names `test_parts_of_recovery` in
`tests/transport/test_aioquic_sending.py`.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import attrs
from aioquic.quic.congestion.reno import RenoCongestionControl
from aioquic.quic.recovery import K_PACKET_THRESHOLD, K_TIME_THRESHOLD, QuicPacketRecovery, QuicPacketSpace

if TYPE_CHECKING:
    from aioquic.quic.packet_builder import QuicSentPacket
    from aioquic.quic.rangeset import RangeSet

_MOST_TIME = 2.0
"""Round trips for which a packet is waited for at most: RFC 8985, section 6.2, adds one to the first. When a probe
timeout is longer, it is the bound: a path may be so short that packets are late by many round trips."""
_LOSSES_TO_FORGET = 16
"""Reductions that stand before the thresholds are what they were (RFC 8985, section 6.2)."""
_MOST_SUSPECTS = 1024
"""Suspects that are kept: a window of a fast path. The oldest of more count as lost."""
_NUMBERS_KEPT = 1024
"""Packet numbers within which reordered packets are taken: a bit each. On a link of 10,000 packets a second they may be
a tenth of a second late."""
_KEPT_BITS = (1 << _NUMBERS_KEPT) - 1


class ReceivedPackets:
    """The numbers of the packets that arrived, in place of aioquic's `QuicPacketNumberWindow`.

    What is `_NUMBERS_KEPT` below the largest counts as received: aioquic drops it, as if it came twice.
    """

    def __init__(self) -> None:
        self._largest = -1
        # Bit n stands for the packet that is n below the largest.
        self._bits = 0
        # The numbers that came late, and the largest at that time.
        self._late: dict[int, int] = {}

    def add(self, number: int) -> None:
        """Note that a packet arrived."""
        ahead = number - self._largest
        if ahead > 0:
            self._largest = number
            self._bits = (self._bits << ahead & _KEPT_BITS) | 1 if ahead < _NUMBERS_KEPT else 1
        elif -ahead < _NUMBERS_KEPT:
            self._bits |= 1 << -ahead
            self._late[number] = self._largest
            if len(self._late) > _NUMBERS_KEPT:
                del self._late[next(iter(self._late))]

    def __contains__(self, number: int) -> bool:
        below = self._largest - number
        return below >= 0 and (below >= _NUMBERS_KEPT or self._bits >> below & 1 == 1)

    def not_in(self, largest: int) -> list[int]:
        """Return the late numbers that may be missing from an ACK frame with this largest number; forget the others."""
        self._late = {number: then for number, then in self._late.items() if then >= largest}
        return [number for number in self._late if number <= largest]


@attrs.define(eq=False)
class _Reduction:
    """A reduction of the congestion window.

    Attributes:
        window: The window before it.
        threshold: The slow start threshold before it.
        began: When the reduction before it began.
        factor: The window before it, in windows after it.
        suspects: How many of its packets may still turn out to have arrived.
        stands: True once one of them was lost.
    """

    window: int
    threshold: int | None
    began: float
    factor: float
    suspects: int = 0
    stands: bool = False


@attrs.define(eq=False)
class _Suspect:
    sent_time: float
    until: float
    reduction: _Reduction | None


class Recovery(QuicPacketRecovery):
    """The recovery of a connection, in place of aioquic's.

    Attributes:
        packet_threshold: How many later packets are acknowledged before one counts as lost.
        patience: The seconds after which it does, where that is more than 9/8 of a round trip; 0 at the start.
        spurious: How many packets were declared lost and acknowledged later.
    """

    def __init__(self, stock: QuicPacketRecovery) -> None:
        # What it was made of is private to aioquic's connection.
        vars(self).update(vars(stock))
        self.packet_threshold = K_PACKET_THRESHOLD
        self.patience = 0.0
        self.spurious = 0
        # By packet number, ascending: when a packet is declared lost, so are those before it.
        self._suspects: dict[int, _Suspect] = {}
        # Those that may be taken back, in order.
        self._reductions: list[_Reduction] = []
        self._latest: _Reduction | None = None
        self._standing = 0

    # -- what was declared lost and has arrived ------------------------------------------------------------

    def on_ack_received(self, *, ack_rangeset: RangeSet, ack_delay: float, now: float, space: QuicPacketSpace) -> None:
        if self._suspects and space.is_application_data:
            self._clear_suspects(ack_rangeset, now)
        super().on_ack_received(ack_rangeset=ack_rangeset, ack_delay=ack_delay, now=now, space=space)

    def _clear_suspects(self, ack_rangeset: RangeSet, now: float) -> None:
        suspects = self._suspects
        numbers = list(suspects)
        largest = ack_rangeset[-1].stop - 1
        for acknowledged in ack_rangeset:
            start = bisect_left(numbers, acknowledged.start)
            for number in numbers[start : bisect_left(numbers, acknowledged.stop, start)]:
                suspect = suspects.pop(number)
                self.spurious += 1
                self._wait_longer(largest - number, now - suspect.sent_time)
                reduction = suspect.reduction
                if reduction is not None:
                    reduction.suspects -= 1
                    if not (reduction.suspects or reduction.stands):
                        self._take_back(reduction)
        while suspects:
            number = next(iter(suspects))
            if suspects[number].until > now and len(suspects) <= _MOST_SUSPECTS:
                break
            self._convict(suspects.pop(number))

    def _wait_longer(self, distance: int, time: float) -> None:
        self.packet_threshold = max(self.packet_threshold, distance + 1)
        self.patience = max(self.patience, time)
        self._standing = 0

    def _convict(self, suspect: _Suspect) -> None:
        """Called when a suspect was lost."""
        reduction = suspect.reduction
        if reduction is None or reduction.stands:
            return
        reduction.stands = True
        self._reductions.remove(reduction)
        self._standing += 1
        if self._standing >= _LOSSES_TO_FORGET:
            self.packet_threshold = K_PACKET_THRESHOLD
            self.patience = 0.0

    def _take_back(self, reduction: _Reduction) -> None:
        congestion = self._congestion
        congestion.congestion_window = max(
            congestion.congestion_window, min(int(congestion.congestion_window * reduction.factor), reduction.window)
        )
        place = self._reductions.index(reduction)
        del self._reductions[place]
        if place < len(self._reductions):
            # Without this one, the next one would have found what this one did.
            following = self._reductions[place]
            following.threshold = reduction.threshold
            following.began = reduction.began
        else:
            self._latest = None
            congestion.ssthresh = reduction.threshold
            congestion._congestion_recovery_start_time = reduction.began

    # -- what is declared lost -----------------------------------------------------------------------------

    @property
    def _congestion(self) -> RenoCongestionControl:
        assert isinstance(self._cc, RenoCongestionControl)
        return self._cc

    def _detect_loss(self, *, now: float, space: QuicPacketSpace) -> None:
        round_trip = max(self._rtt_latest, self._rtt_smoothed) if self._rtt_initialized else self._rtt_initial
        delay = K_TIME_THRESHOLD * round_trip
        if self.patience > delay:
            delay = min(self.patience, max(_MOST_TIME * round_trip, self.get_probe_timeout()))
        lost: list[QuicSentPacket] = []
        space.loss_time = None
        last = space.largest_acked_packet
        for number, packet in space.sent_packets.items():
            if number > last:
                break
            assert packet.sent_time is not None
            if number > last - self.packet_threshold and packet.sent_time > now - delay:
                # Those after it were sent later, and wait longer.
                space.loss_time = packet.sent_time + delay
                break
            lost.append(packet)
        if not lost:
            return
        congestion = self._congestion
        before = (congestion.congestion_window, congestion.ssthresh, congestion._congestion_recovery_start_time)
        self._on_packets_lost(
            now=now, packets=lost, persistent_congestion=self._in_persistent_congestion(packets=lost), space=space
        )
        if not space.is_application_data:
            return
        window, _, began = before
        if began != congestion._congestion_recovery_start_time or window != congestion.congestion_window:
            self._latest = _Reduction(*before, factor=window / congestion.congestion_window)
            self._reductions.append(self._latest)
        reduction = self._latest
        until = now + 3 * self.get_probe_timeout()
        for packet in lost:
            if packet.in_flight and packet.sent_time is not None:
                self._suspects[packet.packet_number] = _Suspect(packet.sent_time, until, reduction)
                if reduction is not None:
                    reduction.suspects += 1
