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
from ...wire.ietf.messages import RequestError, RequestOk, RequestUpdate
from ...wire.ietf.parameters import NONE, Parameters
from .machine import MAX_UPDATES, NOT_SUPPORTED, TOO_MANY_UPDATES

if TYPE_CHECKING:
    from ...wire.ietf.names import Location
    from .state import IetfState


class SentUpdates:
    """The updates of one subscription of this side.

    Args:
        session: What the machines of the session share.
        current: What the peer was asked for so far, with each parameter that may change.
    """

    def __init__(self, session: IetfState, current: Parameters) -> None:
        self._session = session
        self._sent = self._wanted = current
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
        self.unanswered -= 1
        return self._write()

    def _write(self) -> bytes:
        changed = difference(self._sent, self._wanted)
        if changed == NONE or self.unanswered >= (self._session.peer_max_updates or MAX_UPDATES):
            return b""
        # Encoded with the largest id first: what cannot be said takes none.
        session = self._session
        data = session.codec.encode(RequestUpdate(session.next_request_id(), None, changed))
        self._sent = self._wanted
        self.unanswered += 1
        return data


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

    resumes: bool
    largest: Location | None = None


class ReceivedUpdates:
    """The peer's updates of one subscription."""

    def __init__(self, session: IetfState) -> None:
        self._session = session
        self._answers: deque[_Answer] = deque()
        self.refused = False

    def add_untrusted(self, *, resumes: bool) -> None:
        """Record an update.

        Raises:
            RemoteProtocolError: Too many wait for their answers; it ends the session.
        """
        self._answers.append(_Answer(resumes))
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
        answers = [
            RequestOk(None, Parameters(largest=answer.largest) if answer.largest else NONE) for answer in self._answers
        ]
        self._answers.clear()
        parts = [self._session.codec.encode(answer) for answer in answers]
        if self.refused and parts:
            self.refused = False
            parts[-1] = self._session.codec.encode(RequestError(None, NOT_SUPPORTED, "this is not supported"))
        return b"".join(parts)
