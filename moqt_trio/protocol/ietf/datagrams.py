"""Objects that travel as datagrams: each says its track by the alias, its group and its id.

A datagram whose alias no message has named is dropped: it would have to be kept, and may get lost anyway.

Spec: draft-ietf-moq-transport-18, section 10.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ...errors import LimitExceeded, Malformed
from ...wire.ietf.objects import ObjectDatagram, Status, datagram_flags, read_datagram, write_datagram
from ..events import DatagramReceived

if TYPE_CHECKING:
    from typing import Literal

    from ...frame import Frame
    from ...wire.ietf.profile import Profile
    from ..group import Subgroup
    from .state import IetfState

_MOST_URGENT: Final = 255
_MAX_NUMBER: Final = (1 << 62) - 1
_ENDS: Final[dict[Status | None, Literal["group", "track"]]] = {
    Status.END_OF_GROUP: "group",
    Status.END_OF_TRACK: "track",
}


def encode_datagram(profile: Profile, alias: int, sequence: int, frame: Frame, subgroup: Subgroup) -> bytes:
    """Return the datagram of a frame.

    Args:
        profile: The draft.
        alias: The track.
        sequence: The group.
        frame: The frame, with its number and its properties.
        subgroup: Its priority, and whether it ends its group.
    """
    priority = _MOST_URGENT - subgroup.priority
    flags = datagram_flags(frame, ends_group=subgroup.ends_group, priority=priority, status=None)
    return write_datagram(ObjectDatagram(flags, alias, sequence, frame, priority), profile)


def receive_datagram_untrusted(data: bytes, session: IetfState) -> DatagramReceived | None:
    """Return what a datagram carries; None when it is of no use.

    Raises:
        RemoteProtocolError: It is no datagram of the draft; scope `"session"`.
    """
    try:
        datagram = read_datagram(data, session.profile, session.limits)
    except LimitExceeded:
        # More properties than are read here: the peer may have them, but nothing of it is kept.
        return None
    if datagram is None or datagram.status is Status.DOES_NOT_EXIST:
        return None
    subscribe_id = session.aliases.find(datagram.alias)
    number = datagram.frame.object_id or 0
    if subscribe_id is None or subscribe_id not in session.issued or max(datagram.group, number) > _MAX_NUMBER:
        return None
    return DatagramReceived(
        subscribe_id,
        datagram.group,
        datagram.frame,
        None if datagram.priority is None else _MOST_URGENT - datagram.priority,
        datagram.ends_group,
        _ENDS.get(datagram.status),
    )


def park_datagram(data: bytes, session: IetfState) -> bool:
    """Keep a datagram that may be of a subscription whose acceptance is on its way; return False for another one.

    The datagrams of a packet are read before its streams, so one that was sent after the acceptance overtakes it.
    """
    if not session.awaits_alias:
        return False
    try:
        datagram = read_datagram(data, session.profile, session.limits)
    except (LimitExceeded, Malformed):
        return False
    if datagram is None or session.aliases.find(datagram.alias) is not None:
        return False
    return session.aliases.park_datagram(datagram.alias, data)
