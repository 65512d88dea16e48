"""Session: the application's side of a session."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

from ..arguments import want, want_number
from ..errors import LocalProtocolError, NotFound
from ..model.broadcast import Broadcast
from ..model.origin import PublishedBroadcast
from ..protocol.ietf.fetch import FetchRequester as RangeRequester
from ..protocol.paths import path_local
from ..tasks import defer_interrupts
from ..wire.messages import Role
from .goaway import send_goaway
from .publisher.publish import checked_route
from .publisher.publisher import Publisher
from .requests import RequestStreams
from .statistics import SessionStatistics
from .subscriber.announce import Announcement, Announcements
from .subscriber.fetch import FetchReader
from .subscriber.probe import Probe
from .subscriber.reply_stream import RangeReader
from .subscriber.subscribe import SubscribeOptions, Subscription
from .subscriber.subscriber import Subscriber
from .subscriber.track import TrackStatus, ask_status
from .subscriber.tracks import OfferedTracks

if TYPE_CHECKING:
    from ..errors import MoqtError
    from ..path import BroadcastPath
    from ..protocol.subscribe import StartPlace
    from ..wire.messages import Token
    from .context import SessionContext
    from .handshake import Negotiated
    from .publisher.publish import Publication


def _check_end(code: int, reason: str) -> None:
    want_number("a session's code", code)
    want(reason, str, "a session's reason is a text")


def _check_priority(priority: int) -> None:
    want_number("priority", priority)
    if not 0 <= priority <= 255:
        raise ValueError(f"priority is 0 … 255, not {priority}")


@defer_interrupts
class Session:
    """A session with one peer, both publisher and subscriber. `connect` and `SessionRequest.accept` return one.

    Attributes:
        version: The negotiated version, such as `"moq-lite-06"`.
        transport: The kind of its connection: `"quic"`, `"webtransport"` or `"memory"`.
        peer: The peer's address and port, where there is one.
        limits: The bounds.
    """

    def __init__(self, context: SessionContext, negotiated: Negotiated) -> None:
        self._context = context
        self._negotiated = negotiated
        self._subscriber = Subscriber(context)
        offers = self._subscriber.offers
        self._publisher = Publisher(context, offers.serve, offers.has)
        offers.watch(self._publisher.peer_offer_changed)
        requests = context.core.requests
        self._shared_requests = (
            None
            if requests is None
            else RequestStreams(context, requests, self._publisher.stream_opened, self._publisher.requests_available)
        )
        context.requests = self._shared_requests
        self.version = context.dialect.name
        self.transport: Literal["quic", "webtransport", "memory"] = context.connection.kind
        self.peer = context.connection.peer
        self.limits = context.limits

    # -- publishing ----------------------------------------------------------------------------------------

    def publish(
        self,
        path: str | BroadcastPath,
        broadcast: Broadcast,
        *,
        hops: Collection[int] = (),
        cost: int = 0,
        cold_cost: int | None = None,
        offer_tracks: bool = False,
    ) -> Publication:
        """Return a block during which a broadcast is announced.

        Leaving the block cleanly unannounces the broadcast and lets running subscriptions deliver what was written: for
        `Limits.close_timeout` from a live track, and from a reliable one for as long as the subscriber takes some of it
        within each such time; what is lost after all is logged. An exception or a cancellation resets them.

        Args:
            path: Where to announce it, parts separated by `/`.
            broadcast: What to publish; the same one may be published on many sessions.
            hops: For a relay: the hop ids of the relays that the broadcast passed, origin first; each 0 … 2**62-1.
            cost: What subscribing costs, in the deployment's units: 0 … 2**62-1.
            cold_cost: The same without a discount for a copy that is cached already; None for the same.
            offer_tracks: True to offer each track to the peer unasked, as a client does to a relay that does not ask
                (PUBLISH, IETF only). Nothing is sent on them before the peer wants it.

        Raises:
            ValueError: The path is empty or not a path, or a number is out of range; on entering, a broadcast is
                published under this path already.
            LocalProtocolError: The negotiated version has no offers of tracks.
            SessionClosed: On entering: the session ended.
        """
        where = self._checked_path(path)
        # It has tracks as a Broadcast has: a message says which of both is wanted.
        want(broadcast, Broadcast, "publish takes a path and a Broadcast, which Session.publish announces")
        if not where.parts:
            raise ValueError("a broadcast needs a path of at least one part")
        if offer_tracks and not self._context.dialect.features.offers:
            raise LocalProtocolError(f"{self.version} has no offers of tracks")
        return self._publisher.publish(
            PublishedBroadcast(where, broadcast, checked_route(hops, cost, cold_cost)), offer_tracks=offer_tracks
        )

    # -- subscribing ---------------------------------------------------------------------------------------

    def announcements(self, prefix: str | BroadcastPath = "", *, hidden: bool = False) -> Announcements:
        """Return a request for the peer's announcements below a prefix.

        Args:
            prefix: Whole parts, separated by `/`; empty for everything.
            hidden: True asks for hidden paths, too, which have a part below the prefix that begins with a dot.

        Returns:
            A block to be entered with `async with`, once, and iterated inside.

        Raises:
            ValueError: The prefix is not a path.
            LocalProtocolError: On entering: the block was entered before, the version cannot carry the prefix, or the
                peer cannot be asked for hidden paths.
            SessionClosed: On entering: the session ended.
            GoingAway: On entering: the peer has sent GOAWAY.
        """
        return Announcements(self._context, self._checked_path(prefix), hidden=hidden)

    async def wait_announced(self, path: str | BroadcastPath) -> Announcement:
        """Wait until the peer announces a broadcast, and return its announcement; at once when it is announced already.

        Args:
            path: The broadcast's whole path.

        Raises:
            ValueError: The path is empty or not a path.
            NotFound: The peer has ended its list of announcements without the broadcast.
            StreamReset: The peer refused or reset the list.
            RemoteProtocolError: The peer broke the protocol on the list's stream.
            SessionClosed: The session ended.
            GoingAway: The peer has sent GOAWAY.
        """
        wanted = self._checked_path(path)
        if not wanted.parts:
            raise ValueError("a broadcast has a path of at least one part")
        async with self.announcements(wanted) as announcements:
            async for announcement in announcements:
                if announcement.active and announcement.path == wanted:
                    return announcement
        raise NotFound(str(wanted), "", "the peer ended its announcements")

    def subscribe(
        self,
        path: str | BroadcastPath,
        track: str,
        *,
        priority: int = 127,
        ordered: bool = False,
        max_age: float = 5.0,
        start_group: int | None = None,
        end_group: int | None = None,
        start_frame: int = 0,
        end_frame: int | None = None,
        paused: bool = False,
        rendezvous: float | None = None,
        delivery_timeout: float | None = None,
        start: StartPlace = "latest_group",
        past_groups: int = 0,
    ) -> Subscription:
        """Return a subscription to a track of the peer.

        A track that the peer has offered (IETF) is read by way of the offer. Subscribe to a track once for each
        session: from draft 19 on a publisher may send it once, and then the second subscription fails.

        Args:
            path: The broadcast's path.
            track: The track's name.
            priority: 0 … 255; under congestion higher goes first.
            ordered: Ask for groups in sequence order rather than newest first; moq-lite-06 has no such field. With it,
                groups that are not read hold up the session's other tracks for `max_age`, and otherwise for a second.
            max_age: Seconds. A group that is older than the newest one by this much is dropped on its way.
            start_group: The first group wanted: delivery starts at the oldest group from this one on that the publisher
                keeps; 0 asks for all that it keeps. None starts as `start` says.
            end_group: The last group wanted, inclusive.
            start_frame: The first frame wanted of `start_group`; moq-lite-06 and IETF only.
            end_frame: The last frame wanted of `end_group`, inclusive; moq-lite-06 only, and IETF from `moqt-20` on.
            paused: True to be sent nothing until `Subscription.update(paused=False)`; IETF only.
            rendezvous: Seconds that the publisher is to wait for a track that is not there, instead of refusing at
                once; IETF only. What did not come in that time ends in `StreamReset` with `CONTROL_TIMEOUT`.
            delivery_timeout: Seconds after which a frame is not sent any more: its group is reset with
                `DELIVERY_TIMEOUT`; IETF only. None for no bound.
            start: `"latest_group"` starts with all of the newest group; `"next_group"` with the first group that is
                opened from then on, and `"next_frame"` with the first frame, in the middle of a group, it may be. The
                last two are IETF only. What the subgroups of the newest group had before comes with its subgroup 0.
            past_groups: Groups before the newest one that are wanted, too, as far as the publisher keeps them: 0 … 64.
                They come as they arrive, which may be after newer ones; IETF only.

        Returns:
            A block to be entered with `async with`, once, and iterated inside.

        Raises:
            ValueError: A value is out of range.
            LocalProtocolError: On entering: the block was entered before, the range ends before it starts, or the
                version cannot carry what is asked for.
            SessionClosed: On entering: the session ended.
            GoingAway: On entering: the peer has sent GOAWAY.
        """
        self._check_track_name(track)
        _check_priority(priority)
        options = SubscribeOptions(
            priority,
            ordered,
            max_age,
            start_group,
            end_group,
            start_frame,
            end_frame,
            paused,
            delivery_timeout,
            rendezvous,
            start,
            past_groups,
        )
        options.check()
        subscriber = self._subscriber
        return Subscription(
            self._context, subscriber.queues, subscriber.offers, self._checked_path(path), track, options
        )

    def offered_tracks(self, prefix: str | BroadcastPath = "") -> OfferedTracks:
        """Return a request for offers of the peer's tracks below a prefix (IETF only).

        A track that is offered sleeps until `subscribe` asks for it, which then takes no further request. It need not
        be announced.

        Args:
            prefix: Whole parts, separated by `/`; empty for everything.

        Returns:
            A block to be entered with `async with`, once, and iterated inside.

        Raises:
            ValueError: The prefix is not a path.
            LocalProtocolError: On entering: the version has no offers of tracks, or the block was entered before.
            SessionClosed: On entering: the session ended.
            GoingAway: On entering: the peer has sent GOAWAY.
        """
        return OfferedTracks(self._context, self._subscriber.offers, self._checked_path(prefix))

    def _checked_path(self, path: str | BroadcastPath) -> BroadcastPath:
        # A peer with the same bounds resets the stream for a path that exceeds them.
        try:
            return path_local(path, self.limits)
        except LocalProtocolError as error:
            raise ValueError(str(error)) from None

    def _check_track_name(self, track: str) -> None:
        want(track, str, "a track is asked for by its name, a text")
        # A peer closes the session for a name that is too long.
        if len(track.encode()) > self.limits.max_track_name:
            raise ValueError(f"a track's name has at most {self.limits.max_track_name} bytes in UTF-8")

    def fetch(
        self,
        path: str | BroadcastPath,
        track: str,
        sequence: int,
        *,
        priority: int = 127,
        start_frame: int = 0,
        end_frame: int | None = None,
    ) -> FetchReader:
        """Return a request for one group, live or past.

        Args:
            path: The broadcast's path.
            track: The track's name.
            sequence: The group's number.
            priority: 0 … 255; under congestion higher goes first.
            start_frame: The first frame wanted.
            end_frame: The last frame wanted, inclusive; moq-lite-06 and IETF only.

        Returns:
            A block to be entered with `async with`, once, and iterated inside. Reading raises `NotFound` when the
            publisher does not have the group.

        Raises:
            ValueError: The path is not a path, or the track's name is too long.
            LocalProtocolError: The negotiated version has no fetch or cannot name frames, or a number is out of
                range; on entering, the block was entered before.
            SessionClosed: On entering: the session ended.
            GoingAway: On entering: the peer has sent GOAWAY.
        """
        self._check_track_name(track)
        _check_priority(priority)
        want_number("sequence", sequence)
        want_number("start_frame", start_frame)
        if end_frame is not None:
            want_number("end_frame", end_frame)
        where = self._checked_path(path)
        machine = self._context.core.fetch(
            where, track, sequence, priority=priority, start_frame=start_frame, end_frame=end_frame
        )
        if isinstance(machine, RangeRequester):
            return RangeReader(self._context, where, track, machine, sequence, start_frame)
        return FetchReader(self._context, where, track, machine, sequence, start_frame)

    def fetch_range(
        self,
        path: str | BroadcastPath,
        track: str,
        start: tuple[int, int],
        end: tuple[int, int | None],
        *,
        priority: int = 127,
        newest_first: bool = False,
    ) -> RangeReader:
        """Return a request for the frames of a track from one place to another, over any number of groups.

        Args:
            path: The broadcast's path.
            track: The track's name.
            start: The first frame wanted, as its group's sequence and its index.
            end: The last frame wanted, inclusive; None instead of the index for all of that group. What was not
                published yet when the request arrives is not sent; the rest of an older group that is still written is
                `missing`, or waited for by a publisher that cannot say so (drafts 14 and 15, and newest first).
            priority: 0 … 255; under congestion higher goes first.
            newest_first: True for the newest group first. The frames of a group are in order in any case.

        Returns:
            A block to be entered with `async with`, once, and iterated inside for frames, each with its `group` and its
            index. Reading raises `NotFound` when nothing of the range was published, or the publisher keeps none of it.

        Raises:
            ValueError: The path is not a path, or the track's name is too long.
            LocalProtocolError: The negotiated version has no such fetch, or the range ends before it starts; on
                entering, the block was entered before.
            SessionClosed: On entering: the session ended.
            GoingAway: On entering: the peer has sent GOAWAY.
        """
        self._check_track_name(track)
        _check_priority(priority)
        for number in (*start, *end):
            if number is not None:
                want_number("a place in a track", number)
        where = self._checked_path(path)
        machine = self._context.core.fetch_range(where, track, start, end, priority=priority, descending=newest_first)
        return RangeReader(self._context, where, track, machine, start[0], start[1])

    async def track_status(self, path: str | BroadcastPath, track: str) -> TrackStatus:
        """Ask the peer what it has of a track, without a subscription.

        Args:
            path: The broadcast's path.
            track: The track's name.

        Raises:
            ValueError: The path is not a path, or the track's name is too long.
            NotFound: The publisher has no such broadcast or track.
            StreamReset: The publisher refused with another code, or did not answer within `Limits.reply_timeout`.
            RemoteProtocolError: The publisher broke the protocol on the request's stream.
            LocalProtocolError: The version has no such request.
            SessionClosed: The session ended.
            GoingAway: The peer has sent GOAWAY.
        """
        self._check_track_name(track)
        return await ask_status(self._context, self._checked_path(path), track)

    def probe(self, bitrate: int | None = None) -> Probe:
        """Return a request for the bitrate and the round trip time that the peer measures towards this side.

        Args:
            bitrate: A target in bits per second for peers that can raise their rate to it; None asks for reports.

        Returns:
            A block to be entered with `async with`, once, and iterated inside for `ProbeReport`s.

        Raises:
            LocalProtocolError: The negotiated version has no probes, or the peer's SETUP says that it does not report;
                on entering, the block was entered before.
            SessionClosed: On entering: the session ended.
            GoingAway: On entering: the peer has sent GOAWAY.
        """
        return Probe(self._context, bitrate)

    # -- the session itself --------------------------------------------------------------------------------

    async def goaway(self, uri: str = "", *, timeout: float | None = None) -> None:
        """Send GOAWAY, which asks the peer to leave.

        Args:
            uri: The URL to connect to instead; only a server may name one.
            timeout: Seconds after which the session is closed with GOAWAY_TIMEOUT, if it has not ended by then; the
                IETF's drafts tell the peer. None leaves it open.

        Raises:
            LocalProtocolError: The negotiated version has no GOAWAY, it was sent before, or a client names a URL.
            SessionClosed: The session ended.
        """
        await send_goaway(self._context, uri, timeout)

    async def wait_goaway(self) -> str:
        """Wait for the peer's GOAWAY, and return its URI, which may be empty. Raises `SessionClosed`."""
        await self._context.going_away.wait()
        uri = self._context.core.goaway_received
        if uri is None:
            self._context.check_open()
        return uri or ""

    @property
    def peer_tokens(self) -> tuple[Token, ...]:
        """The authorization tokens of the peer's SETUP; empty before it, and where the version has none."""
        setup = self._context.core.peer_setup
        return () if setup is None else setup.tokens

    @property
    def hop_id(self) -> int:
        """This side's hop id: who publishes here, in the hops of announcements."""
        return self._context.core.setup.hop_id

    @property
    def peer_role(self) -> str:
        """What a client says that it will do: `"publisher"`, `"subscriber"` or `"both"`, also where it has not said."""
        setup = self._context.core.peer_setup
        return Role.BOTH.name.lower() if setup is None else setup.role.name.lower()

    @property
    def closed(self) -> MoqtError | None:
        """How the session ended (`SessionClosed`), or None while it runs."""
        return self._context.connection.closed

    async def wait_closed(self) -> MoqtError:
        """Wait until the session has ended, and return how."""
        return await self._context.connection.wait_closed()

    def close(self, code: int = 0, reason: str = "") -> None:
        """Start closing at once, without delivering the rest. Does nothing the second time.

        Args:
            code: A session error code.
            reason: A text for the peer's log; cut at 1024 bytes.
        """
        _check_end(code, reason)
        self._context.close(code, reason)

    async def aclose(self, code: int = 0, reason: str = "") -> None:
        """Let subscriptions finish, then close.

        Live tracks have `Limits.close_timeout` for that. What reliable ones accepted is delivered for as long as the
        subscribers take some of it within each such time; what is lost after all is logged.

        It may be called again, and closes the session even when it is cancelled, without waiting.
        """
        _check_end(code, reason)
        try:
            if self.closed is None:
                await self._publisher.finish()
        finally:
            await self._context.connection.aclose(code, reason)

    def statistics(self) -> SessionStatistics:
        """Return the session's numbers."""
        handshake = self._negotiated.handshake
        return SessionStatistics(
            transport=self._context.connection.statistics(),
            publications=len(self._publisher.origin),
            subscriptions=len(self._subscriber.queues),
            subscriptions_served=len(self._publisher.subscriptions),
            groups_dropped=sum(server.dropped_groups for server in self._publisher.subscriptions),
            datagrams_dropped=self._context.core.dropped_datagrams,
            peer_bitrate=None if handshake is None else handshake.machine.peer_bitrate,
        )

    def __repr__(self) -> str:
        state = "closed" if self.closed is not None else "open"
        side = "client" if self._context.core.is_client else "server"
        return f"<Session {self.version} over {self.transport}, {side}, {state}>"
