"""The bodies of draft 14 that have fields of their own: priority, order, forward and filter are no parameters there.

A refusal and an acceptance of each request have a message of their own, too.

Spec: draft-ietf-moq-transport-14, section 9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from ...errors import LocalProtocolError
from .control import layouts
from .fetch import read_end, read_range, write_end, write_range
from .filters import Filter, read_filter, write_filter
from .messages import (
    Answered,
    Fetch,
    FetchOk,
    Publish,
    PublishOk,
    RequestError,
    RequestOk,
    RequestUpdate,
    Subscribe,
    SubscribeOk,
    TrackStatus,
    TrackStatusOk,
)
from .names import Location, read_location, read_reason, read_track, write_location, write_reason, write_track
from .parameters import Parameters, read_parameters, write_parameters
from .parts import Layout

if TYPE_CHECKING:
    from ...limits import Limits
    from ..buffer import Reader, Writer
    from .profile import Profile

_ORDERS: Final = (None, True, False)
_NOWHERE: Final[frozenset[int]] = frozenset()
_WITHOUT_FIELDS: Final[dict[str, Any]] = dict.fromkeys(
    ("priority", "ordered", "forward", "filter", "expires_ms", "largest")
)


def _read_order(reader: Reader) -> bool | None:
    """Read the order that a subscriber asks for; 0 for the publisher's."""
    number = reader.u8()
    if number >= len(_ORDERS):
        raise reader.malformed(f"a group order of {number}")
    return _ORDERS[number]


def _read_chosen_order(reader: Reader) -> bool:
    """Read the order that a publisher has, which is one of the two."""
    ordered = _read_order(reader)
    if ordered is None:
        raise reader.malformed("a group order of 0 where the publisher's is due")
    return ordered


def _write_order(writer: Writer, ordered: bool | None) -> None:
    writer.u8(_ORDERS.index(ordered))


def _read_rest(reader: Reader, profile: Profile, limits: Limits, **fields: Any) -> Parameters:
    """Read `Params`, and return them with the fields that were read."""
    return attrs.evolve(read_parameters(reader, profile, limits, _NOWHERE), **fields)


def _write_rest(writer: Writer, parameters: Parameters, profile: Profile) -> None:
    """Write `Params`, without those that are fields here."""
    write_parameters(writer, attrs.evolve(parameters, **_WITHOUT_FIELDS), profile, _NOWHERE)


def _byte(value: int | None, default: int) -> int:
    return default if value is None else value


# -- SUBSCRIBE, TRACK_STATUS -------------------------------------------------------------------------------------


def _read_wanted(reader: Reader, profile: Profile, limits: Limits) -> Parameters:
    """Read `u8 priority, u8 order, u8 forward, filter, Params`."""
    priority, ordered, forward = reader.u8(), _read_order(reader), reader.flag()
    wanted = read_filter(reader, profile)
    return _read_rest(reader, profile, limits, priority=priority, ordered=ordered, forward=forward, filter=wanted)


def _write_wanted(writer: Writer, parameters: Parameters, profile: Profile) -> None:
    writer.u8(_byte(parameters.priority, 128))
    _write_order(writer, parameters.ordered)
    writer.flag(parameters.forward is not False)
    write_filter(writer, parameters.filter or None, profile)
    _write_rest(writer, parameters, profile)


def _read_subscribe(reader: Reader, profile: Profile, limits: Limits) -> Subscribe:
    """Read `rid, NS, b name, u8 priority, u8 order, u8 forward, filter, Params`."""
    return Subscribe(reader.varint(), read_track(reader, profile), _read_wanted(reader, profile, limits))


def _read_track_status(reader: Reader, profile: Profile, limits: Limits) -> TrackStatus:
    """Read what SUBSCRIBE has."""
    return TrackStatus(reader.varint(), read_track(reader, profile), _read_wanted(reader, profile, limits))


def _write_subscribe(writer: Writer, message: Subscribe | TrackStatus, profile: Profile) -> None:
    writer.varint(message.request_id)
    write_track(writer, message.track, profile)
    _write_wanted(writer, message.parameters, profile)


# -- SUBSCRIBE_OK, TRACK_STATUS_OK -------------------------------------------------------------------------------


def _read_largest(reader: Reader) -> Location | None:
    """Read `u8 content exists, [Loc largest]`."""
    return read_location(reader) if reader.flag() else None


def _write_largest(writer: Writer, largest: Location | None) -> None:
    writer.flag(largest is not None)
    if largest is not None:
        write_location(writer, largest)


def _read_subscribe_ok(reader: Reader, profile: Profile, limits: Limits) -> SubscribeOk:
    """Read `rid, i alias, i expires ms, u8 order, u8 content exists, [Loc largest], Params`."""
    request_id, alias, expires = reader.varint(), reader.varint(), reader.varint()
    ordered, largest = _read_chosen_order(reader), _read_largest(reader)
    return SubscribeOk(
        request_id, alias, _read_rest(reader, profile, limits, expires_ms=expires, ordered=ordered, largest=largest)
    )


def _write_ok(writer: Writer, request_id: int | None, alias: int, parameters: Parameters, profile: Profile) -> None:
    if request_id is None:
        raise LocalProtocolError("a reply of draft 14 has an id")
    writer.varint(request_id)
    writer.varint(alias)
    writer.varint(parameters.expires_ms or 0)
    _write_order(writer, True if parameters.ordered is None else parameters.ordered)
    _write_largest(writer, parameters.largest)
    _write_rest(writer, parameters, profile)


def _write_subscribe_ok(writer: Writer, message: SubscribeOk, profile: Profile) -> None:
    _write_ok(writer, message.request_id, message.alias, message.parameters, profile)


def _read_track_status_ok(reader: Reader, profile: Profile, limits: Limits) -> TrackStatusOk:
    """Read what SUBSCRIBE_OK has; the alias has no meaning."""
    ok = _read_subscribe_ok(reader, profile, limits)
    assert ok.request_id is not None
    return TrackStatusOk(ok.request_id, ok.parameters)


def _write_track_status_ok(writer: Writer, message: TrackStatusOk, profile: Profile) -> None:
    _write_ok(writer, message.request_id, 0, message.parameters, profile)


# -- SUBSCRIBE_UPDATE --------------------------------------------------------------------------------------------


def _read_update(reader: Reader, profile: Profile, limits: Limits) -> RequestUpdate:
    """Read `rid, i subscription's rid, Loc start, i end group + 1 (0 open), u8 priority, u8 forward, Params`."""
    request_id, existing = reader.varint(), reader.varint()
    start, end = read_location(reader), reader.optional()
    if end is not None and end < start.group:
        raise reader.malformed(f"a range that ends at group {end}, before group {start.group}")
    priority, forward = reader.u8(), reader.flag()
    parameters = _read_rest(reader, profile, limits, filter=Filter(start, end), priority=priority, forward=forward)
    return RequestUpdate(request_id, existing, parameters)


def _write_update(writer: Writer, message: RequestUpdate, profile: Profile) -> None:
    parameters = message.parameters
    wanted = parameters.filter or Filter(Location(0, 0))
    if message.existing_id is None or not isinstance(wanted.start, Location) or wanted.end_object is not None:
        raise LocalProtocolError("an update of draft 14 names its subscription, and starts at a location")
    writer.varint(message.request_id)
    writer.varint(message.existing_id)
    write_location(writer, wanted.start)
    writer.optional(wanted.end_group)
    writer.u8(_byte(parameters.priority, 128))
    writer.flag(parameters.forward is not False)
    _write_rest(writer, parameters, profile)


# -- PUBLISH, PUBLISH_OK -----------------------------------------------------------------------------------------


def _read_publish(reader: Reader, profile: Profile, limits: Limits) -> Publish:
    """Read `rid, NS, b name, i alias, u8 order, u8 content exists, [Loc largest], u8 forward, Params`."""
    request_id, track, alias = reader.varint(), read_track(reader, profile), reader.varint()
    ordered, largest, forward = _read_chosen_order(reader), _read_largest(reader), reader.flag()
    parameters = _read_rest(reader, profile, limits, ordered=ordered, largest=largest, forward=forward)
    return Publish(request_id, track, alias, parameters)


def _write_publish(writer: Writer, message: Publish, profile: Profile) -> None:
    parameters = message.parameters
    writer.varint(message.request_id)
    write_track(writer, message.track, profile)
    writer.varint(message.alias)
    _write_order(writer, True if parameters.ordered is None else parameters.ordered)
    _write_largest(writer, parameters.largest)
    writer.flag(parameters.forward is not False)
    _write_rest(writer, parameters, profile)


def _read_publish_ok(reader: Reader, profile: Profile, limits: Limits) -> PublishOk:
    """Read `rid, u8 forward, u8 priority, u8 order, filter, Params`."""
    request_id, forward, priority, ordered = reader.varint(), reader.flag(), reader.u8(), _read_order(reader)
    wanted = read_filter(reader, profile)
    parameters = _read_rest(reader, profile, limits, forward=forward, priority=priority, ordered=ordered, filter=wanted)
    return PublishOk(request_id, parameters)


def _write_publish_ok(writer: Writer, message: PublishOk, profile: Profile) -> None:
    parameters = message.parameters
    if message.request_id is None:
        raise LocalProtocolError("a reply of draft 14 has an id")
    writer.varint(message.request_id)
    writer.flag(parameters.forward is not False)
    writer.u8(_byte(parameters.priority, 128))
    _write_order(writer, parameters.ordered)
    write_filter(writer, parameters.filter or None, profile)
    _write_rest(writer, parameters, profile)


# -- FETCH, FETCH_OK ---------------------------------------------------------------------------------------------


def _read_fetch(reader: Reader, profile: Profile, limits: Limits) -> Fetch:
    """Read `rid, u8 priority, u8 order, range, Params`."""
    request_id, priority, ordered = reader.varint(), reader.u8(), _read_order(reader)
    track, wanted = read_range(reader, profile)
    return Fetch(request_id, track, wanted, _read_rest(reader, profile, limits, priority=priority, ordered=ordered))


def _write_fetch(writer: Writer, message: Fetch, profile: Profile) -> None:
    writer.varint(message.request_id)
    writer.u8(_byte(message.parameters.priority, 128))
    _write_order(writer, message.parameters.ordered)
    write_range(writer, message, profile)
    _write_rest(writer, message.parameters, profile)


def _read_fetch_ok(reader: Reader, profile: Profile, limits: Limits) -> FetchOk:
    """Read `rid, u8 order, u8 end of track, Loc end, Params`."""
    request_id, ordered, end_of_track = reader.varint(), _read_chosen_order(reader), reader.flag()
    end = read_end(reader, profile)
    return FetchOk(request_id, end_of_track, *end, _read_rest(reader, profile, limits, ordered=ordered))


def _write_fetch_ok(writer: Writer, message: FetchOk, profile: Profile) -> None:
    if message.request_id is None:
        raise LocalProtocolError("a reply of draft 14 has an id")
    writer.varint(message.request_id)
    _write_order(writer, True if message.parameters.ordered is None else message.parameters.ordered)
    writer.flag(message.end_of_track)
    write_end(writer, message, profile)
    _write_rest(writer, message.parameters, profile)


# -- acceptances and refusals ------------------------------------------------------------------------------------

ERRORS: Final = {
    0x05: Answered.SUBSCRIBE,
    0x08: Answered.PUBLISH_NAMESPACE,
    0x0F: Answered.TRACK_STATUS,
    0x13: Answered.SUBSCRIBE_NAMESPACE,
    0x19: Answered.FETCH,
    0x1F: Answered.PUBLISH,
}
"""What each type of refusal answers."""
ACCEPTANCES: Final = {0x07: Answered.PUBLISH_NAMESPACE, 0x12: Answered.SUBSCRIBE_NAMESPACE}
"""What each type of plain acceptance answers."""


def _error(number: int, answered: Answered) -> Layout:
    def read(reader: Reader, profile: Profile, limits: Limits) -> RequestError:
        """Read `rid, i code, s reason`."""
        return RequestError(reader.varint(), reader.varint(), read_reason(reader), answered=answered)

    return Layout(number, RequestError, read, _write_error)


def _write_error(writer: Writer, message: RequestError, profile: Profile) -> None:
    if message.request_id is None:
        raise LocalProtocolError("a reply of draft 14 has an id")
    writer.varint(message.request_id)
    writer.varint(message.code)
    write_reason(writer, message.reason)


def _acceptance(number: int, answered: Answered) -> Layout:
    def read(reader: Reader, profile: Profile, limits: Limits) -> RequestOk:
        """Read `rid`."""
        return RequestOk(reader.varint(), answered=answered)

    return Layout(number, RequestOk, read, _write_acceptance)


def _write_acceptance(writer: Writer, message: RequestOk, profile: Profile) -> None:
    if message.request_id is None:
        raise LocalProtocolError("a reply of draft 14 has an id")
    writer.varint(message.request_id)


_OWN: Final = (
    Layout(0x02, RequestUpdate, _read_update, _write_update),
    Layout(0x03, Subscribe, _read_subscribe, _write_subscribe),
    Layout(0x04, SubscribeOk, _read_subscribe_ok, _write_subscribe_ok),
    Layout(0x0D, TrackStatus, _read_track_status, _write_subscribe),
    Layout(0x0E, TrackStatusOk, _read_track_status_ok, _write_track_status_ok),
    Layout(0x16, Fetch, _read_fetch, _write_fetch),
    Layout(0x18, FetchOk, _read_fetch_ok, _write_fetch_ok),
    Layout(0x1D, Publish, _read_publish, _write_publish),
    Layout(0x1E, PublishOk, _read_publish_ok, _write_publish_ok),
    *(_error(number, answered) for number, answered in ERRORS.items()),
    *(_acceptance(number, answered) for number, answered in ACCEPTANCES.items()),
)


def layouts_14(profile: Profile) -> tuple[Layout, ...]:
    """Return the messages of draft 14."""
    own = {layout.number for layout in _OWN}
    return (*(layout for layout in layouts(profile) if layout.number not in own), *_OWN)
