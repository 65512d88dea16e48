"""Dialect: a wire version, as a codec with features and quirks; and the registry of the versions.

The state machines are written once. They read and write messages through a `Dialect`, use its `Features` for every
difference that is not one of layout, and its `Quirks` for known peers that deviate from the draft.
"""

from __future__ import annotations

import abc
import difflib
from typing import TYPE_CHECKING, Final, Literal, Protocol

import attrs

from ..codes import MOQ_LITE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..codes import CodeTable
    from ..frame import Frame
    from ..limits import Limits
    from .buffer import StreamBuffer
    from .handshake import HandshakeForm
    from .messages import Datagram, Expect, Message, StreamKind


@attrs.frozen(kw_only=True)
class Features:
    """The features of a version, by its draft. The default of each field is that the version lacks it.

    Attributes:
        setup: `"none"`; `"uni"`, a SETUP stream each way; `"session"` or `"compat"`, a handshake on the first
            bidirectional stream; `"shared"`, SETUP on the first bidirectional stream, which all requests then share.
        announce_ids: True when END and UPDATE name an announcement by its ordinal.
        announce_first: What opens the replies of an announce stream: nothing, `"init"` or `"ok"`.
        announce_live: True when an ANNOUNCE marks the end of the initial set.
        announce_tracks: True when an announcement names a track: its path is the broadcast's and the track's name.
        sender_hop: How the sender's hop id gets into an announcement: `"sender"` appends it, `"ok"` has it in
            ANNOUNCE_OK, `"count"` only counts, `"none"` knows no hops.
        costs: True when an announcement carries costs.
        exclude_hop: True when ANNOUNCE_REQUEST carries a hop to leave out.
        track_in_path: True when a request names a track by one path, whose last part is the track's name.
        subscribe_typed: True when each reply on a subscribe stream has a type; False when the first is the
            acceptance, and the others are drops.
        subscribe_ok_needs_group: True when SUBSCRIBE_OK has to name the first group.
        subscribe_end: True when SUBSCRIBE_END exists.
        subscribe_drop: True when SUBSCRIBE_DROP (or SUBSCRIBE_GAP) exists.
        update_keeps_range: True when SUBSCRIBE_UPDATE can move the bounds of a range and not lift them.
        max_age: True when a subscription carries `max_age_ms`; elsewhere the field has no effect.
        frame_ranges: True when a subscription or a fetch can name frames. There a subscription without a first group
            starts as far back as its `max_age_ms` says, elsewhere at the latest group.
        timestamps: True when frames carry timestamps (and their reading needs TRACK_INFO).
        track_info: True when a track's properties have to be requested, on a TRACK stream, before its frames.
        fetch_update: True when FETCH_UPDATE exists.
        probe: `"none"`, `"bitrate"` or `"rtt"`.
        goaway: True when GOAWAY streams exist.
        datagrams: True when a group may travel as a datagram.
        offers: True when a publisher may offer a track, on a subscription that it opens itself.
        subgroups: True when a group may be in several parts, and a frame has a number and properties.
        unknown_stream_closes: True when a stream of unknown type ends the session, False when only itself.
    """

    setup: Literal["none", "uni", "session", "compat", "shared"] = "none"
    announce_ids: bool = False
    announce_first: Literal["none", "init", "ok"] = "none"
    announce_live: bool = False
    announce_tracks: bool = False
    sender_hop: Literal["none", "count", "sender", "ok"] = "none"
    costs: bool = False
    exclude_hop: bool = False
    track_in_path: bool = False
    subscribe_typed: bool = False
    subscribe_ok_needs_group: bool = False
    subscribe_end: bool = False
    subscribe_drop: bool = False
    update_keeps_range: bool = False
    max_age: bool = False
    frame_ranges: bool = False
    timestamps: bool = False
    track_info: bool = False
    fetch_update: bool = False
    probe: Literal["none", "bitrate", "rtt"] = "none"
    goaway: bool = False
    datagrams: bool = False
    offers: bool = False
    subgroups: bool = False
    unknown_stream_closes: bool = False


@attrs.frozen(kw_only=True)
class Quirks:
    """What known peers of a version need beside or against its draft. The default is a peer that follows the draft.

    Attributes:
        outer_slashes: Peers accept a path only with a slash before it, and a prefix only between two.
        announce_full_paths: Peers announce a full path instead of its suffix.
        accept_before_groups: Peers refuse a group that overtakes the acceptance of its subscription: the publisher
            holds groups back for about a round trip.
        subscribes_early: Peers subscribe without waiting for an announcement: their request waits for the track.
        fin_with_frame: Peers read one frame of a group and nothing after it, so that a FIN which comes alone leaves the
            stream open for ever: the publisher holds a frame back for a moment, in case its group ends.
        stray_zeros: Peers write bytes of zero between messages.
        forgets_fetches: Peers forget a fetch with its acceptance, and refuse the stream of its objects from then on:
            the acceptance follows the stream by about a round trip.
        plain_codes: Peers read stream codes over raw QUIC as they are, and not in the form of WebTransport.
        refuses_updates: Peers refuse a change of a subscription, and end the subscription with it: a relay, which would
            send one unasked, sends none.
    """

    outer_slashes: bool = False
    announce_full_paths: bool = False
    accept_before_groups: bool = False
    subscribes_early: bool = False
    fin_with_frame: bool = False
    stray_zeros: bool = False
    forgets_fetches: bool = False
    plain_codes: bool = False
    refuses_updates: bool = False


ALL_FRAMES: Final = 1 << 62
"""More frames than any bytes have."""


class FrameEncoder(Protocol):
    """Writes the frames of one group stream or fetch reply."""

    def encode(self, frames: Sequence[Frame]) -> bytes:
        """Return the bytes of some frames, in order. Raises `LocalProtocolError` for a frame that can't be carried."""
        ...


class FrameDecoder(abc.ABC):
    """Reads the frames of one group stream or fetch reply, from bytes cut anywhere."""

    @abc.abstractmethod
    def feed_untrusted(
        self, data: bytes, frames: list[Frame], sizes: list[int], start: int = 0, most: int = ALL_FRAMES
    ) -> int:
        """Read bytes, and append the frames that they complete. Return the offset after what was read.

        That is the end of the bytes, unless they complete more than `most` frames.

        Args:
            data: The next bytes of the stream.
            frames: The list to append the frames to; it has those before a mistake when this raises.
            sizes: The list to append their sizes to: the bytes that each took on the stream, header included. The
                peer's credit is counted in these.
            start: The offset of the first byte to read.
            most: Frames to append at most, above 0.

        Raises:
            Malformed: The bytes are not frames; scope `"stream"`.
            LimitExceeded: A frame is longer than `Limits.max_frame`; scope `"stream"`.
        """

    @property
    @abc.abstractmethod
    def pending_bytes(self) -> int:
        """Bytes that were fed and belong to a frame that is not complete; 0 at a frame boundary."""


class Dialect(abc.ABC):
    """One wire version.

    Attributes:
        name: The version's name, as `versions=` takes it: `"moq-lite-06"`.
        alpns: The TLS application protocols of it over raw QUIC; several versions may share one.
        webtransport_protocols: The WebTransport subprotocols of it; several versions may share one.
        features: Its features.
        quirks: The quirks of its known peers.
        handshakes: The forms of the handshake that negotiates it on the first stream, the one that a client sends
            first; none where the protocols above name it.
        number: Its number in such a handshake; None without one.
        opt_in: True for a version that is offered only when it is named.
        codes: How its error codes are numbered.
    """

    name: str
    alpns: tuple[str, ...]
    webtransport_protocols: tuple[str, ...]
    features: Features
    quirks: Quirks = Quirks()
    handshakes: tuple[HandshakeForm, ...] = ()
    number: int | None = None
    opt_in: bool = False
    codes: CodeTable = MOQ_LITE

    @property
    def in_band(self) -> bool:
        """True when the version is negotiated by messages: no protocol of the layers below names it alone."""
        return bool(self.handshakes)

    @abc.abstractmethod
    def split_stream_type(self, data: bytes) -> tuple[int, int] | None:
        """Return the number of a stream's type and the offset after it; None when it is not complete."""

    @abc.abstractmethod
    def stream_type(self, kind: StreamKind) -> bytes:
        """Return the bytes that open a stream of this kind. Raises `LocalProtocolError` when there is none."""

    @abc.abstractmethod
    def stream_kind_untrusted(self, number: int, *, bidirectional: bool) -> StreamKind | None:
        """Return what a stream type stands for, or None for an unknown one."""

    @abc.abstractmethod
    def encode(self, message: Message) -> bytes:
        """Return a message's bytes, with its type and length where it has them, without the stream type.

        Raises:
            LocalProtocolError: The version cannot carry the message, or a value is out of range.
        """

    @abc.abstractmethod
    def read_untrusted(self, expect: Expect, buffer: StreamBuffer, limits: Limits) -> Message | None:
        """Take the next message out of a buffer. Until it is complete, return None and leave the buffer as it is.

        A message is decoded once, when it is complete: no work is repeated for each byte that arrives.

        Raises:
            Malformed: The bytes are not such a message.
            LimitExceeded: A length or a count exceeds `limits`; raised before anything is allocated.
        """

    @abc.abstractmethod
    def encode_frame(self, payload: bytes, timestamp: int | None, previous_timestamp: int) -> bytes:
        """Return a frame's bytes.

        Args:
            payload: The application's bytes.
            timestamp: In the track's timescale; None counts as `previous_timestamp` where the version has timestamps.
            previous_timestamp: That of the frame before on the same stream; 0 for the first.
        """

    @abc.abstractmethod
    def frame_encoder(self) -> FrameEncoder:
        """Return a writer for one stream's frames."""

    @abc.abstractmethod
    def frame_decoder(self, limits: Limits) -> FrameDecoder:
        """Return a reader for one stream's frames."""

    @abc.abstractmethod
    def encode_datagram(self, datagram: Datagram) -> bytes:
        """Return a datagram's body. Raises `LocalProtocolError` where the version has none."""

    @abc.abstractmethod
    def read_datagram_untrusted(self, data: bytes) -> Datagram:
        """Return the subscription, the group and the frame of a datagram. Raises `Malformed`."""

    def __repr__(self) -> str:
        return f"<Dialect {self.name}>"


_registry: dict[str, Dialect] = {}


def register(dialect: Dialect) -> Dialect:
    """Add a version to the registry; called once by each codec's module."""
    _registry[dialect.name] = dialect
    return dialect


def get(name: str) -> Dialect:
    """Return the version of this name.

    Raises:
        ValueError: There is none; the message has the nearest name, and all names, best first.
    """
    try:
        return _registry[name]
    except KeyError:
        known = version_names(opt_in=True)
        nearest = difflib.get_close_matches(str(name), known, n=1)
        meant = f"did you mean {nearest[0]!r}? This" if nearest else "this"
        raise ValueError(f"unknown version {name!r}: {meant} library speaks {', '.join(known)}") from None


def version_names(*, opt_in: bool = False) -> tuple[str, ...]:
    """Return the names of the versions that are offered without being named, newest first.

    Args:
        opt_in: True adds those that are offered only when they are named.
    """
    offered = [dialect.name for dialect in _registry.values() if not dialect.opt_in]
    return (*offered, *(name for name, dialect in _registry.items() if opt_in and dialect.opt_in))


def resolve(versions: Iterable[str] | None) -> tuple[Dialect, ...]:
    """Return the versions of these names in this order; those of `version_names()` for None.

    Raises:
        ValueError: An unknown name, or no name at all.
    """
    if versions is None:
        versions = version_names()
    if isinstance(versions, str):
        raise ValueError(f"versions is a sequence of names, not the text {versions!r}; write [{versions!r}]")
    chosen = tuple(get(name) for name in versions)
    if not chosen:
        raise ValueError("versions is empty; leave it out to offer all of them")
    return chosen
