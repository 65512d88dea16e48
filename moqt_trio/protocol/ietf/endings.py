"""VirtualRequest, and how requests are ended up to draft 16: by messages, as no stream can be reset.

Spec: draft-ietf-moq-transport-14 to -16, section 9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from ...codes import StreamCode
from ...wire.ietf import messages as ietf
from .machine import ANSWERS, number_in, request_code

if TYPE_CHECKING:
    from ...wire.messages import Message
    from .state import IetfState

ENDS: Final[dict[type[Message], tuple[tuple[type[Message], bool], ...]]] = {
    ietf.Unsubscribe: ((ietf.Subscribe, False), (ietf.Publish, True)),
    ietf.FetchCancel: ((ietf.Fetch, False),),
    ietf.PublishNamespaceDone: ((ietf.PublishNamespace, False),),
    ietf.PublishNamespaceCancel: ((ietf.PublishNamespace, True),),
    ietf.UnsubscribeNamespace: ((ietf.SubscribeNamespace, False),),
}
"""What a message of the peer's may end: the message that made the request, and whether that was ours."""

_STATUSES: Final[dict[int, int]] = {
    StreamCode.GOING_AWAY: 0x4,
    StreamCode.TOO_FAR_BEHIND: 0x6,
}
"""The statuses of PUBLISH_DONE; 0 is a failure."""
_STREAMS_UNKNOWN: Final = (1 << 62) - 1


@attrs.define(eq=False)
class VirtualRequest:
    """A request that is open.

    Attributes:
        request_id: Its id.
        kind: The message that made it.
        ours: True when this side made it.
        name: The namespace or prefix in it, by which draft 14 and 15 may end it; None for other requests.
        answered: True once an acceptance or a refusal was written, or read.
        finished: True once this side has nothing more to say about it.
        updates: The ids of this side's updates of it that were not answered.
    """

    request_id: int
    kind: type[Message]
    ours: bool
    name: tuple[bytes, ...] | None = None
    answered: bool = False
    finished: bool = False
    updates: list[int] = attrs.Factory(list)


def ending(request: VirtualRequest, code: int, session: IetfState) -> Message | None:
    """Return the message by which this side ends a request; None where the draft has none, or peers do not bear it.

    Args:
        request: The request.
        code: Why, as a stream code of this library.
        session: The session.
    """
    if request.ours:
        return _own_ending(request, session)
    number = number_in(session.profile, request_code(code))
    if not request.answered:
        return ietf.RequestError(request.request_id, number, answered=ANSWERS[request.kind])
    if request.kind is ietf.Subscribe:
        streams = session.streams_opened.get(request.request_id, 0)
        return ietf.PublishDone(request.request_id, _STATUSES.get(code, 0), streams)
    if request.kind is ietf.Publish:
        return ietf.Unsubscribe(request.request_id)
    if request.kind is ietf.PublishNamespace:
        return ietf.PublishNamespaceCancel(request.request_id, request.name, number)
    return None


def _own_ending(request: VirtualRequest, session: IetfState) -> Message | None:
    if request.kind is ietf.Subscribe:
        return ietf.Unsubscribe(request.request_id)
    if request.kind is ietf.Fetch:
        return ietf.FetchCancel(request.request_id)
    if request.kind is ietf.PublishNamespace:
        return ietf.PublishNamespaceDone(request.request_id, request.name)
    if request.kind is ietf.Publish:
        streams = session.streams_opened.get(request.request_id, _STREAMS_UNKNOWN)
        return ietf.PublishDone(request.request_id, 0, streams)
    if request.kind is ietf.SubscribeNamespace and not session.profile.fixed_fields:
        # In draft 14 it names a prefix, where moq-rs (wheel 0.5.1) reads an id, and closes the session.
        return ietf.UnsubscribeNamespace(request.request_id)
    return None
