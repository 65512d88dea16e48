"""The moq-lite messages about the session as a whole: SETUP, PROBE, GOAWAY.

Each function reads or writes one message's body in the layout that its docstring shows; `versions.py` says which
version uses which. In the layouts `i` is a varint, `s` text and `b` bytes with their length in front.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from ... import varint
from ..buffer import Reader
from ..messages import Goaway, Probe, ProbeLevel, Role, Setup

if TYPE_CHECKING:
    from ...limits import Limits
    from ..buffer import Writer


class _Parameter(enum.IntEnum):
    PROBE = 1
    PATH = 2
    ROLE = 3
    COST = 4
    HOP_ID = 5


def read_setup(reader: Reader, limits: Limits) -> Setup:
    """Read `i count {i id, b value}` (-05, -06). The order is free; an id that is there twice is an error.

    A probe level above those that are known can do more, so it counts as the highest; an unknown role as both.

    Spec: moq-lite-06, section 7.3.
    """
    values: dict[int, bytes] = {}
    for _ in range(reader.count("max_parameters", limits.max_parameters, item_size=2)):
        number = reader.varint()
        if number in values:
            raise reader.malformed(f"parameter {number:#x} twice")
        values[number] = reader.data("max_message", limits.max_message)
    probe = _read_number(reader, values, _Parameter.PROBE) or 0
    role = _read_number(reader, values, _Parameter.ROLE) or 0
    path = values.pop(_Parameter.PATH, None)
    return Setup(
        probe=ProbeLevel(min(probe, ProbeLevel.INCREASE)),
        path=None if path is None else _read_target(reader, path, limits),
        role=Role(role) if role <= max(Role) else Role.BOTH,
        cost=_read_number(reader, values, _Parameter.COST),
        hop_id=_read_number(reader, values, _Parameter.HOP_ID) or 0,
        unknown=tuple(values.items()),
    )


def _read_number(reader: Reader, values: dict[int, bytes], parameter: _Parameter) -> int | None:
    value = values.pop(parameter, None)
    if value is None:
        return None
    inner = Reader(value, f"{reader.what} parameter {parameter.name}", reader.scope, reader.code)
    number = inner.varint()
    inner.expect_end()
    return number


def _read_target(reader: Reader, value: bytes, limits: Limits) -> str:
    if len(value) > limits.max_uri:
        raise reader.exceeded("max_uri", len(value))
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise reader.malformed("the path is not UTF-8") from error


def write_setup(writer: Writer, message: Setup) -> None:
    """Write `i count {i id, b value}`, in the order of the ids, without those that have their default."""
    values: list[tuple[_Parameter, int | str]] = []
    if message.probe:
        values.append((_Parameter.PROBE, message.probe))
    if message.path is not None:
        values.append((_Parameter.PATH, message.path))
    if message.role:
        values.append((_Parameter.ROLE, message.role))
    if message.cost is not None:
        values.append((_Parameter.COST, message.cost))
    if message.hop_id:
        values.append((_Parameter.HOP_ID, message.hop_id))
    writer.varint(len(values))
    for parameter, value in values:
        writer.varint(parameter)
        if isinstance(value, str):
            writer.text(value)
        else:
            writer.data(varint.encode(value))


def _write_measured(writer: Writer, value: int | None) -> None:
    # 0 is "unknown" on the wire, so a measured 0 is written as 1.
    writer.varint(0 if value is None else value or 1)


def read_probe_bitrate(reader: Reader, limits: Limits) -> Probe:
    """Read `i bitrate` (-03)."""
    return Probe(reader.varint() or None)


def write_probe_bitrate(writer: Writer, message: Probe) -> None:
    """Write `i bitrate`; a round trip is left out."""
    _write_measured(writer, message.bitrate)


def read_probe(reader: Reader, limits: Limits) -> Probe:
    """Read `i bitrate, i rtt_ms` (-04 to -06)."""
    return Probe(reader.varint() or None, reader.varint() or None)


def write_probe(writer: Writer, message: Probe) -> None:
    """Write `i bitrate, i rtt_ms`."""
    _write_measured(writer, message.bitrate)
    _write_measured(writer, message.rtt_ms)


def read_goaway(reader: Reader, limits: Limits) -> Goaway:
    """Read `s uri` (-04 to -06)."""
    return Goaway(reader.text("max_uri", limits.max_uri))


def write_goaway(writer: Writer, message: Goaway) -> None:
    """Write `s uri`."""
    writer.text(message.uri)
