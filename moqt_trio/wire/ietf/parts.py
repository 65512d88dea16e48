"""What the layouts of control messages share: ids, parameters, the properties of tracks.

Spec: draft-ietf-moq-transport-14 to -19, section 9.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from ...errors import LocalProtocolError, Malformed
from .parameters import Parameters, read_parameters, write_parameters
from .properties import Pairs, read_pairs, write_pairs
from .scopes import scope

if TYPE_CHECKING:
    from ...limits import Limits
    from ..buffer import Reader, Writer
    from ..messages import Message
    from .profile import Profile


Read: TypeAlias = "Callable[[Reader, Profile, Limits], Message]"
Write: TypeAlias = "Callable[[Writer, Any, Profile], None]"

_INVALID_REQUIRED: Final = 0x07
"""The code of a session whose peer names an impossible request to wait for (17)."""


class Layout(NamedTuple):
    """How one message travels."""

    number: int
    message: type[Message]
    read: Read
    write: Write


def read_id(reader: Reader, profile: Profile) -> int:
    """Read the id of a new request: `i rid, <i d>`. The difference (17) is for the peer's own order."""
    request_id = reader.varint()
    if profile.required_request and 2 * reader.varint() > request_id:
        raise Malformed(f"{reader.what}: it waits for a request below 0", code=_INVALID_REQUIRED, scope=reader.scope)
    return request_id


def write_id(writer: Writer, request_id: int, profile: Profile) -> None:
    writer.varint(request_id)
    if profile.required_request:
        writer.varint(0)


def read_reply_id(reader: Reader, profile: Profile) -> int | None:
    return reader.varint() if profile.one_control_stream else None


def write_reply_id(writer: Writer, request_id: int | None, profile: Profile) -> None:
    if (request_id is None) == profile.one_control_stream:
        raise LocalProtocolError(f"in draft {profile.draft} a reply has {'an' if request_id is None else 'no'} id")
    if request_id is not None:
        writer.varint(request_id)


def read_params(reader: Reader, profile: Profile, limits: Limits, message: type[Message]) -> Parameters:
    return read_parameters(reader, profile, limits, scope(profile, message))


def write_params(writer: Writer, message: Any, profile: Profile) -> None:
    write_parameters(writer, message.parameters, profile, scope(profile, type(message)))


def read_track_properties(reader: Reader, profile: Profile, limits: Limits, *, since: str = "track") -> Pairs:
    """Read the properties of a track, to the end of the message, where this message has them."""
    if profile.properties == "none" or (since == "ok" and profile.properties != "ok"):
        return ()
    return read_pairs(reader, profile, limits)


def write_track_properties(writer: Writer, properties: Pairs, profile: Profile, *, since: str = "track") -> None:
    if profile.properties == "none" or (since == "ok" and profile.properties != "ok"):
        if properties:
            raise LocalProtocolError(f"draft {profile.draft} has no properties in this message")
        return
    write_pairs(writer, properties, profile)
