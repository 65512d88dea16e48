"""How a recorded conversation is written down: lines that say who writes what on which stream.

A stream has a name of the conversation's own. One whose name starts with "group" goes one way; the side that
writes first on a stream has opened it. Bytes are in hexadecimal, and what is text on the wire stands in quotation
marks: `05 "japan"` is a length and five letters.
"""

from __future__ import annotations

import re
from typing import Literal

import attrs

_TOKEN = re.compile(r'\s*(?:"([^"]*)"|([0-9a-f]+))\s*')


def bytes_of(text: str) -> bytes:
    """Returns the bytes that a text stands for."""
    data = b""
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        assert found is not None, f"neither hexadecimal nor quoted: {text[at:]!r}"
        data += found[1].encode() if found[1] is not None else bytes.fromhex(found[2])
        at = found.end()
    return data


def is_one_way(stream: str) -> bool:
    """Whether a stream of this name has only its opener's half."""
    return stream.startswith("group")


@attrs.frozen
class Line:
    """Something that one side does.

    Attributes:
        who: `"peer"` for the recorded side, which the test plays; `"ours"` for the side under test.
        stream: The stream's name.
        choices: The bytes that are written; several where the order of events on the way decides.
        fin: True when the half ends after the bytes.
        reset: The code with which the half is given up, as the version numbers it; None where it is not.
        stop: The code with which the other half is refused; None where it is not.
        whole: True when the bytes have to come in one piece.
        last: True for what the session's end, which follows, may overtake.
        what: What it means.
    """

    who: Literal["peer", "ours"]
    stream: str
    choices: tuple[bytes, ...]
    what: str
    fin: bool = False
    reset: int | None = None
    stop: int | None = None
    last: bool = False
    whole: bool = False


@attrs.frozen
class Silence:
    """The side under test has nothing more to say for now: no byte, no stream, and no end of one.

    Attributes:
        what: Why not.
    """

    what: str


@attrs.frozen
class Close:
    """The session closes.

    Attributes:
        who: Who closes it.
        code: The code.
    """

    who: Literal["peer", "ours"]
    code: int


Step = Line | Silence | Close
Script = tuple[Step, ...]


def peer(stream: str, written: str, what: str, *, fin: bool = False) -> Line:
    """The recorded side writes."""
    return Line("peer", stream, (bytes_of(written),), what, fin)


def ours(stream: str, written: str, what: str, *, fin: bool = False, last: bool = False, whole: bool = False) -> Line:
    """The side under test writes exactly this."""
    return Line("ours", stream, (bytes_of(written),), what, fin, last=last, whole=whole)


def ours_either(stream: str, *written: str, what: str) -> Line:
    """The side under test writes one of these."""
    return Line("ours", stream, tuple(map(bytes_of, written)), what)


def peer_leaves(stream: str, what: str, code: int) -> Line:
    """The recorded side gives up both halves of a stream."""
    return Line("peer", stream, (b"",), what, reset=code, stop=code)


def peer_gives_up(stream: str, what: str, code: int) -> Line:
    """The recorded side gives up what it was writing."""
    return Line("peer", stream, (b"",), what, reset=code)


def peer_refuses(stream: str, what: str, code: int) -> Line:
    """The recorded side refuses to read on."""
    return Line("peer", stream, (b"",), what, stop=code)


def ours_leaves(stream: str, what: str, code: int, *, half: bool = False, last: bool = False) -> Line:
    """The side under test gives up a stream: both halves, or its own where the peer has ended the other."""
    return Line("ours", stream, (b"",), what, reset=code, stop=None if half else code, last=last)
