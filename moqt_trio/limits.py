"""Every bound of the library in one place: its unit, and the attack or accident that it stops."""

from __future__ import annotations

from typing import Any

import attrs

KIB = 1024
MIB = 1024 * KIB


def _positive(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not value > 0:
        raise ValueError(f"Limits.{attribute.name} must be above zero, not {value!r}")


@attrs.frozen(kw_only=True)
class Limits:
    """The bounds of a session. Change some with `attrs.evolve(Limits(), max_frame=…)` or by keyword.

    Sizes are in bytes, times in seconds, the rest are counts. Each must be above zero.
    """

    # -- bytes of one message ------------------------------------------------------------------------------
    max_message: int = attrs.field(default=64 * KIB, validator=_positive)
    """Bytes of one control message; stops a length of 2^62 from being allocated."""
    max_announce_init: int = attrs.field(default=1 * MIB, validator=_positive)
    """Bytes of the batch message that opens an announce stream in moq-lite-01 and -02."""
    max_frame: int = attrs.field(default=16 * MIB, validator=_positive)
    """Bytes of one frame's payload; stops a frame that never ends from filling memory."""
    max_path: int = attrs.field(default=1 * KIB, validator=_positive)
    """Bytes of a broadcast path in UTF-8."""
    max_path_parts: int = attrs.field(default=32, validator=_positive)
    """Parts of a broadcast path."""
    max_track_name: int = attrs.field(default=1 * KIB, validator=_positive)
    """Bytes of a track's name in UTF-8."""
    max_hops: int = attrs.field(default=32, validator=_positive)
    """Hop ids of one announcement; stops a loop between relays that ignore hop ids."""
    max_parameters: int = attrs.field(default=64, validator=_positive)
    """Parameters of one SETUP message."""
    max_uri: int = attrs.field(default=8 * KIB, validator=_positive)
    """Bytes of the URI in a GOAWAY message."""

    # -- state that a peer can make us keep ----------------------------------------------------------------
    max_subscriptions: int = attrs.field(default=1024, validator=_positive)
    """Subscriptions that one peer may hold open on a session."""
    max_announcements: int = attrs.field(default=1024, validator=_positive)
    """Announcements that one peer may hold open on one announce stream."""
    max_announcement_bytes: int = attrs.field(default=1 * MIB, validator=_positive)
    """Bytes of paths that one peer may hold announced on one announce stream."""
    max_requests: int = attrs.field(default=256, validator=_positive)
    """Announce, fetch, track and probe streams that one peer may hold open at once."""
    max_strays: int = attrs.field(default=1000, validator=_positive)
    """Group streams for subscriptions that never existed, before the session is closed."""
    max_tombstones: int = attrs.field(default=1024, validator=_positive)
    """Ended subscriptions of the peer's whose ids are still refused a second time."""
    max_streams: int = attrs.field(default=1024, validator=_positive)
    """Streams of each kind that the peer may have open; credit returns as they end *and* are read. A browser's
    library drops a group that finds no stream, so a burst should fit."""
    max_queued_announcements: int = attrs.field(default=2048, validator=_positive)
    """Announcement changes that wait for the application to read them."""

    # -- receiving -----------------------------------------------------------------------------------------
    stream_window: int = attrs.field(default=256 * KIB, validator=_positive)
    """Bytes that a peer may send on one stream before the application reads."""
    connection_window: int = attrs.field(default=4 * MIB, validator=_positive)
    """Bytes that a peer may send on one connection before the application reads."""
    max_gaps: int = attrs.field(default=256, validator=_positive)
    """Gaps in one stream's reassembly; past it the connection is closed, as each costs CPU."""
    max_datagrams: int = attrs.field(default=256, validator=_positive)
    """Datagrams that wait, in each direction; a further one pushes out the oldest."""
    max_early_streams: int = attrs.field(default=16, validator=_positive)
    """WebTransport streams that wait for their session's CONNECT."""
    max_early_bytes: int = attrs.field(default=64 * KIB, validator=_positive)
    """Bytes that such early streams and datagrams may hold."""

    # -- sending -------------------------------------------------------------------------------------------
    send_high: int = attrs.field(default=256 * KIB, validator=_positive)
    """Bytes in one stream's send buffer above which a writer waits; it goes on below half of this."""
    live_backlog: int = attrs.field(default=8 * MIB, validator=_positive)
    """Bytes that a subscriber of a live track may lag behind before it loses its oldest groups."""
    live_backlog_groups: int = attrs.field(default=64, validator=_positive)
    """Groups that a subscriber of a live track may lag behind before it loses its oldest groups."""
    reliable_backlog: int = attrs.field(default=1 * MIB, validator=_positive)
    """Bytes that the slowest subscriber of a reliable track may lag behind before the writer waits."""
    reliable_backlog_groups: int = attrs.field(default=64, validator=_positive)
    """Groups that the slowest subscriber of a reliable track may lag behind before the writer waits."""
    reliable_backlog_frames: int = attrs.field(default=16 * 1024, validator=_positive)
    """Frames that the slowest subscriber of a reliable track may lag behind before the writer waits."""
    cache_bytes: int = attrs.field(default=16 * MIB, validator=_positive)
    """Bytes that one track keeps for late subscribers and fetches."""
    cache_groups: int = attrs.field(default=4096, validator=_positive)
    """Groups that one track keeps."""
    cache_frames: int = attrs.field(default=64 * 1024, validator=_positive)
    """Frames that one track keeps; stops tiny frames, each of which costs far more than its payload."""
    max_open_groups: int = attrs.field(default=32, validator=_positive)
    """Group streams that one served subscription writes at once; aioquic slows down with many."""
    max_unacknowledged_groups: int = attrs.field(default=1024, validator=_positive)
    """Group streams of one served subscription, those included that wait for the peer's acknowledgement."""

    # -- connections ---------------------------------------------------------------------------------------
    max_connections: int = attrs.field(default=4096, validator=_positive)
    """QUIC connections that one listener holds."""
    max_half_open: int = attrs.field(default=512, validator=_positive)
    """Unfinished handshakes that one listener holds; past half of it new clients must prove their address."""
    max_sessions: int = attrs.field(default=16, validator=_positive)
    """WebTransport sessions on one connection."""
    max_header_bytes: int = attrs.field(default=64 * KIB, validator=_positive)
    """Bytes of one HTTP/3 request's headers."""

    # -- times ---------------------------------------------------------------------------------------------
    connect_timeout: float = attrs.field(default=10.0, validator=_positive)
    """Seconds that a client waits for a session, name look-up included."""
    handshake_timeout: float = attrs.field(default=10.0, validator=_positive)
    """Seconds that a server gives a client for its handshake."""
    setup_timeout: float = attrs.field(default=5.0, validator=_positive)
    """Seconds that the peer has for its SETUP, and a new stream for its type."""
    reply_timeout: float = attrs.field(default=10.0, validator=_positive)
    """Seconds that the peer has to answer a TRACK or a FETCH request, and up to moq-lite-04 a subscription."""
    track_wait_timeout: float = attrs.field(default=2.0, validator=_positive)
    """Seconds that a subscription waits for a track that nobody publishes yet; only before moq-lite, see
    `Quirks.subscribes_early`."""
    late_group_timeout: float = attrs.field(default=0.5, validator=_positive)
    """Seconds that the last groups of a track have to arrive after the publisher has finished the subscription."""
    close_timeout: float = attrs.field(default=2.0, validator=_positive)
    """Seconds that closing may take before it is forced."""
    drain_timeout: float = attrs.field(default=5.0, validator=_positive)
    """Seconds that the handler of `stay_connected` has to end once its session was replaced or lost."""
    settle_time: float = attrs.field(default=10.0, validator=_positive)
    """Seconds after which a session counts as one that works: redirects and retries are counted anew from there.
    Stops servers that send a client to and fro, and one that lets it in only to drop it, from keeping it busy."""
    idle_timeout: float = attrs.field(default=30.0, validator=_positive)
    """Seconds of silence after which a connection counts as lost, on both sides."""
    keep_alive: float = attrs.field(default=10.0, validator=_positive)
    """Seconds after which a client with nothing to say sends a ping."""
