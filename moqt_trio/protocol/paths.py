"""A path as it was written, by a peer or by the caller, made canonical and held to its bounds.

Peers put slashes at the ends or double them; inside this library a path has one form, so that equal paths are equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..codes import StreamCode
from ..errors import LimitExceeded, LocalProtocolError, printable
from ..path import BroadcastPath

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..limits import Limits
    from ..wire.dialect import Dialect


def path_untrusted(text: str, limits: Limits, below: BroadcastPath | None = None) -> BroadcastPath:
    """Return the canonical form of a peer's path.

    Args:
        text: What the peer wrote.
        limits: `max_path` and `max_path_parts` apply to the whole path.
        below: The prefix that the text continues.

    Raises:
        LimitExceeded: The path is too long or too deep; scope `"stream"`.
    """
    parts = text.split("/")
    if "" in parts:
        parts = list(filter(None, parts))
    whole = tuple(parts) if below is None else (*below.parts, *parts)
    _check_untrusted(whole, limits)
    return BroadcastPath(whole)


def is_hidden(parts: Iterable[str]) -> bool:
    """Return whether a path is hidden from those that ask above these parts: one of them starts with a dot."""
    return any(part.startswith(".") for part in parts)


def no_words_for_hidden(version: str) -> LocalProtocolError:
    """Return the error for a list of hidden paths that cannot be asked for."""
    return LocalProtocolError(
        f"this peer cannot be asked for hidden paths in {version}: ask for the prefix that has the dot, "
        "or have the peer show them"
    )


def joined_untrusted(prefix: BroadcastPath, suffix: BroadcastPath, limits: Limits) -> BroadcastPath:
    """Return the path that a peer's suffix makes below a prefix. Raises as `path_untrusted` does."""
    parts = prefix.parts + suffix.parts
    _check_untrusted(parts, limits)
    return BroadcastPath(parts)


def _check_untrusted(parts: tuple[str, ...], limits: Limits) -> None:
    if len(parts) > limits.max_path_parts:
        raise LimitExceeded("max_path_parts", len(parts), code=StreamCode.UNROUTABLE, scope="stream")
    size = len("/".join(parts).encode())
    if size > limits.max_path:
        raise LimitExceeded("max_path", size, code=StreamCode.UNROUTABLE, scope="stream")


def check_path_local(path: BroadcastPath, limits: Limits, track: str | None = None) -> None:
    """Check a caller's path against this side's bounds: a peer with the same bounds refuses what exceeds them.

    Args:
        path: The path.
        limits: `max_path` and `max_path_parts`.
        track: The track's name, in a version where it is the last part of the path.

    Raises:
        LocalProtocolError: The path is too long or too deep.
    """
    parts = path.parts if track is None else (*path.parts, track)
    if len(parts) > limits.max_path_parts:
        raise LocalProtocolError(
            f"a path has at most {limits.max_path_parts} parts (Limits.max_path_parts), not {len(parts)}"
        )
    # A caller's text may hold what UTF-8 cannot: that is refused where the path is encoded.
    size = len("/".join(parts).encode("utf-8", "surrogatepass"))
    if size > limits.max_path:
        raise LocalProtocolError(f"a path has at most {limits.max_path} bytes (Limits.max_path), not {size}")


def track_path_local(broadcast: BroadcastPath | str, track: str, limits: Limits) -> BroadcastPath:
    """Return the path that stands for a track where announcements name tracks.

    Raises:
        LocalProtocolError: The track's name is empty or has a slash in it, so that it can't be the last part of a path,
            or the path is too long or too deep.
    """
    if not track or "/" in track:
        raise LocalProtocolError(f"a track that is named {printable(track)!r} can't be announced by its path")
    return path_local(BroadcastPath.parse(broadcast).join(track), limits)


def path_local(path: BroadcastPath | str, limits: Limits) -> BroadcastPath:
    """Return the canonical form of a caller's path. Raises `LocalProtocolError` when it is too long or too deep."""
    found = BroadcastPath.parse(path)
    check_path_local(found, limits)
    return found


def format_requested(broadcast: BroadcastPath | str, track: str, dialect: Dialect, limits: Limits) -> str:
    """Return the path of a request for a track or a group, as a version writes it.

    Raises:
        LocalProtocolError: The path is too long or too deep, in some versions together with the track's name.
    """
    path = BroadcastPath.parse(broadcast)
    check_path_local(path, limits, track if dialect.features.track_in_path else None)
    return format_path(path, dialect)


def format_path(path: BroadcastPath, dialect: Dialect) -> str:
    """Return a broadcast's path as a version writes it."""
    return f"/{path}" if dialect.quirks.outer_slashes else str(path)


def format_prefix(prefix: BroadcastPath, dialect: Dialect) -> str:
    """Return a prefix as a version writes it."""
    if not dialect.quirks.outer_slashes:
        return str(prefix)
    return f"/{prefix}/" if prefix.parts else "/"
