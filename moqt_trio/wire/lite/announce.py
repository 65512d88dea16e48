"""The announce stream of the moq-lite family: requests, and the forms that the replies have taken.

Each function reads or writes one message's body in the layout that its docstring shows; `versions.py` says which
version uses which. In the layouts `i` is a varint, `u8` a byte, `s` text with its length in front, and `hops` a
count with that many hop ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ...errors import LocalProtocolError
from ..messages import AnnounceEnd, AnnounceOk, AnnounceRequest, AnnounceStart, AnnounceUpdate

if TYPE_CHECKING:
    from ...limits import Limits
    from ..buffer import Reader, Writer

_ENDED: Final = 0
_ACTIVE: Final = 1
_RESTART: Final = 2


def read_request(reader: Reader, limits: Limits) -> AnnounceRequest:
    """Read `s prefix` (moq-lite-03, -06)."""
    return AnnounceRequest(reader.path(limits))


def write_request(writer: Writer, message: AnnounceRequest) -> None:
    """Write `s prefix`."""
    if message.exclude_hop:
        raise LocalProtocolError("this version can't leave out the announcements of a hop")
    writer.text(message.prefix)


def read_request_with_hop(reader: Reader, limits: Limits) -> AnnounceRequest:
    """Read `s prefix, i exclude_hop` (moq-lite-04, -05)."""
    return AnnounceRequest(reader.path(limits), reader.varint())


def write_request_with_hop(writer: Writer, message: AnnounceRequest) -> None:
    """Write `s prefix, i exclude_hop`."""
    writer.text(message.prefix)
    writer.varint(message.exclude_hop)


def read_ok(reader: Reader, limits: Limits) -> AnnounceOk:
    """Read `i hop_id, i active_count` (moq-lite-05, -06)."""
    return AnnounceOk(reader.varint(), reader.varint())


def write_ok(writer: Writer, message: AnnounceOk) -> None:
    """Write `i hop_id, i active_count`."""
    writer.varint(message.hop_id)
    writer.varint(message.active_count)


# -- one message with a status (moq-lite-03 to -05) -----------------------------------------------------------


def read_counted(reader: Reader, limits: Limits) -> AnnounceStart | AnnounceEnd:
    """Read `u8 status, s suffix, i hop_count` (moq-lite-03). The hops are unknown, so each is 0."""
    status, suffix = read_status(reader), reader.path(limits)
    count = reader.varint()
    if count > limits.max_hops:
        raise reader.exceeded("max_hops", count)
    return _with_status(status, suffix, (0,) * count)


def write_counted(writer: Writer, message: AnnounceStart | AnnounceEnd) -> None:
    """Write `u8 status, s suffix, i hop_count`."""
    write_status(writer, message)
    writer.varint(len(message.hops))


def read_listed(reader: Reader, limits: Limits) -> AnnounceStart | AnnounceEnd:
    """Read `u8 status, s suffix, hops` (moq-lite-04)."""
    return _with_status(read_status(reader), reader.path(limits), read_hops(reader, limits))


def read_listed_or_restarted(reader: Reader, limits: Limits) -> AnnounceStart | AnnounceEnd:
    """Read `u8 status, s suffix, hops`, where the status may be "restart" (moq-lite-05)."""
    return _with_status(read_status(reader, _RESTART), reader.path(limits), read_hops(reader, limits))


def write_listed(writer: Writer, message: AnnounceStart | AnnounceEnd) -> None:
    """Write `u8 status, s suffix, hops`."""
    write_status(writer, message)
    write_hops(writer, message.hops)


def read_status(reader: Reader, highest: int = _ACTIVE) -> int:
    """Read `u8 status`."""
    status = reader.u8()
    if status > highest:
        raise reader.malformed(f"unknown status {status}")
    return status


def _with_status(status: int, suffix: str, hops: tuple[int, ...]) -> AnnounceStart | AnnounceEnd:
    if status == _ENDED:
        return AnnounceEnd(suffix=suffix, hops=hops)
    return AnnounceStart(suffix, hops, restart=status == _RESTART)


def write_status(writer: Writer, message: AnnounceStart | AnnounceEnd) -> None:
    """Write `u8 status, s suffix`."""
    if isinstance(message, AnnounceStart):
        refuse_restart(message)
        writer.u8(_ACTIVE)
        writer.text(message.suffix)
        return
    if message.suffix is None:
        raise LocalProtocolError("this version ends an announcement by its suffix")
    writer.u8(_ENDED)
    writer.text(message.suffix)


# -- messages with ids (moq-lite-06) --------------------------------------------------------------------------


def read_start(reader: Reader, limits: Limits) -> AnnounceStart:
    """Read `s suffix, hops, i warm_cost, i cold_cost`."""
    suffix, hops = reader.path(limits), _read_distinct_hops(reader, limits)
    return AnnounceStart(suffix, hops, reader.varint(), reader.varint())


def write_start(writer: Writer, message: AnnounceStart) -> None:
    """Write `s suffix, hops, i warm_cost, i cold_cost`."""
    refuse_restart(message)
    writer.text(message.suffix)
    write_hops(writer, message.hops)
    writer.varint(message.warm_cost)
    writer.varint(message.cold_cost)


def read_end(reader: Reader, limits: Limits) -> AnnounceEnd:
    """Read `i announce_id`."""
    return AnnounceEnd(reader.varint())


def write_end(writer: Writer, message: AnnounceEnd) -> None:
    """Write `i announce_id`."""
    if message.announce_id is None:
        raise LocalProtocolError("this version ends an announcement by its id")
    writer.varint(message.announce_id)


def read_update(reader: Reader, limits: Limits) -> AnnounceUpdate:
    """Read `i announce_id, hops, i warm_cost, i cold_cost`."""
    announce_id, hops = reader.varint(), _read_distinct_hops(reader, limits)
    return AnnounceUpdate(announce_id, hops, reader.varint(), reader.varint())


def write_update(writer: Writer, message: AnnounceUpdate) -> None:
    """Write `i announce_id, hops, i warm_cost, i cold_cost`."""
    writer.varint(message.announce_id)
    write_hops(writer, message.hops)
    writer.varint(message.warm_cost)
    writer.varint(message.cold_cost)


def read_hops(reader: Reader, limits: Limits) -> tuple[int, ...]:
    """Read `hops`."""
    return tuple(reader.varint() for _ in range(reader.count("max_hops", limits.max_hops)))


def _read_distinct_hops(reader: Reader, limits: Limits) -> tuple[int, ...]:
    # A hop that is listed twice is a loop that a relay failed to detect; 0 is any unknown hop and may repeat.
    hops = read_hops(reader, limits)
    known = [hop for hop in hops if hop]
    if len(set(known)) < len(known):
        raise reader.malformed("the same hop twice")
    return hops


def write_hops(writer: Writer, hops: tuple[int, ...]) -> None:
    """Write `hops`."""
    writer.varint(len(hops))
    for hop in hops:
        writer.varint(hop)


def refuse_restart(message: AnnounceStart) -> None:
    """Raise `LocalProtocolError` for a restart, which no version writes as such."""
    if message.restart:
        raise LocalProtocolError("a restart is sent as a second start")
