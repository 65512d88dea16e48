"""What the echo client and the echo server share: the names they negotiate on, and how they read and fail alike."""

from __future__ import annotations

import textwrap
from typing import Final

import moqt_trio as moqt

PREFIX: Final = "japan/kyoto"
"""The server echoes every broadcast at or below this prefix; the client publishes exactly here."""
TRACK: Final = "text"
ROUTE: Final = "/echo"
PORT: Final = 4443

PATIENCE: Final = 3600.0
"""Seconds of age up to which a message is still worth delivering: an echo wants all of them."""


def parse_versions(text: str) -> list[str]:
    """Returns the version names of a comma-separated list. Raises ValueError for a name that does not exist."""
    chosen = [name.strip() for name in text.split(",") if name.strip()]
    known = moqt.version_names(opt_in=True)
    for name in chosen:
        if name not in known:
            raise ValueError(f"unknown version {name!r}; choose from {', '.join(known)}")
    if not chosen:
        raise ValueError(f"no version in {text!r}; choose from {', '.join(known)}")
    return chosen


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Returns the first single exception in a group: one line for people has room for one cause."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def versions_for_help() -> str:
    """Returns the names of the wire versions for the end of a help text, in lines of at most 80 columns."""
    offered = moqt.version_names()
    named = [name for name in moqt.version_names(opt_in=True) if name not in offered]
    return textwrap.fill(
        " ".join(offered) + "; and where both sides name it: " + " ".join(named),
        80,
        initial_indent="wire versions: ",
        subsequent_indent="  ",
        break_on_hyphens=False,
    )
