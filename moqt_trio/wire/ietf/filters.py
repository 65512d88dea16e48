"""Which objects a request wants: the filter of a subscription, and from draft 20 on that of a fetch.

| draft | form |
|---|---|
| 14 to 16 | `i type, [Loc start: 3, 4], [i end group: 4]` |
| 17 to 19 | the same, and the end group is a difference to the start's |
| 20, 21 | `i size`, then 0 to 4 numbers, whose count decides |
| 22 | `i type, …`, with types of its own |

Spec: draft-ietf-moq-transport-18, section 5.1.2.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

import attrs

from ...errors import LocalProtocolError
from .names import Location, read_location, write_location

if TYPE_CHECKING:
    from ..buffer import Reader, Writer
    from .profile import Profile


class Start(enum.Enum):
    """Where a filter starts, when it is no location."""

    NEXT_GROUP = "next group"
    """The first object of the group after the largest one."""
    NEXT_OBJECT = "next object"
    """The object after the largest one: the draft's "Largest Object"."""


@attrs.frozen
class Filter:
    """A range of objects.

    Attributes:
        start: A location, one of `Start`, or a number n of groups back: the first object of the group n - 1 before the
            largest one (from draft 20 on).
        end_group: The last group, inclusive; None for no end. Only after a location.
        end_object: The last object of `end_group`, inclusive; None for all of them (from draft 20 on).
    """

    start: Location | Start | int
    end_group: int | None = None
    end_object: int | None = None


_NEXT_GROUP: Final = 1
_LARGEST: Final = 2
_ABSOLUTE_START: Final = 3
_ABSOLUTE_RANGE: Final = 4


def read_filter(reader: Reader, profile: Profile) -> Filter | None:
    """Read a filter to the end of its bytes; in 14 and 22 there is no length, and it ends by itself.

    None is a filter that lets everything pass (from draft 20 on).
    """
    match profile.filter_form:
        case "counted":
            return _read_counted(reader)
        case "typed":
            return _read_typed(reader)
    kind = reader.varint()
    if kind == _NEXT_GROUP:
        return Filter(Start.NEXT_GROUP)
    if kind == _LARGEST:
        return Filter(Start.NEXT_OBJECT)
    if kind not in (_ABSOLUTE_START, _ABSOLUTE_RANGE):
        raise reader.malformed(f"a filter of type {kind:#x}")
    start = read_location(reader)
    if kind == _ABSOLUTE_START:
        return Filter(start)
    end = reader.varint()
    if profile.filter_form == "delta":
        end += start.group
    if end < start.group:
        raise reader.malformed(f"a filter that ends at group {end}, before group {start.group} where it starts")
    return Filter(start, end)


def write_filter(writer: Writer, wanted: Filter | None, profile: Profile) -> None:
    """Write a filter, without the length that it has in 15 to 21."""
    match profile.filter_form:
        case "counted":
            _write_counted(writer, wanted)
            return
        case "typed":
            _write_typed(writer, wanted)
            return
    if wanted is None or wanted.end_object is not None or isinstance(wanted.start, int):
        raise LocalProtocolError(f"draft {profile.draft} has no such filter: {wanted}")
    if isinstance(wanted.start, Start):
        if wanted.end_group is not None:
            raise LocalProtocolError("a filter with an end starts at a location")
        writer.varint(_NEXT_GROUP if wanted.start is Start.NEXT_GROUP else _LARGEST)
        return
    writer.varint(_ABSOLUTE_START if wanted.end_group is None else _ABSOLUTE_RANGE)
    write_location(writer, wanted.start)
    if wanted.end_group is not None:
        writer.varint(_delta(wanted.start, wanted.end_group) if profile.filter_form == "delta" else wanted.end_group)


def _delta(start: Location, end_group: int) -> int:
    if end_group < start.group:
        raise LocalProtocolError(f"a filter that ends at group {end_group}, before group {start.group}")
    return end_group - start.group


# -- drafts 20 and 21: the count of the fields decides ---------------------------------------------------------


def _read_counted(reader: Reader) -> Filter | None:
    fields: list[int] = []
    while reader.remaining:
        fields.append(reader.varint())
        if len(fields) > 4:
            raise reader.malformed("a filter of more than four fields")
    match fields:
        case []:
            return None
        case [0]:
            return Filter(Start.NEXT_GROUP)
        case [back]:
            return Filter(back)
        case [0, 0]:
            return Filter(Start.NEXT_OBJECT)
        case [group, number]:
            return Filter(Location(group, number))
        case [group, number, delta]:
            return Filter(Location(group, number), group + delta)
        case [group, number, delta, last]:
            return _checked(reader, Filter(Location(group, number), group + delta, last))
    raise AssertionError(fields)


def _checked(reader: Reader, wanted: Filter) -> Filter:
    start = wanted.start
    assert isinstance(start, Location)
    if wanted.end_group == start.group and wanted.end_object is not None and wanted.end_object < start.object:
        raise reader.malformed(f"a filter that ends at object {wanted.end_object}, before it starts")
    return wanted


def _fields(wanted: Filter) -> list[int]:
    """Return the numbers of an absolute range."""
    assert isinstance(wanted.start, Location)
    fields = list(wanted.start)
    if wanted.end_group is not None:
        fields.append(_delta(wanted.start, wanted.end_group))
        if wanted.end_object is not None:
            fields.append(wanted.end_object)
    return fields


def _write_counted(writer: Writer, wanted: Filter | None) -> None:
    if wanted is None:
        return
    match wanted.start:
        case Start.NEXT_GROUP:
            fields = [0]
        case Start.NEXT_OBJECT:
            fields = [0, 0]
        case Location():
            fields = _fields(wanted)
            if fields == [0, 0]:
                raise LocalProtocolError("everything from the first object on is no filter at all: leave it out")
        case back:
            fields = [_positive(back)]
    _check_end(wanted)
    for field in fields:
        writer.varint(field)


def _positive(back: int) -> int:
    if back < 1:
        raise LocalProtocolError(f"a filter starts 1 or more groups back, not {back}; 0 is the next group")
    return back


def _check_end(wanted: Filter) -> None:
    if wanted.end_group is not None and not isinstance(wanted.start, Location):
        raise LocalProtocolError("a filter with an end starts at a location")
    if wanted.end_object is not None and wanted.end_group is None:
        raise LocalProtocolError("a filter with a last object has a last group")


# -- draft 22: typed -------------------------------------------------------------------------------------------


def _read_typed(reader: Reader) -> Filter | None:
    kind = reader.varint()
    match kind:
        case 0:
            return None
        case 1:
            back = reader.varint()
            return Filter(back) if back else Filter(Start.NEXT_GROUP)
        case 5:
            return Filter(Start.NEXT_OBJECT)
        case 2:
            return Filter(read_location(reader))
        case 3 | 4:
            start = read_location(reader)
            end = start.group + reader.varint()
            return _checked(reader, Filter(start, end, reader.varint() if kind == 4 else None))
    raise reader.malformed(f"a filter of type {kind:#x}")


def _write_typed(writer: Writer, wanted: Filter | None) -> None:
    if wanted is None:
        writer.varint(0)
        return
    _check_end(wanted)
    match wanted.start:
        case Start.NEXT_GROUP:
            fields = [1, 0]
        case Start.NEXT_OBJECT:
            fields = [5]
        case Location():
            numbers = _fields(wanted)
            fields = [len(numbers), *numbers]
        case back:
            fields = [1, _positive(back)]
    for field in fields:
        writer.varint(field)
