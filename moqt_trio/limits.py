"""Every bound of the library in one place: its unit, and the attack or mistake that it stops."""

from __future__ import annotations

from typing import Any, Final

import attrs

KIB = 1024
MIB = 1024 * KIB


def _positive(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not value > 0:
        raise ValueError(f"Limits.{attribute.name} must be above zero, not {value!r}")


MAX_DATAGRAM: Final = 1200
"""Bytes of a datagram's body; longer ones are neither sent nor read. The draft sets it (moq-lite-06, section 6.4), so
it is no field of `Limits`."""

MIN_PACKET: Final = 1200
"""Bytes of UDP payload that every path must carry (RFC 9000, section 14). `MAX_DATAGRAM` has the same value for another
reason: it is for the body of a datagram inside such a packet."""
MAX_PACKET: Final = 16 * KIB
"""Bytes of the largest UDP payload that `Limits.max_packet` may ask for. No network but loopback carries more, and with
larger packets the first flight, of ten, would be too much for a socket's buffer."""


def _packet_size(instance: object, attribute: attrs.Attribute[Any], value: int) -> None:
    if not MIN_PACKET <= value <= MAX_PACKET:
        raise ValueError(f"Limits.{attribute.name} must be in {MIN_PACKET} … {MAX_PACKET}, not {value!r}")


@attrs.frozen(kw_only=True)
class Limits:
    """The bounds of a session. Change some with `attrs.evolve(Limits(), max_frame=…)` or by keyword.

    Sizes are in bytes, times in seconds, the rest are counts. Each must be above zero.
    """

    # -- bytes of one message ------------------------------------------------------------------------------
    max_message: int = attrs.field(default=64 * KIB, validator=_positive)
    """Bytes of one control message. Stops a peer that announces a length of 2^62 from having it buffered."""
    max_announce_init: int = attrs.field(default=1 * MIB, validator=_positive)
    """Bytes of the message that opens an announce stream in moq-lite-01 and -02. It lists every broadcast at once, so
    it may be longer than `max_message`; stops a list without an end."""
    max_frame: int = attrs.field(default=16 * MIB, validator=_positive)
    """Bytes of one frame's payload. Stops a frame without an end from filling memory."""
    max_path: int = attrs.field(default=1 * KIB, validator=_positive)
    """Bytes of a broadcast path in UTF-8, this side's and the peer's. Stops long names, of which a peer may have
    `max_announcements` kept, from filling memory."""
    max_path_parts: int = attrs.field(default=32, validator=_positive)
    """Parts of a broadcast path, this side's and the peer's. Stops a path of a thousand slashes, whose parts cost far
    more memory than its bytes."""
    max_track_name: int = attrs.field(default=1 * KIB, validator=_positive)
    """Bytes of a track's name in UTF-8. Stops long names from filling memory, one for each open subscription."""
    max_hops: int = attrs.field(default=32, validator=_positive)
    """Hop ids of one announcement. Stops announcements that go round between relays that ignore hop ids."""
    max_parameters: int = attrs.field(default=64, validator=_positive)
    """Parameters of one SETUP message. Stops a message of many tiny parameters, each of which becomes an object."""
    max_uri: int = attrs.field(default=8 * KIB, validator=_positive)
    """Bytes of the URI in a GOAWAY message, and of a path in a handshake. Stops a URI that no server would take."""

    # -- state that a peer can make us keep ----------------------------------------------------------------
    max_subscriptions: int = attrs.field(default=1024, validator=_positive)
    """Subscriptions that one peer may hold open on a session. Stops a peer from starting tasks without end."""
    max_announcements: int = attrs.field(default=1024, validator=_positive)
    """Announcements that one peer may hold open on one announce stream, and by requests (PUBLISH_NAMESPACE, IETF).
    Stops a peer from announcing without end."""
    max_announcement_bytes: int = attrs.field(default=1 * MIB, validator=_positive)
    """Bytes of the paths that one peer may hold announced on one announce stream. Stops what `max_announcements` and
    `max_path` allow together, should both be raised."""
    max_listed_announcements: int = attrs.field(default=64 * 1024, validator=_positive)
    """This side's announcements that one peer may have listed, on all of its announce streams together, when it asks
    for a further list; that is refused then. Stops a peer from having a long list kept a thousand times."""
    max_offered_tracks: int = attrs.field(default=1024, validator=_positive)
    """Tracks that a peer may hold offered on a session (PUBLISH, IETF), and that are offered to it; further ones are
    refused, and not offered. Stops a peer from offering tracks without end."""
    max_track_requests: int = attrs.field(default=4096, validator=_positive)
    """Requests for tracks of one broadcast that wait for the application (`Broadcast.requests`); further ones are
    refused. Stops peers from asking for tracks that do not exist without end."""
    max_routes: int = attrs.field(default=16384, validator=_positive)
    """Routes that an origin keeps, of all its sessions and paths; further ones are not taken. Stops peers of a relay
    from filling memory with announcements together."""
    max_sources: int = attrs.field(default=8, validator=_positive)
    """Routes that an origin keeps for one path, the best ones. Stops a path that everyone announces from costing more
    than one that a few do."""
    max_relayed_tracks: int = attrs.field(default=1024, validator=_positive)
    """Tracks of one broadcast that an origin reads from a source, or has asked one for; further ones are refused. Stops
    peers of a relay from asking for names that do not exist without end."""
    max_relayed_fetches: int = attrs.field(default=256, validator=_positive)
    """Groups of one broadcast that an origin fetches from a source at once; further ones are refused. Stops peers of a
    relay from having it fetch without end."""
    takeover_timeout: float = attrs.field(default=2.0, validator=_positive)
    """Seconds in which another source has to continue a group whose source an origin has lost; then the group is reset.
    Stops subscribers from waiting for a rest that never comes."""
    max_rendezvous: float = attrs.field(default=30.0, validator=_positive)
    """Seconds that a subscription waits for a track at the most, whatever its peer asks for (IETF). Stops requests from
    waiting forever."""
    max_requests: int = attrs.field(default=1024, validator=_positive)
    """Announce, fetch, track and probe streams that one peer may hold open at once; further ones are refused. Stops a
    peer from starting tasks without end. Not below `max_streams`, requests find no stream first, and wait for one."""
    request_rate: float = attrs.field(default=200.0, validator=_positive)
    """Requests of one peer that begin in a second, in the long run; further ones wait, and hold up the peer's streams.
    Requests that are answered in full do not count: fetches, and subscriptions that end with their range or track.
    Stops a peer that subscribes and cancels from taking the time of others."""
    request_burst: int = attrs.field(default=1000, validator=_positive)
    """Requests that may begin at once beyond that, after a time without any. A player's start, or a relay's, should
    fit."""
    max_unknown_groups: int = attrs.field(default=1000, validator=_positive)
    """Group streams for subscriptions that never existed, before the session is closed. A few are in order, as a
    group may arrive after the end of its subscription; stops a peer that sends nothing else."""
    max_tombstones: int = attrs.field(default=1024, validator=_positive)
    """Ids of the peer's ended subscriptions that are remembered, so as to refuse them a second time. Stops a list
    that grows for as long as the session lasts."""
    max_streams: int = attrs.field(default=1024, validator=_positive)
    """Streams of each kind that the peer may have open; credit returns as they end *and* are read. Stops streams that
    the application does not read from filling memory. A browser's library drops a group that finds no stream, so a
    burst should fit."""
    max_queued_announcements: int = attrs.field(default=2048, validator=_positive)
    """Announcement changes that wait for the application to read them. Stops a peer that announces and unannounces
    one path faster than the application reads."""

    # -- receiving -----------------------------------------------------------------------------------------
    stream_window: int = attrs.field(default=256 * KIB, validator=_positive)
    """Bytes that a peer may send on one stream before the application reads. Stops a fast sender from filling the
    memory of a slow reader; a larger window lets one stream use a faster or longer path."""
    connection_window: int = attrs.field(default=4 * MIB, validator=_positive)
    """Bytes that a peer may send on one connection before the application reads. Stops what many streams with a
    window each would hold."""
    max_gaps: int = attrs.field(default=256, validator=_positive)
    """Gaps in one stream's reassembly; the connection is closed when there are more. Stops a peer that sends every
    other byte: each gap costs time with every packet."""
    max_connection_gaps: int = attrs.field(default=4096, validator=_positive)
    """Gaps in the reassembly of all streams of a connection; it is closed when there are more. Stops the same spread
    over many streams. The packets that fit `connection_window` can't leave as many gaps."""
    max_datagrams: int = attrs.field(default=256, validator=_positive)
    """Datagrams that wait, in each direction; a further one replaces the oldest. Stops datagrams, which have no flow
    control, from filling memory."""
    max_early_streams: int = attrs.field(default=16, validator=_positive)
    """WebTransport streams that wait for their session's CONNECT. Stops streams of sessions that are never
    requested."""
    max_early_bytes: int = attrs.field(default=64 * KIB, validator=_positive)
    """Bytes that such early streams and datagrams may hold. Stops the same with few large ones."""

    # -- sending -------------------------------------------------------------------------------------------
    send_high: int = attrs.field(default=256 * KIB, validator=_positive)
    """Bytes in one stream's send buffer above which a writer waits; it continues below half of this. Stops a peer
    that does not read from filling this side's memory."""
    send_buffer: int = attrs.field(default=4 * MIB, validator=_positive)
    """Bytes that the streams of one connection hold in all: what was written and the peer has not acknowledged, and
    what an open stream costs. What is above waits where it was published. Stops a peer that allows streams and takes
    nothing on them; above 200 Mbit/s over a round trip of more than 150 ms a larger one is needed."""
    live_backlog: int = attrs.field(default=8 * MIB, validator=_positive)
    """Bytes that may wait for a subscriber of a live track before its oldest groups are dropped. Stops a slow
    subscriber from keeping old media in memory."""
    live_backlog_groups: int = attrs.field(default=64, validator=_positive)
    """Groups that may wait for a subscriber of a live track before its oldest groups are dropped. Stops the same
    with groups that are small."""
    reliable_backlog: int = attrs.field(default=1 * MIB, validator=_positive)
    """Bytes that may wait for the slowest subscriber of a reliable track before the writer waits. Stops a writer
    that is faster than the network from filling memory."""
    reliable_backlog_groups: int = attrs.field(default=64, validator=_positive)
    """Groups that may wait for the slowest subscriber of a reliable track before the writer waits. Stops the same
    with groups that are small."""
    reliable_backlog_frames: int = attrs.field(default=16 * 1024, validator=_positive)
    """Frames that may wait for the slowest subscriber of a reliable track before the writer waits. Stops the same
    with frames that are small."""
    cache_bytes: int = attrs.field(default=16 * MIB, validator=_positive)
    """Bytes that one track keeps for late subscribers and fetches. Stops a track that runs for days from filling
    memory."""
    cache_groups: int = attrs.field(default=4096, validator=_positive)
    """Groups that one track keeps. Stops the same with groups that are small."""
    cache_frames: int = attrs.field(default=64 * 1024, validator=_positive)
    """Frames that one track keeps as objects. Stops the same with frames that are small, each of which costs more than
    its payload. The older frames of a long group are packed: they count in `cache_bytes` only."""
    finished_tracks: int = attrs.field(default=128, validator=_positive)
    """Tracks of one broadcast that have ended and are not read. The one that ended first leaves the broadcast when
    there are more, and each one when it is older than its `max_age`. Stops a broadcast whose tracks come and go from
    filling memory."""
    finished_bytes: int = attrs.field(default=16 * MIB, validator=_positive)
    """Bytes that these tracks keep, all together. Stops the same with tracks that are large."""
    max_open_groups: int = attrs.field(default=32, validator=_positive)
    """Group streams that one served subscription writes at once. Stops a subscriber on a slow link from having
    hundreds of streams half written, with which aioquic slows down."""
    max_unacknowledged_groups: int = attrs.field(default=1024, validator=_positive)
    """Group streams of one served subscription, including those that wait for the peer's acknowledgement. Stops a
    peer that reads and never acknowledges from filling memory."""

    # -- connections ---------------------------------------------------------------------------------------
    max_connections: int = attrs.field(default=4096, validator=_positive)
    """QUIC connections that one listener holds, and beside them as many over TCP. Stops clients without number from
    filling memory. A client that comes when there are so many takes the place of one that has neither a session nor a
    request, from the address that holds most of such places; where there is none, it is refused."""
    max_packet: int = attrs.field(default=1452, validator=[_positive, _packet_size])
    """Bytes of UDP payload of the largest packet that is sent, in 1,200 … 16,384. A connection begins with 1,200, which
    every path carries, and grows to this once a probe of the size arrived; it shrinks again when the path drops such
    packets. The default is what an Ethernet frame leaves after the headers of IPv6 and UDP."""
    max_handshake_message: int = attrs.field(default=64 * KIB, validator=_positive)
    """Bytes of one message of TLS, such as the peer's certificates. Stops a peer that announces 16 MiB in its handshake
    from having them buffered."""
    max_certificate_chain: int = attrs.field(default=8, validator=_positive)
    """Certificates that a client shows to a server that asks, its own among them. Stops a client from having a long
    chain parsed and verified."""
    max_half_open: int = attrs.field(default=512, validator=_positive)
    """Incomplete handshakes that one listener holds; from half of it on new clients must prove their address, and
    the oldest handshake of the address that has most of them makes room. Stops a flood from spoofed addresses, and one
    address from keeping the others out."""
    max_refusals_per_second: int = attrs.field(default=100, validator=_positive)
    """Refusals that one listener sends in a second, once `max_connections` is reached; further clients get no answer.
    Stops a flood from having it make packets all the time."""
    max_resets_per_second: int = attrs.field(default=1000, validator=_positive)
    """Stateless resets that one listener sends in a second, for packets of connections that it does not know. Stops a
    flood of such packets from taking its time, and from using it against spoofed addresses."""
    max_sessions: int = attrs.field(default=16, validator=_positive)
    """WebTransport sessions on one connection. Stops one client from running as many handlers as it likes."""
    max_header_bytes: int = attrs.field(default=64 * KIB, validator=_positive)
    """Bytes of one HTTP/3 request's headers. Stops headers without an end."""

    # -- times ---------------------------------------------------------------------------------------------
    connect_timeout: float = attrs.field(default=10.0, validator=_positive)
    """Seconds that a client waits for a session, including the look-up of the name. Stops a client from waiting for a
    server that is not there."""
    handshake_timeout: float = attrs.field(default=10.0, validator=_positive)
    """Seconds that a server gives a client for its handshake. Stops clients that never finish from holding their
    places."""
    setup_timeout: float = attrs.field(default=5.0, validator=_positive)
    """Seconds that the peer has for its SETUP or handshake, over raw QUIC and over WebTransport, and for the type of a
    new stream. Stops a silent peer from holding a session or a stream."""
    unused_timeout: float = attrs.field(default=10.0, validator=_positive)
    """Seconds that an HTTP/3 connection may have neither a session nor a request. Stops clients that only send PINGs
    from holding their places; over raw QUIC there is `setup_timeout` for that."""
    reply_timeout: float = attrs.field(default=10.0, validator=_positive)
    """Seconds that the peer has to answer a TRACK or a FETCH request, and up to moq-lite-04 a subscription. Stops the
    application from waiting for a peer that never answers."""
    track_wait_timeout: float = attrs.field(default=2.0, validator=_positive)
    """Seconds that a request for a broadcast which is not published yet waits for it, if it comes in a session's first
    so many seconds: what both sides do first is done at the same time. With gomoqt-develop, whose peers never wait for
    an announcement, every request waits, for a missing track too. Stops requests from waiting forever."""
    late_group_timeout: float = attrs.field(default=0.5, validator=_positive)
    """Seconds that the last groups of a track have to arrive after the publisher has finished the subscription. Stops
    groups that were lost or never sent from keeping the subscription open."""
    close_timeout: float = attrs.field(default=2.0, validator=_positive)
    """Seconds that closing may take before it is forced; what a reliable track accepted may take longer, while the
    subscriber takes some of it within each such time. Stops a peer that does not answer from holding up the end of a
    block."""
    drain_timeout: float = attrs.field(default=5.0, validator=_positive)
    """Seconds that the handler of `stay_connected` has to end once its session was replaced or lost. Stops a handler
    that ignores the end of its session from running forever."""
    settle_time: float = attrs.field(default=10.0, validator=_positive)
    """Seconds that a session must last to reset the redirect and retry counts. Stops servers that keep a client in a
    redirect loop, and one that accepts a client only to drop it."""
    idle_timeout: float = attrs.field(default=30.0, validator=_positive)
    """Seconds without a packet after which a connection counts as lost, on both sides. Ends connections to peers that
    are no longer reachable."""
    keep_alive: float = attrs.field(default=10.0, validator=_positive)
    """Seconds after which a client that has nothing to send sends a PING; after a third of `idle_timeout` in any case,
    its own or the server's if that is less. Stops a quiet session from ending by it, or by a NAT on the way."""
