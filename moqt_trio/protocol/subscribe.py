"""The subscribe stream: SUBSCRIBE and its updates one way, OK, END and DROP the other.

The groups travel on streams of their own (`group.py`) and may overtake everything here: a requester registers its id
when it is made, before SUBSCRIBE is written, and a responder's id stays in use until `release`.

The responder goes through the states of `machine.py`. The requester has three of them, and closes its input where the
responder finishes or refuses:

    state    | OK           | DROP          | END   | FIN               | reset            | STOP_SENDING
    ---------|--------------|---------------|-------|-------------------|------------------|-----------------
    PENDING  | ACCEPTED     | –             | ENDED | `RequestFinished` | `RequestRefused` | `RequestRefused`
    ACCEPTED | ACCEPTED (*) | ACCEPTED      | ENDED | `RequestFinished` | `RequestRefused` | ACCEPTED
    ENDED    | –            | ENDED (**)    | –     | `RequestFinished` | `RequestRefused` | ENDED

A dash is a mistake of the publisher's: it breaks the stream. (*) In moq-lite-03 and -04 a publisher may repeat OK; else
it is a mistake. (**) DROP may follow END where OK came before: a track may end before its first group, without OK.

Spec: draft-lcurley-moq-lite-06, section 7 (SUBSCRIBE and its replies).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, TypedDict, Unpack

import attrs

from .. import varint
from ..codes import StreamCode
from ..errors import LocalProtocolError
from ..wire.messages import (
    Expect,
    Message,
    StreamKind,
    Subscribe,
    SubscribeDrop,
    SubscribeEnd,
    SubscribeOk,
    SubscribeUpdate,
    TrackInfo,
)
from .events import Event, RequestFinished, RequestRefused, SubscribeRequested
from .machine import MessageMachine, RequestState, Responder
from .paths import format_requested, path_untrusted

if TYPE_CHECKING:
    from ..path import BroadcastPath
    from .state import SessionState

_ANY_AGE_MS = 2**53 - 1
"""Beyond the age of any group; the largest integer that every language reads."""


StartPlace: TypeAlias = Literal["latest_group", "next_group", "next_frame"]
"""Where a subscription starts that names no group: with all of the newest group, with the one after it, or with the
frame after the newest one."""


class SubscriptionChanges(TypedDict, total=False):
    """What an update may change; the fields are those of `Subscribe`."""

    priority: int
    ordered: bool | None
    max_age_ms: int
    start_group: int | None
    end_group: int | None
    start_frame: int
    end_frame: int | None
    forward: bool
    delivery_timeout_ms: int


def _range_problem(wanted: Subscribe | SubscribeUpdate) -> str | None:
    """Return what is wrong with a range of groups and frames, or None when nothing is."""
    start, end = wanted.start_group or 0, wanted.end_group
    if end is None:
        return None
    if end < start:
        return f"a range that ends at group {end}, before group {start} where it starts"
    if end == start and wanted.end_frame is not None and wanted.end_frame < wanted.start_frame:
        return f"a range that ends at frame {wanted.end_frame}, before frame {wanted.start_frame} where it starts"
    return None


class SubscribeResponder(Responder):
    """The peer subscribes to a track of ours.

    Events: `SubscribeRequested` once, `SubscribeUpdate` for each update, `RequestCancelled`.
    The methods return b"" once the peer has cancelled: the peer reads no more.

    Attributes:
        request: What the peer asked for, as it wrote it; None until it arrived.
        accepted: True once `accept` was called. A subscription may end without.
        start: Where delivery starts when the request names no group: `"latest"` with the newest group, `"object"`
            behind the newest frame, a number so many groups before the next one.
        info: The track's properties, to be set before `accept` where SUBSCRIBE_OK carries them.
    """

    _error_code: ClassVar[int] = StreamCode.MALFORMED_TRACK

    _first = Expect.SUBSCRIBE

    request: Subscribe | None = None
    accepted = False
    start: Literal["latest", "object"] | int = "latest"
    info: TrackInfo | None = None
    _range: tuple[int | None, int | None] = (None, None)

    def accept(
        self, start_group: int | None, latest_group: int | None = None, newest: tuple[int, int] | None = None
    ) -> bytes:
        """Return SUBSCRIBE_OK (before moq-lite: INFO); to be called once.

        Where `Quirks.accept_before_groups` is set, groups follow it about a round trip later.

        Args:
            start_group: The first group that will come. From moq-lite-05 on it has to be known; before that None
                leaves it open.
            latest_group: The newest group that there is, for the versions that carry it; None stands for `start_group`.
            newest: The newest frame, as its group and its index; only moq-transport carries it.

        Raises:
            LocalProtocolError: There is no request yet, it was accepted or ended before, or the version wants a group.
        """
        request = self.request
        if request is None or self._state is not RequestState.PENDING:
            self._request()
            if self._over:
                return b""
            raise LocalProtocolError("the subscription was answered before")
        features = self._session.dialect.features
        if start_group is None and features.subscribe_ok_needs_group:
            raise LocalProtocolError(f"SUBSCRIBE_OK of {self._session.dialect.name} names the first group")
        if features.subscribe_ok_needs_group:
            ok = SubscribeOk(start_group)
        else:
            # The older layouts carry the publisher's preferences: the subscriber's own priority, as every peer says.
            ok = SubscribeOk(start_group, request.priority, latest_group=latest_group)
        data = self._session.dialect.encode(ok)
        self.accepted = True
        self._state = RequestState.ACCEPTED
        return data

    def end(self, group: int) -> bytes:
        """Return SUBSCRIBE_END, or b"" where the version has none; FIN follows once all groups were sent.

        Args:
            group: The first sequence that will never come; 0 when no group ever did.

        Raises:
            LocalProtocolError: There is no request yet, or it was ended before.
        """
        self._request()
        if self._over:
            return b""
        if self._state is RequestState.ENDED:
            raise LocalProtocolError("the subscription was ended before")
        # No number follows that of the last group that there can be: there the FIN alone is the end.
        carried = self._session.dialect.features.subscribe_end and group <= varint.MAX
        data = self._session.dialect.encode(SubscribeEnd(group)) if carried else b""
        self._state = RequestState.ENDED
        return data

    def resumed(self, newest: tuple[int, int] | None) -> None:
        """Called when an update has ended a pause, with the place of the newest frame: no version here says so."""

    def answer_updates(self) -> bytes:
        """Return the answers to updates: none, in these versions."""
        return b""

    def drop(self, first: int, last: int, code: int = 0) -> bytes:
        """Return SUBSCRIBE_DROP (before moq-lite: SUBSCRIBE_GAP) for the groups `first` to `last`, inclusive.

        Returns b"" where the version lacks it.

        Raises:
            LocalProtocolError: The subscription is not accepted, or `last` is before `first`.
        """
        self._request()
        if self._over:
            return b""
        if not self.accepted:
            raise LocalProtocolError("SUBSCRIBE_DROP comes after SUBSCRIBE_OK")
        if not self._session.dialect.features.subscribe_drop:
            return b""
        dialect = self._session.dialect
        return dialect.encode(SubscribeDrop(first, last, dialect.codes.to_wire("group", code)))

    def finish(self) -> None:
        """Record that this side finished the stream: the peer's FIN or reset is no cancellation any more."""
        self._state = RequestState.FINISHED

    def _request(self) -> Subscribe:
        if self.request is None:
            raise LocalProtocolError("there is no subscription to answer yet")
        return self.request

    def _on_message(self, message: Message, events: list[Event]) -> None:
        if not isinstance(message, Subscribe):
            assert isinstance(message, SubscribeUpdate)
            if self._session.dialect.features.update_keeps_range:
                message = self._with_range_kept(message)
            self._check(message)
            events.append(message)
            return
        if message.end_group is not None:
            self._check(message)
        session = self._session
        path = path_untrusted(message.broadcast, session.limits)
        session.peers.admit_untrusted(message.subscribe_id)
        self.request = message
        self._range = message.start_group, message.end_group
        self._state = RequestState.PENDING
        self._expect = Expect.SUBSCRIBE_UPDATE
        events.append(SubscribeRequested(path, message))

    def _with_range_kept(self, update: SubscribeUpdate) -> SubscribeUpdate:
        """Return an update, with the current bounds where it names none."""
        start, end = self._range
        start = start if update.start_group is None else update.start_group
        end = end if update.end_group is None else update.end_group
        self._range = start, end
        return attrs.evolve(update, start_group=start, end_group=end)

    def _check(self, wanted: Subscribe | SubscribeUpdate) -> None:
        problem = _range_problem(wanted)
        if problem is not None:
            raise self._broken(problem)

    def _on_release(self) -> None:
        if self.request is not None:
            self._session.peers.release(self.request.subscribe_id)


class SubscribeRequester(MessageMachine):
    """We subscribe to a track of the peer's.

    A subscription starts at its first group, and without one at the latest group. Where the version would start it as
    far back as its `max_age` says, the request has an age of its own for that, and an update that goes with it has the
    wanted one.

    Its id is registered when this object is made: groups may arrive before the answer. Late groups of a released
    subscription are refused without harm.

    Events: `SubscribeOk`, `SubscribeDrop`, `SubscribeEnd`, then `RequestFinished` (FIN) or `RequestRefused`.

    Attributes:
        subscribe_id: The number that its groups carry.
    """

    _error_code: ClassVar[int] = StreamCode.MALFORMED_TRACK

    def __init__(self, session: SessionState, path: BroadcastPath, track: str, wanted: SubscribeUpdate) -> None:
        dialect, features = session.dialect, session.dialect.features
        super().__init__(session, Expect.SUBSCRIBE_REPLY if features.subscribe_typed else Expect.SUBSCRIBE_FIRST_REPLY)
        problem = _range_problem(wanted) or self._lacking(wanted)
        if problem is not None:
            raise LocalProtocolError(problem)
        request = Subscribe(
            session.issued.next_id,
            format_requested(path, track, dialect, session.limits),
            track,
            wanted.priority,
            wanted.ordered,
            wanted.max_age_ms,
            wanted.start_group,
            wanted.end_group,
            wanted.start_frame,
            wanted.end_frame,
        )
        self.opening = dialect.stream_type(StreamKind.SUBSCRIBE)
        if features.frame_ranges:
            # The age in the request says how far back delivery starts, and a later one what is dropped on its way.
            start_age_ms = 0 if wanted.start_group is None else _ANY_AGE_MS
            self.opening += dialect.encode(attrs.evolve(request, max_age_ms=start_age_ms)) + dialect.encode(wanted)
        else:
            self.opening += dialect.encode(request)
        # The id counts as used from here on: a request that can't be written takes none.
        self.subscribe_id = session.issued.register()
        self._current = wanted
        self._state = RequestState.PENDING
        self._accepted = False

    def update(self, **changes: Unpack[SubscriptionChanges]) -> bytes:
        """Return SUBSCRIBE_UPDATE. What is not named keeps its value.

        Returns b"" once the publisher has finished or refused: the peer reads no more.

        Raises:
            LocalProtocolError: A value is out of range, or the version cannot carry it.
        """
        changed = attrs.evolve(self._current, **changes)
        problem = _range_problem(changed) or self._lacking(changed) or self._lifted(changed)
        if problem is not None:
            raise LocalProtocolError(problem)
        data = self._session.dialect.encode(changed)
        if self._closed:
            return b""
        self._current = changed
        return data

    def take_update(self) -> bytes:
        """Return the update that has been waiting for the answer of an earlier one: none, as none has an answer."""
        return b""

    def _lacking(self, wanted: SubscribeUpdate) -> str | None:
        """Return what is wanted that these versions have no field for."""
        if not wanted.forward:
            return f"{self._session.dialect.name} has no subscriptions that pause"
        if wanted.delivery_timeout_ms:
            return f"{self._session.dialect.name} has no delivery timeouts"
        return None

    def _lifted(self, changed: SubscribeUpdate) -> str | None:
        """Return what is wrong with an update that lifts a bound where the version can only move it."""
        if not self._session.dialect.features.update_keeps_range:
            return None
        before, after = self._current, changed
        for old, new in ((before.start_group, after.start_group), (before.end_group, after.end_group)):
            if old is not None and new is None:
                return f"{self._session.dialect.name} can move the bound of a range at group {old}, but not lift it"
        return None

    def _on_message(self, message: Message, events: list[Event]) -> None:
        match message:
            case SubscribeOk():
                features = self._session.dialect.features
                if self._accepted and features.subscribe_typed and not features.subscribe_ok_needs_group:
                    # There a publisher may repeat it, with changed values.
                    return
                if self._state is not RequestState.PENDING:
                    raise self._broken("SUBSCRIBE_OK after the answer")
                self._accepted = True
                self._state = RequestState.ACCEPTED
                if not features.subscribe_typed:
                    self._expect = Expect.SUBSCRIBE_REPLY if features.subscribe_drop else None
                events.append(message)
            case SubscribeEnd():
                # A track that ends before its first group has an END and no OK.
                if self._state is RequestState.ENDED:
                    raise self._broken("SUBSCRIBE_END twice")
                self._state = RequestState.ENDED
                events.append(message)
            case SubscribeDrop():
                if not self._accepted:
                    raise self._broken("SUBSCRIBE_DROP before SUBSCRIBE_OK")
                code = self._session.dialect.codes.from_wire("group", message.code)
                events.append(message if code == message.code else attrs.evolve(message, code=code))
            case _:
                raise self._broken(f"{type(message).__name__} as a reply")

    def _on_fin(self, events: list[Event]) -> None:
        events.append(RequestFinished())

    def _on_reset(self, code: int) -> list[Event]:
        return [RequestRefused(code)]

    def _on_stop(self, code: int) -> list[Event]:
        # Before the answer it is a refusal; later it only means that no update will be read.
        if self._state is not RequestState.PENDING:
            return []
        self._closed = True
        return [RequestRefused(code)]

    def _on_release(self) -> None:
        self._session.issued.release(self.subscribe_id)
