"""REQUEST_UPDATE: what this side changes of a subscription, what the peer changes of one, and the answers.

Each update has an answer, in order. Before draft 19 neither side says how many may wait for theirs; this side stops at
`MAX_UPDATES` in each draft, and says so where it can. What changes meanwhile is written with the next answer.

Spec: draft-ietf-moq-transport-18, section 9.11; -19, section 9.4.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import attrs

from ...errors import LocalProtocolError, RemoteProtocolError
from ...wire.ietf.filters import Filter
from ...wire.ietf.messages import RequestError, RequestOk, RequestUpdate
from ...wire.ietf.names import Location
from ...wire.ietf.parameters import NONE, Parameters
from .machine import MAX_UPDATES, NOT_SUPPORTED, TOO_MANY_UPDATES

if TYPE_CHECKING:
    from .state import IetfState


class SentUpdates:
    """The updates of one subscription of this side.

    Args:
        session: What the machines of the session share.
        current: What the peer was asked for so far, with each parameter that may change.

    Attributes:
        existing_id: The subscription's id, up to draft 16; None from 17 on.
        unanswered: How many updates wait for their answers; in draft 14 nothing answers them.
    """

    def __init__(self, session: IetfState, current: Parameters) -> None:
        self._session = session
        self._sent = self._wanted = current
        self.existing_id: int | None = None
        self.unanswered = 0

    def change(self, wanted: Parameters) -> bytes:
        """Return REQUEST_UPDATE with what differs; b"" when nothing does, and while too many wait for their answers.

        Raises:
            LocalProtocolError: The draft cannot say it.
        """
        before, self._wanted = self._wanted, wanted
        try:
            return self._write()
        except LocalProtocolError:
            self._wanted = before
            raise

    def answered(self) -> bytes:
        """Record an answer; return the update that has been waiting for one, or b""."""
        self.unanswered = max(0, self.unanswered - 1)
        return self._write()

    def take_due(self) -> bytes:
        """Return the update that has been waiting for an id, or b""."""
        return self._write()

    def end(self) -> None:
        """Record that the subscription is over: no update is due any more."""
        self._session.updates_due.pop(self, None)

    def _write(self) -> bytes:
        session, profile = self._session, self._session.profile
        changed = difference(self._sent, self._wanted)
        if changed == NONE:
            session.updates_due.pop(self, None)
            return b""
        if not session.own_requests.left:
            # Where an update takes an id, the peer may allow none now.
            session.updates_due[self] = None
            return b""
        # moq-rs (wheel 0.5.1) answers none up to draft 16: there nothing waits for an answer.
        if not profile.one_control_stream and self.unanswered >= (session.peer_max_updates or MAX_UPDATES):
            return b""
        if profile.fixed_fields:
            changed = _whole(self._wanted, changed)
        message = RequestUpdate(0, self.existing_id, changed)
        # What cannot be said takes no id.
        session.codec.encode(message)
        data = session.codec.encode(attrs.evolve(message, request_id=session.next_request_id()))
        self._sent = self._wanted
        session.updates_due.pop(self, None)
        if not profile.fixed_fields:
            self.unanswered = min(self.unanswered + 1, MAX_UPDATES)
        return data


def _whole(wanted: Parameters, changed: Parameters) -> Parameters:
    """Return an update of draft 14, which names everything, and a start by its location: {0, 0} changes none."""
    place = wanted.filter
    if not isinstance(place, Filter) or not isinstance(place.start, Location):
        place = Filter(Location(0, 0))
    return attrs.evolve(changed, priority=wanted.priority, forward=wanted.forward, filter=place)


def difference(before: Parameters, after: Parameters) -> Parameters:
    """Return what changes between two sets of parameters, which differ in values only."""
    changed = {
        field.name: value
        for field in attrs.fields(Parameters)
        if (value := getattr(after, field.name)) != getattr(before, field.name)
    }
    return Parameters(**changed)


@attrs.define
class _Answer:
    """The answer of an update that was not taken yet: whether the update ended a pause, and where it did."""

    request_id: int
    resumes: bool
    largest: Location | None = None


class ReceivedUpdates:
    """The peer's updates of one subscription."""

    def __init__(self, session: IetfState) -> None:
        self._session = session
        self._answers: deque[_Answer] = deque()
        self.refused = False

    def add_untrusted(self, request_id: int, *, resumes: bool) -> None:
        """Record an update, unless nothing answers it (14).

        Raises:
            RemoteProtocolError: Too many wait for their answers; it ends the session.
        """
        if self._session.profile.fixed_fields:
            return
        self._answers.append(_Answer(request_id, resumes))
        if len(self._answers) > MAX_UPDATES:
            problem = f"more than {MAX_UPDATES} updates whose answers are not taken"
            raise RemoteProtocolError(problem, code=TOO_MANY_UPDATES)

    def resumed(self, largest: Location | None) -> None:
        """Record where the oldest update that ends a pause ended it."""
        answer = next((answer for answer in self._answers if answer.resumes), None)
        if answer is not None:
            answer.resumes, answer.largest = False, largest

    def take(self) -> bytes:
        """Return the answers, each once. The last one refuses, if an update was refused: no further one follows."""
        answers, self._answers = self._answers, deque()
        codec, named = self._session.codec, self._session.profile.one_control_stream
        parts: list[bytes] = []
        for answer in answers:
            request_id = answer.request_id if named else None
            if self.refused and answer is answers[-1]:
                self.refused = False
                parts.append(codec.encode(RequestError(request_id, NOT_SUPPORTED, "this is not supported")))
            else:
                largest = Parameters(largest=answer.largest) if answer.largest else NONE
                parts.append(codec.encode(RequestOk(request_id, largest)))
        return b"".join(parts)
