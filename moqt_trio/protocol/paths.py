"""A path as somebody spelled it, made canonical and held to its bounds: a peer's spelling, and the caller's own.

Peers put slashes at the ends or double them; inside this library a path has one form, so that equal paths are equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..codes import StreamCode
from ..errors import LimitExceeded, LocalProtocolError, RemoteProtocolError, printable
from ..path import BroadcastPath

if TYPE_CHECKING:
    from ..limits import Limits
    from ..wire.dialect import Features


def path_untrusted(text: str, limits: Limits, below: BroadcastPath | None = None) -> BroadcastPath:
    """Returns the canonical form of a peer's path.

    Args:
        text: What the peer wrote.
        limits: `max_path` and `max_path_parts` apply to the whole path.
        below: The prefix that the text continues.

    Raises:
        LimitExceeded: The path is too long or too deep; scope `"stream"`.
    """
    parts = tuple(part for part in text.split("/") if part)
    if below is not None:
        parts = below.parts + parts
    if len(parts) > limits.max_path_parts:
        raise LimitExceeded("max_path_parts", len(parts), code=StreamCode.UNROUTABLE, scope="stream")
    size = sum(len(part.encode()) for part in parts) + max(len(parts) - 1, 0)
    if size > limits.max_path:
        raise LimitExceeded("max_path", size, code=StreamCode.UNROUTABLE, scope="stream")
    try:
        return BroadcastPath(parts)
    except ValueError as error:
        # The library's own bounds on a path hold even where `limits` was set above them.
        raise RemoteProtocolError(str(error), code=StreamCode.UNROUTABLE, scope="stream") from error


def track_path_local(broadcast: str | BroadcastPath, track: str) -> str:
    """Returns the path that stands for a track where announcements name tracks.

    Raises:
        LocalProtocolError: The track's name is empty or has a slash in it, so that it can't be the last part of a path,
            or the path is too long or too deep.
    """
    if not track or "/" in track:
        raise LocalProtocolError(f"a track that is named {printable(track)!r} can't be announced by its path")
    try:
        return str(BroadcastPath.parse(broadcast).join(track))
    except ValueError as error:
        raise LocalProtocolError(str(error)) from error


def path_local(text: str) -> BroadcastPath:
    """Returns the canonical form of a caller's path. Raises `LocalProtocolError` when it is too long or too deep."""
    try:
        return BroadcastPath.parse(text)
    except ValueError as error:
        raise LocalProtocolError(str(error)) from error


def format_path(path: BroadcastPath, features: Features) -> str:
    """Returns a broadcast's path as a version writes it."""
    return f"/{path}" if features.outer_slashes else str(path)


def format_prefix(prefix: BroadcastPath, features: Features) -> str:
    """Returns a prefix as a version writes it."""
    if not features.outer_slashes:
        return str(prefix)
    return f"/{prefix}/" if prefix.parts else "/"
