"""The size of packets: what the path carries, found by probes, and given up when it carries no more.

Theory of operation
===================

aioquic 1.7 sends packets of one size from the first to the last. Only `MIN_PACKET` bytes are safe on a path of which
nothing is known (RFC 9000, section 14): a connection that begins with more, or whose path changes, stands still.

- A connection begins with `MIN_PACKET`. Once the handshake is confirmed it sends a probe, a packet with a PING and
  padding, of the size that `Limits.max_packet` and the peer allow. When it is acknowledged, packets grow to its size. A
  probe that is lost costs nothing else: it carries no data, and its loss says nothing about congestion.
- A packet above `MIN_PACKET` for which a probe timeout fires, or `_LOST` of them that are lost while none is
  acknowledged, make packets shrink at once, so that what is sent again gets through. If it was a mere loss, the next
  acknowledgement of a large packet, or the next probe, makes them grow again.
- A peer that moves is on another path, which begins with `MIN_PACKET`; at another host also with the first congestion
  window.

Spec: RFC 9000, sections 14.1 to 14.4; RFC 8899, sections 4.3 and 5. Tests: `tests/transport/test_path_mtu.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.congestion.reno import RenoCongestionControl
from aioquic.quic.connection import END_STATES
from aioquic.quic.packet import QuicFrameType, QuicPacketType, pull_quic_transport_parameters
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder, QuicSentPacket
from aioquic.tls import Epoch

from ....limits import MIN_PACKET
from .peer_frames import FrugalConnection

if TYPE_CHECKING:
    from aioquic.quic.configuration import QuicConfiguration

_PROBES = 3
"""Probes of one search: so many are hardly all lost by chance (RFC 8899, section 5.1.2)."""
_PROBE_INTERVAL = 1.0
"""Seconds between them at least (RFC 8899, section 5.1.1)."""
_SEARCH_INTERVAL = 600.0
"""Seconds after which a search that failed is repeated: the path may have changed (RFC 8899, section 5.1.1)."""
_LOST = 6
"""Large packets that are lost in a row before packets shrink: more than most bursts of losses have; and as a congestion
window has two packets at least, a path that drops all of them is noticed within three round trips."""


class _Congestion(RenoCongestionControl):
    """aioquic's controller, which also sees which packets are lost.

    It looks at acknowledgements only after a loss: they are many.
    """

    def __init__(self, owner: SearchingConnection) -> None:
        super().__init__(max_datagram_size=MIN_PACKET)
        self._owner = owner
        self._large_lost = 0

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        packets = list(packets)
        super().on_packets_lost(now=now, packets=packets)
        large = sum(packet.sent_bytes > MIN_PACKET for packet in packets)
        if large:
            self._watch()
            self._large_lost += large
            if self._large_lost >= _LOST:
                self._owner.shrink()

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        packets = list(packets)
        super().on_packets_expired(packets=packets)
        if any(packet.sent_bytes > MIN_PACKET for packet in packets):
            self._watch()
            self._owner.shrink()

    def _watch(self) -> None:
        # On this object alone, and until a large packet is acknowledged.
        self.on_packet_acked = self._watched_packet_acked  # type: ignore[method-assign]

    def _watched_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        super().on_packet_acked(now=now, packet=packet)
        if packet.sent_bytes > MIN_PACKET:
            self.trust()
            self._owner.regrow()

    def trust(self) -> None:
        """Forget what was lost: a large packet arrived."""
        self._large_lost = 0
        vars(self).pop("on_packet_acked", None)

    def start_over(self, now: float) -> None:
        """Begin anew on a path of which nothing is known. What is in flight says nothing about it, and stays so."""
        super().__init__(max_datagram_size=self._max_datagram_size)
        self.ssthresh = None
        # What was sent before changes the window no more, whether it is acknowledged or lost.
        self._congestion_recovery_start_time = now

    def resize(self, size: int) -> None:
        """Called with the new size of packets (RFC 9002, section 7.2)."""
        if self.ssthresh is None:
            self.congestion_window += 10 * max(0, size - self._max_datagram_size)
        self._max_datagram_size = size


class SearchingConnection(FrugalConnection):
    """A connection that finds the size of its packets.

    Attributes:
        probe_at: When `probe` is to be called; never before the handshake is confirmed.
        shrunk: True when packets became smaller; datagrams that wait may be too long.
    """

    def __init__(self, *, max_packet: int, configuration: QuicConfiguration, **ids: Any) -> None:
        super().__init__(configuration=configuration, **ids)
        self.probe_at = math.inf
        self.shrunk = False
        self._largest = max_packet
        self._proven = MIN_PACKET
        self._probes_left = 0
        self._flight_kept_until = 0.0
        self._congestion = self._loss._cc = _Congestion(self)

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        theirs = pull_quic_transport_parameters(Buffer(data=data)).max_udp_payload_size
        if theirs is not None:
            self._largest = min(self._largest, theirs)

    def _confirm_handshake(self) -> None:
        super()._confirm_handshake()
        self._search()

    def _search(self) -> None:
        if self._largest > MIN_PACKET:
            self._probes_left = _PROBES
            self.probe_at = 0.0

    def probe(self, now: float) -> list[tuple[bytes, Any]]:
        """Return the packet that is sent at `probe_at`, and where to; none when the path is not known yet."""
        self.probe_at = math.inf
        path = self._network_paths[0]
        if self._state in END_STATES or self._close_pending or self._max_datagram_size >= self._largest:
            return []
        if not path.is_validated:
            # What may be sent is limited until then, and the probe may go to a host that did not ask for it.
            self.probe_at = now + self._loss.get_probe_timeout()
            return []
        if not self._probes_left:
            self._probes_left = _PROBES
        self._probes_left -= 1
        self.probe_at = now + (_PROBE_INTERVAL if self._probes_left else _SEARCH_INTERVAL)
        assert self._version is not None
        builder = QuicPacketBuilder(
            host_cid=self.host_cid,
            is_client=self._is_client,
            max_datagram_size=self._largest,
            packet_number=self._packet_number,
            peer_cid=self._peer_cid.cid,
            spin_bit=self._spin_bit,
            version=self._version,
        )
        builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[Epoch.ONE_RTT])
        frame = builder.start_frame(QuicFrameType.PING, handler=self._on_probe_delivery, handler_args=(self._largest,))
        frame.push_bytes(bytes(builder.remaining_buffer_space))
        datagrams, (packet,) = builder.flush()
        self._packet_number = builder.packet_number
        packet.sent_time = now
        # Its loss calls for no other packet, and is no sign of congestion.
        packet.is_ack_eliciting = packet.in_flight = False
        self._loss.on_packet_sent(packet=packet, space=self._spaces[Epoch.ONE_RTT])
        path.bytes_sent += len(datagrams[0])
        return [(datagrams[0], path.addr)]

    def _on_probe_delivery(self, delivery: QuicDeliveryState, size: int) -> None:
        # A further probe follows by the clock.
        if delivery == QuicDeliveryState.ACKED:
            self._proven = size
            self._congestion.trust()
            self.regrow()

    def regrow(self) -> None:
        """Called when a packet above `MIN_PACKET` has arrived: packets have the size that was found."""
        if self._proven > MIN_PACKET:
            self.probe_at = math.inf
            self._resize(self._proven)

    def shrink(self) -> None:
        """Called when the path seems to drop large packets."""
        if self._max_datagram_size > MIN_PACKET:
            self.shrunk = True
            self._resize(MIN_PACKET)
            self._search()

    def path_changed(self, now: float, *, same_host: bool) -> None:
        """Called when the peer is reached on another path, at another host or only at another port of the same one.

        What is in flight went to the old address, and counts as lost. aioquic keeps it in flight: with a full window
        the frame that validates the path waits for a probe timeout, which has doubled with each attempt on the old one.
        Where packets are lost besides, that takes minutes. A peer that moves on at once leaves the flight to the usual
        timers: each of its packets could have a whole window sent again.

        Of another host's path nothing is known: the congestion window and the round-trip time begin anew, also before
        the address is validated, as what is sent there until then is limited in any case. Another port is mostly a new
        mapping of a NAT on the way there (RFC 9000, section 9.4).
        """
        self._proven = MIN_PACKET
        self._congestion.trust()
        self.shrink()
        loss = self._loss
        if self._handshake_confirmed:
            self._search()
            if now >= self._flight_kept_until:
                self._flight_kept_until = now + loss.get_probe_timeout()
                space = self._spaces[Epoch.ONE_RTT]
                packets = tuple(space.sent_packets.values())
                loss._on_packets_lost(congestion_event=False, now=now, packets=packets, space=space)
            loss._pto_count = 0
        if not same_host:
            self._congestion.start_over(now)
            loss._rtt_initialized = False
            loss._rtt_latest = loss._rtt_smoothed = loss._rtt_variance = 0.0
            loss._rtt_min = math.inf

    def _resize(self, size: int) -> None:
        self._max_datagram_size = self._loss._pacer._max_datagram_size = size
        self._congestion.resize(size)
