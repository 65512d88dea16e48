"""What the machines of one session share: ids, counts, and the peer's SETUP and GOAWAY.

Every count that a peer can drive up is bounded here.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import attrs

from ..codes import SessionCode, StreamCode
from ..errors import LimitExceeded, RemoteProtocolError

if TYPE_CHECKING:
    from ..limits import Limits
    from ..wire.dialect import Dialect
    from ..wire.messages import Setup


class IssuedSubscriptions:
    """The subscriptions that this side made.

    Ids count up from 0, so an id below the next one was issued once. That alone distinguishes a late group of an ended
    subscription from one of a subscription that never existed, for as long as the session lives and without memory.

    Attributes:
        next_id: The id of the next subscription.
        unknown_groups: Group streams that arrived for subscriptions that never existed.
    """

    def __init__(self, limits: Limits) -> None:
        self.next_id = 0
        self.unknown_groups = 0
        self._live: set[int] = set()
        self._max_unknown_groups = limits.max_unknown_groups

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, subscribe_id: int) -> bool:
        return subscribe_id in self._live

    def register(self) -> int:
        """Allocate the next id, and return it."""
        subscribe_id = self.next_id
        self.next_id += 1
        self._live.add(subscribe_id)
        return subscribe_id

    def add(self, subscribe_id: int) -> None:
        """Add a subscription whose id was allocated elsewhere."""
        self._live.add(subscribe_id)

    def release(self, subscribe_id: int) -> None:
        """End a subscription: its late groups are refused from now on, without an error of the session."""
        self._live.discard(subscribe_id)

    def check_untrusted(self, subscribe_id: int) -> None:
        """Check that a group may arrive for this id.

        Raises:
            RemoteProtocolError: It may not; scope `"stream"`.
            LimitExceeded: Too many arrived for ids that never existed; scope `"session"`.
        """
        if subscribe_id in self._live:
            return
        if subscribe_id >= self.next_id:
            self.unknown_groups += 1
            if self.unknown_groups > self._max_unknown_groups:
                raise LimitExceeded("max_unknown_groups", self.unknown_groups, code=SessionCode.PROTOCOL_VIOLATION)
        raise RemoteProtocolError(
            f"a group for subscription {subscribe_id}, which is not open", code=StreamCode.CANCELLED, scope="stream"
        )


class PeerSubscriptions:
    """The subscriptions that the peer made, and the ids that it may not use again."""

    def __init__(self, limits: Limits, duplicate_code: int) -> None:
        self._live: set[int] = set()
        # Those that this side opened: the peer is not held to a number of them, and their ids are none of its.
        self._own: set[int] = set()
        self._ended: OrderedDict[int, None] = OrderedDict()
        self._refused = 0
        self._limits = limits
        self._duplicate_code = duplicate_code

    def __len__(self) -> int:
        return len(self._live) + len(self._own)

    def __contains__(self, subscribe_id: int) -> bool:
        return subscribe_id in self._live or subscribe_id in self._own

    def admit_untrusted(self, subscribe_id: int) -> None:
        """Register a peer's id.

        Raises:
            RemoteProtocolError: The id is or was in use; scope `"stream"`.
            LimitExceeded: Too many subscriptions are open; scope `"stream"`, and `"session"` for a peer that goes on
                asking until its open and its refused subscriptions are twice the limit.
        """
        if subscribe_id in self._live or subscribe_id in self._ended:
            raise RemoteProtocolError(
                f"subscribe id {subscribe_id} is used a second time", code=self._duplicate_code, scope="stream"
            )
        bound = self._limits.max_subscriptions
        if len(self._live) >= bound:
            self._refused += 1
            asked = len(self._live) + self._refused
            if asked > 2 * bound:
                raise LimitExceeded("max_subscriptions", asked, code=SessionCode.PROTOCOL_VIOLATION)
            raise LimitExceeded("max_subscriptions", asked, code=StreamCode.NO_CAPACITY, scope="stream")
        self._refused = 0
        self._live.add(subscribe_id)

    def add(self, subscribe_id: int) -> None:
        """Add a subscription that this side opened; its id is one of this side's, and counts for no limit."""
        self._own.add(subscribe_id)

    def release(self, subscribe_id: int) -> None:
        """End a subscription. A peer's id stays refused until `Limits.max_tombstones` later ones have ended."""
        if subscribe_id in self._own:
            self._own.remove(subscribe_id)
            return
        self._live.remove(subscribe_id)
        self._ended[subscribe_id] = None
        if len(self._ended) > self._limits.max_tombstones:
            self._ended.popitem(last=False)


class RequestSlots:
    """How many announce, fetch, track and probe streams the peer holds open; or how many requests of one kind.

    Args:
        limit: The name of the bound in `Limits`.
        bound: Its value.

    Attributes:
        taken: Their number.
    """

    def __init__(self, limit: str, bound: int) -> None:
        self.taken = 0
        self._limit = limit
        self._bound = bound

    def take_untrusted(self) -> None:
        """Count one more. Raises `LimitExceeded` with scope `"stream"` at the limit."""
        if self.taken >= self._bound:
            raise LimitExceeded(self._limit, self.taken + 1, code=StreamCode.NO_CAPACITY, scope="stream")
        self.taken += 1

    def give_back(self) -> None:
        """Count one less."""
        self.taken -= 1


class MessageBudget:
    """How many messages the streams of a session may read before the caller has done other work.

    Attributes:
        left: Their number; the caller sets it.
    """

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = 1 << 62


@attrs.define(eq=False)
class SessionState:
    """The state of one session that is not the state of one stream.

    Attributes:
        dialect: The version that the session speaks.
        is_client: True on the side that opened the session.
        limits: The bounds that the peer is held to.
        path_on_wire: True when a client's SETUP may carry the request path: raw QUIC, which has no URI.
        hop_id: This side's hop id; 0 for none.
        peer_setup: The peer's SETUP; None before it, and where the version has none.
        setup_seen: True once the peer opened its SETUP stream.
        goaway_sent: True once this side sent GOAWAY.
        goaway_received: The URI of the peer's GOAWAY; None before it.
        frames_apart: True when the caller reads the frames of groups itself; see `GroupReceiver`.
        budget: Bounds the messages that are read at once.
        shows_hidden: True when hidden paths are announced to the peer, too, without being asked for.
        drained: True once the transport asked this side to end the session (DRAIN_WEBTRANSPORT_SESSION).
    """

    dialect: Dialect
    is_client: bool
    limits: Limits
    path_on_wire: bool
    hop_id: int
    peer_setup: Setup | None = None
    setup_seen: bool = False
    goaway_sent: bool = False
    goaway_received: str | None = None
    drained: bool = False
    frames_apart: bool = False
    shows_hidden: bool = False
    budget: MessageBudget = attrs.Factory(MessageBudget)
    issued: IssuedSubscriptions = attrs.field(init=False)
    peers: PeerSubscriptions = attrs.field(init=False)
    requests: RequestSlots = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.issued = IssuedSubscriptions(self.limits)
        self.peers = PeerSubscriptions(
            self.limits, self.dialect.codes.duplicates.get("subscribe", StreamCode.INTERNAL_ERROR)
        )
        self.requests = RequestSlots("max_requests", self.limits.max_requests)
