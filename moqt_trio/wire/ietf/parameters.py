"""Parameters of control messages: what they are, how their values are written, and which message may carry them.

| draft | block | unknown type | known type, wrong message |
|---|---|---|---|
| 14, 15 | `i count, count × pair`, types absolute | kept | kept, without meaning |
| 16 | `i count, count × pair`, types as differences | ends the session | kept, without meaning |
| from 17 on | `i count, count × (i type difference, value)` | ends the session | ends the session |

Where a value has a kind of its own, nothing says how long it is: so a parameter that is not known cannot be skipped.

Spec: draft-ietf-moq-transport-18, section 9.3.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import attrs

from ...codes import SessionCode
from ...errors import LimitExceeded, LocalProtocolError, Malformed
from .filters import Filter, read_filter, write_filter
from .names import Location, Namespace, read_location, read_namespace, write_location, write_namespace
from .numbers import MAX
from .properties import MAX_VALUE, Pairs
from .tokens import Token, read_token, write_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...limits import Limits
    from ..buffer import Reader, Writer
    from .profile import Profile


@attrs.frozen(kw_only=True)
class Parameters:
    """The parameters of one message; None or empty for those that it does not have.

    Draft 14's fields of the same meaning are here, too. Milliseconds are `*_ms`.

    Attributes:
        delivery_timeout_ms: DELIVERY_TIMEOUT, from 18 on OBJECT_DELIVERY_TIMEOUT: how old an object may get.
        tokens: AUTHORIZATION_TOKEN, in order.
        max_cache_ms: MAX_CACHE_DURATION (14, 15).
        rendezvous_ms: RENDEZVOUS_TIMEOUT: how long a subscription waits for its publisher (from 17 on).
        subgroup_timeout_ms: SUBGROUP_DELIVERY_TIMEOUT (from 18 on).
        expires_ms: EXPIRES: when the sender ends the request; 0 for never.
        largest: LARGEST_OBJECT; None when nothing was published.
        fill_timeout_ms: FILL_TIMEOUT: how long a fetch waits for objects that are missing (from 18 on).
        publisher_priority: PUBLISHER_PRIORITY (15), 0 first … 255.
        forward: FORWARD: whether objects are sent.
        priority: SUBSCRIBER_PRIORITY, 0 first … 255.
        filter: SUBSCRIPTION_FILTER or LOCATION_FILTER; `()` for one that lets everything pass.
        ordered: GROUP_ORDER: True for ascending, False for descending.
        fill: FILL_PARAMETERS: what of the past is sent on a stream of its own (from 20 on).
        range_filters: The filters 0x25 to 0x29 as `(type, value)`, undecoded (from 19 on).
        dynamic_groups: DYNAMIC_GROUPS (15).
        new_group: NEW_GROUP_REQUEST: the largest group that is known, plus one.
        prefix: TRACK_NAMESPACE_PREFIX (from 18 on).
        include_properties: INCLUDE_PROPERTIES (from 20 on).
        hop_path, route_cost: Private parameters of moq-rs.
        hidden: HIDDEN: 1 asks for hidden namespaces, too (draft-lcurley-moq-hidden-00).
        unknown: Parameters of other types, up to draft 15.
    """

    delivery_timeout_ms: int | None = None
    tokens: tuple[Token, ...] = ()
    max_cache_ms: int | None = None
    rendezvous_ms: int | None = None
    subgroup_timeout_ms: int | None = None
    expires_ms: int | None = None
    largest: Location | None = None
    fill_timeout_ms: int | None = None
    publisher_priority: int | None = None
    forward: bool | None = None
    priority: int | None = None
    filter: Filter | tuple[()] | None = None
    ordered: bool | None = None
    fill: Parameters | None = None
    range_filters: tuple[tuple[int, bytes], ...] = ()
    dynamic_groups: int | None = None
    new_group: int | None = None
    prefix: Namespace | None = None
    include_properties: bool | None = None
    hop_path: bytes | None = None
    route_cost: int | None = None
    hidden: int | None = None
    unknown: Pairs = ()


NONE: Final = Parameters()
"""No parameters."""


class _Kind(enum.Enum):
    """How a value is written from draft 17 on."""

    BYTE = "byte"
    NUMBER = "number"
    LOCATION = "location"
    BYTES = "bytes"
    NAMESPACE = "namespace"
    FILTER = "filter"


class _Entry(NamedTuple):
    number: int
    field: str
    kind: _Kind
    first: int = 14
    last: int = 22


_RANGES: Final = range(0x25, 0x2A)
_ORDERS: Final = (None, True, False)

_ENTRIES: Final = (
    _Entry(0x02, "delivery_timeout_ms", _Kind.NUMBER),
    _Entry(0x03, "tokens", _Kind.BYTES),
    _Entry(0x04, "max_cache_ms", _Kind.NUMBER, last=15),
    _Entry(0x04, "rendezvous_ms", _Kind.NUMBER, first=17),
    _Entry(0x06, "subgroup_timeout_ms", _Kind.NUMBER, first=18),
    _Entry(0x08, "expires_ms", _Kind.NUMBER, first=15),
    _Entry(0x09, "largest", _Kind.LOCATION, first=15),
    _Entry(0x0A, "fill_timeout_ms", _Kind.NUMBER, first=18),
    _Entry(0x0E, "publisher_priority", _Kind.BYTE, first=15, last=15),
    _Entry(0x10, "forward", _Kind.BYTE, first=15),
    _Entry(0x20, "priority", _Kind.BYTE, first=15),
    _Entry(0x21, "filter", _Kind.FILTER, first=15),
    _Entry(0x22, "ordered", _Kind.BYTE, first=15),
    _Entry(0x23, "fill", _Kind.BYTES, first=20),
    *(_Entry(number, "range_filters", _Kind.BYTES, first=19) for number in _RANGES),
    _Entry(0x30, "dynamic_groups", _Kind.NUMBER, first=15, last=15),
    _Entry(0x32, "new_group", _Kind.NUMBER, first=15),
    _Entry(0x34, "prefix", _Kind.NAMESPACE, first=18),
    _Entry(0x35, "include_properties", _Kind.BYTE, first=20),
    _Entry(0x40B57, "hop_path", _Kind.BYTES),
    _Entry(0x40B58, "route_cost", _Kind.NUMBER),
    _Entry(0x40B5E, "hidden", _Kind.NUMBER),
)

_BY_DRAFT: Final = {
    draft: {entry.number: entry for entry in _ENTRIES if entry.first <= draft <= entry.last} for draft in range(14, 23)
}
_ANYWHERE: Final = frozenset({0x40B57, 0x40B58, 0x40B5E})
_FILL: Final = frozenset({0x0A, 0x20, 0x21, 0x22, *_RANGES[:-1]})
_FLAGS: Final = frozenset({"forward", "include_properties"})


# -- reading ---------------------------------------------------------------------------------------------------


def read_parameters(reader: Reader, profile: Profile, limits: Limits, allowed: frozenset[int]) -> Parameters:
    """Read a block of parameters.

    Args:
        reader: The message.
        profile: The draft.
        limits: The bounds.
        allowed: The types that the message may carry.

    Limits: max_parameters.
    """
    count = reader.count("max_parameters", limits.max_parameters)
    if not count:
        return NONE
    known = _BY_DRAFT[profile.draft]
    values: dict[str, Any] = {}
    unknown: list[tuple[int, int | bytes]] = []
    kind = 0
    for _ in range(count):
        number = reader.varint()
        kind = kind + number if profile.delta_types else number
        entry = known.get(kind)
        if entry is None:
            if kind > MAX or profile.refuses_unknown_parameters:
                raise reader.malformed(f"a parameter of unknown type {kind:#x}")
            unknown.append((kind, reader.data("max_message", MAX_VALUE) if kind % 2 else reader.varint()))
            continue
        if profile.refuses_misplaced_parameters and kind not in allowed and kind not in _ANYWHERE:
            raise reader.malformed(f"a parameter of type {kind:#x}, which it may not carry")
        value = _read_value(reader, entry, profile, limits)
        if entry.field == "tokens":
            values["tokens"] = (*values.get("tokens", ()), value)
        elif entry.field == "range_filters":
            values["range_filters"] = (*values.get("range_filters", ()), (kind, value))
        elif entry.field in values:
            raise reader.malformed(f"two parameters of type {kind:#x}")
        else:
            values[entry.field] = value
    return Parameters(**values, unknown=tuple(unknown))


def _read_value(reader: Reader, entry: _Entry, profile: Profile, limits: Limits) -> Any:
    pairs = profile.parameter_values == "pairs"
    match entry.kind:
        case _Kind.NUMBER:
            number = reader.varint()
            if not number and entry.field == "delivery_timeout_ms" and profile.draft == 16:
                raise reader.malformed("a delivery timeout of 0")
            return number
        case _Kind.BYTE:
            return _checked(reader, entry, reader.varint() if pairs else reader.u8())
        case _Kind.LOCATION:
            return (
                _inner(reader, entry, profile, lambda inner: read_location(inner)) if pairs else read_location(reader)
            )
        case _Kind.FILTER if not pairs and profile.filter_form == "typed":
            return read_filter(reader, profile) or ()
        case _Kind.FILTER:
            return _inner(reader, entry, profile, lambda inner: read_filter(inner, profile)) or ()
        case _Kind.NAMESPACE:
            return _read_prefix(reader, profile)
    if entry.field == "tokens":
        return _inner(reader, entry, profile, read_token, SessionCode.KEY_VALUE_FORMATTING_ERROR)
    if entry.field == "fill":
        return _inner(reader, entry, profile, lambda inner: read_parameters(inner, profile, limits, _FILL))
    return reader.data("max_message", MAX_VALUE)


def _inner(
    reader: Reader, entry: _Entry, profile: Profile, read: Callable[[Reader], Any], code: int | None = None
) -> Any:
    """Read a value that has its length in front; a mistake in it has a code of its own, or that of the message."""
    what = f"{reader.what} parameter {entry.number:#x}"
    content = reader.data("max_message", MAX_VALUE)
    inner = profile.reader(content, what, reader.scope, reader.code if code is None else code)
    value = read(inner)
    inner.expect_end()
    return value


def _checked(reader: Reader, entry: _Entry, value: int) -> Any:
    if entry.field in _FLAGS:
        if value > 1:
            raise reader.malformed(f"{value} where 0 or 1 is due")
        return value == 1
    if entry.field == "ordered":
        if not 1 <= value <= 2:
            raise reader.malformed(f"a group order of {value}")
        return _ORDERS[value]
    if value > 0xFF:
        raise reader.malformed(f"a priority of {value}")
    return value


def _read_prefix(reader: Reader, profile: Profile) -> Namespace:
    """Read TRACK_NAMESPACE_PREFIX, which is last. aiomoqt 0.13 writes its length in front of it on 18 and 20."""
    rest = reader.rest()
    for prefixed in (False, True):
        inner = profile.reader(rest, reader.what, reader.scope, reader.code)
        try:
            if prefixed and inner.varint() != inner.remaining:
                continue
            prefix = read_namespace(inner, profile)
            inner.expect_end()
        except (Malformed, LimitExceeded):
            continue
        return prefix
    raise reader.malformed("a namespace prefix that does not decode")


# -- writing ---------------------------------------------------------------------------------------------------


def write_parameters(writer: Writer, parameters: Parameters, profile: Profile, allowed: frozenset[int]) -> None:
    """Write a block of parameters.

    Raises:
        LocalProtocolError: The draft lacks one of them, or the message may not carry it.
    """
    if parameters is NONE:
        writer.varint(0)
        return
    known = {entry.field for entry in _BY_DRAFT[profile.draft].values()}
    for field in attrs.fields(Parameters):
        if field.name != "unknown" and field.name not in known and getattr(parameters, field.name) not in (None, ()):
            raise LocalProtocolError(f"draft {profile.draft} has no parameter {field.name}")
    items = [*_items(parameters, profile), *((number, None, value) for number, value in parameters.unknown)]
    writer.varint(len(items))
    before = 0
    for number, entry, value in items:
        if entry is not None and profile.refuses_misplaced_parameters and number not in allowed | _ANYWHERE:
            raise LocalProtocolError(f"draft {profile.draft} has no parameter {entry.field} in this message")
        writer.varint(number - before if profile.delta_types else number)
        before = number
        if entry is not None:
            _write_value(writer, entry, value, profile)
        elif isinstance(value, bytes):
            writer.data(value)
        else:
            writer.varint(value)


def _items(parameters: Parameters, profile: Profile) -> list[tuple[int, _Entry | None, Any]]:
    """Return the parameters that are there, in the order of their types."""
    items: list[tuple[int, _Entry | None, Any]] = []
    for number, entry in _BY_DRAFT[profile.draft].items():
        value = getattr(parameters, entry.field)
        if entry.field == "tokens":
            items += [(number, entry, token) for token in value]
        elif entry.field == "range_filters":
            items += [(number, entry, content) for kind, content in value if kind == number]
        elif value is not None:
            items.append((number, entry, value))
    return items


def _write_value(writer: Writer, entry: _Entry, value: Any, profile: Profile) -> None:
    pairs = profile.parameter_values == "pairs"
    if entry.kind is _Kind.NUMBER:
        writer.varint(value)
    elif entry.kind is _Kind.BYTE:
        number = (1 if value else 2) if entry.field == "ordered" else int(value)
        if number > 0xFF:
            raise LocalProtocolError(f"a priority is 0 to 255, not {number}")
        (writer.varint if pairs else writer.u8)(number)
    elif entry.kind is _Kind.NAMESPACE:
        write_namespace(writer, value, profile)
    else:
        inner = profile.writer()
        bare = not pairs and (
            entry.kind is _Kind.LOCATION or (entry.kind is _Kind.FILTER and profile.filter_form == "typed")
        )
        if entry.kind is _Kind.LOCATION:
            write_location(inner, value)
        elif entry.kind is _Kind.FILTER:
            write_filter(inner, value or None, profile)
        elif entry.field == "tokens":
            write_token(inner, value)
        elif entry.field == "fill":
            write_parameters(inner, value, profile, _FILL)
        else:
            inner.raw(value)
        (writer.raw if bare else writer.data)(inner.getvalue())
