"""Paths as tuples of texts, as they were before moq-lite, and the other fields of those versions.

    path { Count (varint), { Part (text with its length in front) } … }

One tuple names a track: its last part is the track's name, the parts before it are the broadcast's path. In the other
direction a broadcast's path is cut at its slashes. A part that is empty or has a slash in it cannot be in a path with
slashes, and such a track name cannot be in a tuple: both are refused, and never rewritten.

Spec: draft-lcurley-moq-transfork-03.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ...codes import StreamCode
from ...errors import LocalProtocolError, Malformed, printable

if TYPE_CHECKING:
    from ...limits import Limits
    from ..buffer import Reader, Writer

_ORDERS: Final = (None, True, False)
"""What the numbers of a group order mean: the publisher's choice, ascending, descending."""

_MAX_PRIORITY: Final = 255


def read_parts(reader: Reader, limits: Limits) -> tuple[str, ...]:
    """Read a path, a prefix or a suffix.

    Raises:
        Malformed: A part that a path with slashes can't hold; scope `"stream"`, as the message itself is in order.
    """
    parts = tuple(
        reader.text("max_path", limits.max_path) for _ in range(reader.count("max_path_parts", limits.max_path_parts))
    )
    size = sum(len(part.encode()) for part in parts) + max(len(parts) - 1, 0)
    if size > limits.max_path:
        raise reader.exceeded("max_path", size)
    for part in parts:
        if not part or "/" in part:
            problem = f"{reader.what}: a path with the part {printable(part)!r}, which no path with slashes can hold"
            raise Malformed(problem, code=StreamCode.UNROUTABLE, scope="stream")
    return parts


def write_parts(writer: Writer, parts: tuple[str, ...]) -> None:
    """Write a path, a prefix or a suffix."""
    writer.varint(len(parts))
    for part in parts:
        writer.text(part)


def parts_of(path: str) -> tuple[str, ...]:
    """Return the parts of a path with slashes.

    Raises:
        LocalProtocolError: A part is empty: a slash is at an end, or doubled.
    """
    parts = tuple(path.split("/")) if path else ()
    if "" in parts:
        raise LocalProtocolError(f"a path with an empty part: {printable(path)!r}")
    return parts


def read_path(reader: Reader, limits: Limits) -> str:
    """Read a path, and join its parts with slashes."""
    return "/".join(read_parts(reader, limits))


def write_path(writer: Writer, path: str) -> None:
    """Write a path with slashes."""
    write_parts(writer, parts_of(path))


def split_track(parts: tuple[str, ...]) -> tuple[str, str]:
    """Return the broadcast's path and the track's name of a tuple; two empty texts for the empty tuple."""
    return ("/".join(parts[:-1]), parts[-1]) if parts else ("", "")


def read_track(reader: Reader, limits: Limits) -> tuple[str, str]:
    """Read the path of a track, and return the broadcast's path and the track's name."""
    return split_track(read_parts(reader, limits))


def write_track(writer: Writer, broadcast: str, track: str) -> None:
    """Write the path of a track.

    Raises:
        LocalProtocolError: The track's name is empty or has a slash in it.
    """
    if not track or "/" in track:
        raise LocalProtocolError(
            f"this version has no place for the track name {printable(track)!r}: it is the last part of a path, "
            "so it is not empty and has no slash"
        )
    write_parts(writer, (*parts_of(broadcast), track))


def read_priority(reader: Reader) -> int:
    """Read `i priority`; a number above 255 is read as 255, the highest priority."""
    return min(reader.varint(), _MAX_PRIORITY)


def write_priority(writer: Writer, priority: int) -> None:
    """Write `i priority`."""
    if not 0 <= priority <= _MAX_PRIORITY:
        raise LocalProtocolError(f"a priority is 0 to 255, not {priority}")
    writer.varint(priority)


def read_order(reader: Reader) -> bool | None:
    """Read `i order`: 0 the publisher's choice, 1 ascending, 2 descending."""
    order = reader.varint()
    if order >= len(_ORDERS):
        raise reader.malformed(f"unknown group order {order}")
    return _ORDERS[order]


def write_order(writer: Writer, ordered: bool | None) -> None:
    """Write `i order`."""
    writer.varint(_ORDERS.index(ordered))
