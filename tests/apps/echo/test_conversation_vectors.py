"""The recorded conversations are the vectors: the same messages, with the echo's names and numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conversations import develop, gomoqt, transfork
from .conversations.script import Line, bytes_of

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "moq-lite.json").read_text())["vectors"]

NAMES = {
    '07 "meeting"': '05 "japan"',
    '04 "1234"': '05 "kyoto"',
    '05 "video"': '04 "text"',
    '05 "alice"': '04 "text"',
}
"""What the vectors call things, and what the echo calls them."""
WISHES = {"07 03": "00 03", "02 01 00 00": "407f 01 00 00", "02 01 45dc 00 00": "407f 01 8036ee80 00 00"}
"""Subscription 7 is our 0, priority 2 our 127, 1.5 s our hour."""
NO_GROUP = {"02 2a 02": "00 00 02", "45dc": "00"}
"""Priority 2 is our 0, group 42 our none, 1.5 s our unsaid."""

DEVELOP = [
    bytes_of(develop.HELLO),
    *(
        data
        for script in (develop.WE_SERVE, develop.WE_CONNECT, gomoqt.GO_CLIENT, gomoqt.GO_SERVER)
        for step in script
        if isinstance(step, Line)
        for data in step.choices
    ),
]
TRANSFORK = [
    bytes_of(transfork.HELLO_WITHOUT_PATH),
    *(
        data
        for script in (transfork.WE_SERVE, transfork.WE_CONNECT)
        for step in script
        if isinstance(step, Line)
        for data in step.choices
    ),
]


def vector(dialect: str, message: str, fields: dict[str, object]) -> bytes:
    """Returns the bytes of the first vector with these fields."""
    for entry in VECTORS:
        if (entry["dialect"], entry["message"]) == (dialect, message) and fields.items() <= entry["fields"].items():
            return bytes.fromhex(entry["hex"])
    raise AssertionError("there is no such vector")


def retold(body: bytes, numbers: dict[str, str]) -> bytes:
    """Returns the body of a message with the echo's numbers and names in it."""
    for old, new in {**numbers, **NAMES}.items():
        body = body.replace(bytes_of(old), bytes_of(new))
    return body


def stands_in(expected: bytes, lines: list[bytes]) -> bool:
    """Whether a message opens a line, alone or after a stream's type."""
    return any(line[at:].startswith(expected) for line in lines for at in (0, 1))


@pytest.mark.parametrize(
    ("message", "fields", "numbers"),
    [
        ("SESSION_CLIENT", {"params": {"1": "2f6563686f"}}, {}),
        ("SESSION_SERVER", {"params": {}}, {}),
        ("SESSION_SERVER", {"params": None}, {}),
        ("SESSION_UPDATE", {}, {}),
        ("ANNOUNCE_PLEASE", {"prefix": ["meeting", "1234"]}, {}),
        ("ANNOUNCE", {"status": "active", "suffix": ["alice"], "params": None}, {}),
        ("ANNOUNCE", {"status": "ended", "suffix": ["alice"]}, {}),
        ("ANNOUNCE", {"status": "live", "suffix": []}, {}),
        ("SUBSCRIBE", {"id": 7}, WISHES),
        ("SUBSCRIBE_GAP", {"min": 4}, {"04 06": "03 03"}),
        ("INFO", {}, NO_GROUP),
        ("GROUP", {}, {"07 2a": "00 01"}),
    ],
)
def test_develop(message, fields, numbers):
    """Every kind of message of the echo is the vector of its kind, with a length that fits."""
    body = retold(vector("gomoqt-develop", message, fields)[1:], numbers)
    assert stands_in(bytes([len(body)]) + body, DEVELOP), body.hex()


@pytest.mark.parametrize(
    ("message", "fields", "numbers"),
    [
        ("SESSION_CLIENT", {"extensions": {}}, {}),
        ("SESSION_SERVER", {}, {}),
        ("SESSION_UPDATE", {}, {}),
        ("ANNOUNCE_PLEASE", {"prefix": ["meeting", "1234"]}, {}),
        ("ANNOUNCE", {"status": "active"}, {}),
        ("ANNOUNCE", {"status": "ended"}, {}),
        ("ANNOUNCE", {"status": "live"}, {}),
        ("SUBSCRIBE", {"id": 7}, WISHES),
        ("SUBSCRIBE_GAP", {"count": 0}, {"04 00": "02 00"}),
        ("INFO", {}, NO_GROUP),
        ("GROUP", {}, {"07 2a": "00 01"}),
    ],
)
def test_transfork(message, fields, numbers):
    """Every kind of message of the echo is the vector of its kind."""
    body = retold(vector("transfork-03", message, fields), numbers)
    assert stands_in(body, TRANSFORK), body.hex()


@pytest.mark.parametrize(
    ("dialect", "lines", "stream"),
    [("gomoqt-develop", DEVELOP, '00 02 00 01 05 "hello"'), ("transfork-03", TRANSFORK, '00 00 00 05 "hello"')],
)
def test_group_stream(dialect, lines, stream):
    """A group is the vector of a whole stream, with the echo's numbers."""
    numbers = {"02 07 2a": "02 00 01"} if dialect == "gomoqt-develop" else {"07 2a": "00 00"}
    vectored = retold(vector(dialect, "GROUP_STREAM", {}), numbers)
    assert vectored.startswith(bytes_of(stream))
    assert bytes_of(stream) in lines


def test_quirks():
    """The live announcement of gomoqt, and its list of parameters that was never made, are as the vectors have them."""
    assert vector("gomoqt-develop", "ANNOUNCE", {"status": "live", "suffix": None}) in DEVELOP
    assert vector("gomoqt-develop", "SESSION_CLIENT", {"params": None}) == bytes_of(gomoqt.HELLO_WITHOUT_PATH)[1:]
    assert vector("gomoqt-develop", "SESSION_STREAM", {}) == bytes_of(gomoqt.HELLO)
