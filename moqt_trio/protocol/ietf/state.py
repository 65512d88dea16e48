"""What the machines of one IETF session share: request ids, track aliases, and streams whose alias is not known yet."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Protocol

from ...codes import StreamCode
from ...errors import RemoteProtocolError
from ..state import RequestSlots, SessionState
from .request_ids import OwnRequests, PeerRequests

if TYPE_CHECKING:
    from ...limits import Limits
    from ...path import BroadcastPath
    from ...wire.ietf.drafts import IetfDialect
    from ...wire.ietf.fetched_frames import FetchedFrames
    from ...wire.ietf.names import Namespace
    from ..machine import StreamMachine

MAX_PARKED = 32
"""Streams, and datagrams, that may wait for the message that names their alias: it is on its way on another stream."""
_MAX_TOMBSTONES = 256
_DUPLICATE_TRACK_ALIAS = 0x5


class TrackAliases:
    """The aliases by which the peer's streams name the subscriptions of this side.

    Attributes:
        parked: The streams of aliases that no message has named yet.
    """

    def __init__(self) -> None:
        self._subscriptions: dict[int, int] = {}
        self._ended: OrderedDict[int, None] = OrderedDict()
        self.parked: dict[int, list[StreamMachine]] = {}
        self._parked_count = 0
        self._datagrams: deque[tuple[int, bytes]] = deque(maxlen=MAX_PARKED)

    def name_untrusted(self, alias: int, subscribe_id: int, *, shared: bool) -> bool:
        """Record what the publisher calls a subscription's track.

        A stream is passed to one subscription here. So where two share an alias, the second one can't be read.

        Args:
            alias: The alias.
            subscribe_id: The subscription.
            shared: True in a draft in which subscriptions to one track may share an alias.

        Returns:
            False, and nothing is recorded, when it is shared with another subscription.

        Raises:
            RemoteProtocolError: The alias is that of another subscription, and may not be shared; it ends the session.
        """
        known = self._subscriptions.setdefault(alias, subscribe_id)
        if known != subscribe_id:
            if shared:
                return False
            raise RemoteProtocolError(f"the track alias {alias} for two subscriptions", code=_DUPLICATE_TRACK_ALIAS)
        self._ended.pop(alias, None)
        return True

    def __len__(self) -> int:
        return len(self._subscriptions)

    def find(self, alias: int) -> int | None:
        """Return the subscription that an alias stands for, or None."""
        return self._subscriptions.get(alias)

    def names(self, subscribe_id: int) -> bool:
        """Return whether a subscription has an alias: it was accepted."""
        return subscribe_id in self._subscriptions.values()

    def forget(self, subscribe_id: int) -> None:
        """End a subscription: streams of its alias are refused at once from now on."""
        for alias in [alias for alias, found in self._subscriptions.items() if found == subscribe_id]:
            del self._subscriptions[alias]
            self._ended[alias] = None
            if len(self._ended) > _MAX_TOMBSTONES:
                self._ended.popitem(last=False)

    def park_datagram(self, alias: int, data: bytes) -> bool:
        """Keep a datagram until its alias is named, while there are few; return False for an alias that has ended."""
        if alias in self._ended:
            return False
        self._datagrams.append((alias, data))
        return True

    def take_datagrams(self, subscribe_id: int) -> list[bytes]:
        """Return the datagrams that came before it was known that they belong to a subscription."""
        found = [data for alias, data in self._datagrams if self.find(alias) == subscribe_id]
        if found:
            kept = [(alias, data) for alias, data in self._datagrams if self.find(alias) != subscribe_id]
            self._datagrams = deque(kept, maxlen=MAX_PARKED)
        return found

    def park_untrusted(self, alias: int, receiver: StreamMachine) -> None:
        """Keep a stream until its alias is named.

        Raises:
            RemoteProtocolError: The alias is that of a subscription that has ended, or too many streams wait; it ends
                the stream.
        """
        if alias in self._ended:
            raise RemoteProtocolError(
                f"a group of the track alias {alias}, which has ended", code=StreamCode.CANCELLED, scope="stream"
            )
        if self._parked_count >= MAX_PARKED:
            problem = f"more than {MAX_PARKED} groups of track aliases that nothing has named"
            raise RemoteProtocolError(problem, code=StreamCode.CANCELLED, scope="stream")
        self._parked_count += 1
        self.parked.setdefault(alias, []).append(receiver)

    def unpark(self, alias: int, receiver: StreamMachine) -> None:
        """Take a stream out again; nothing when it does not wait."""
        waiting = self.parked.get(alias, [])
        if receiver in waiting:
            waiting.remove(receiver)
            self._parked_count -= 1
            if not waiting:
                del self.parked[alias]


def request_window(limits: Limits) -> int:
    """Return how many requests of the peer's may be open at once where they share one stream."""
    return limits.max_streams + limits.max_announcements


class DueUpdate(Protocol):
    """An update of this side that waits for an id.

    Attributes:
        existing_id: The request that it changes.
    """

    existing_id: int | None

    def take_due(self) -> bytes:
        """Return the update, or b"" when there is still no id for it."""
        ...


class IetfState(SessionState):
    """The state of one IETF session that is not the state of one stream.

    Attributes:
        codec: Reads and writes the control messages.
        profile: The layouts of the draft.
        aliases: What the peer calls the tracks of this side's subscriptions.
        own_requests: The ids of this side's requests.
        requests_of_peer: The ids of the peer's requests.
        tracks_asked: Prefixes of the peer's requests for tracks that are open, from draft 16 on.
        announcements: How many namespaces the peer announces by requests (PUBLISH_NAMESPACE).
        asked_for_good: Prefixes below which the peer was asked to announce everything until the session ends (14), and
            whether it has accepted that.
        updates_due: The updates of this side that wait for the peer to allow another id, the oldest first.
        streams_opened: For each subscription of the peer's, how many streams were opened for it.
        streams_read: For each subscription of this side's, how many of its streams have begun here.
        replies: What reads the objects that this side asked for, by the request, until their stream begins.
        parked_replies: The streams of fills whose subscription was not accepted yet, by the subscription.
        peer_knows_hidden: True when the peer's SETUP said that it can be asked for hidden paths.
        peer_max_updates: How many updates of one request the peer leaves unanswered; 0 for any number.
    """

    def __init__(self, dialect: IetfDialect, **arguments: Any) -> None:
        super().__init__(dialect=dialect, **arguments)
        self.codec = dialect.codec
        self.profile = dialect.profile
        self.aliases = TrackAliases()
        profile, parity = dialect.profile, 0 if self.is_client else 1
        one_stream = profile.one_control_stream
        self.own_requests = OwnRequests(parity, limited=one_stream)
        # On 16 the requests for namespaces have streams of their own, and may overtake others.
        self.requests_of_peer = PeerRequests(
            1 - parity,
            window=request_window(self.limits) if one_stream else None,
            in_order=profile.namespaces == "control",
        )
        self.tracks_asked: set[BroadcastPath] = set()
        self.announcements = RequestSlots("max_announcements", self.limits.max_announcements)
        self.asked_for_good: dict[Namespace, bool] = {}
        self.updates_due: dict[DueUpdate, None] = {}
        self.streams_opened: dict[int, int] = {}
        self.streams_read: dict[int, int] = {}
        self.replies: dict[int, FetchedFrames] = {}
        self.parked_replies: dict[int, StreamMachine] = {}
        self.peer_knows_hidden = False
        self.peer_max_updates = 0

    @property
    def awaits_alias(self) -> bool:
        """True while a subscription of this side has no alias yet."""
        return len(self.issued) > len(self.aliases)

    def count_stream(self, request_id: int) -> None:
        """Count a stream that is opened for a subscription of the peer's; nothing for another request."""
        if request_id in self.peers:
            self.streams_opened[request_id] = self.streams_opened.get(request_id, 0) + 1

    def count_read(self, request_id: int) -> None:
        """Count a stream that has begun here; nothing for one that is of no subscription of this side's."""
        if request_id in self.issued:
            self.streams_read[request_id] = self.streams_read.get(request_id, 0) + 1

    def next_request_id(self) -> int:
        """Allocate an id for a request of this side, which is written at once."""
        return self.own_requests.take()
