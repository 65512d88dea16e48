"""Error codes: their numbers are the wire's, so they never change."""

from __future__ import annotations

import pytest

from moqt_trio import codes
from moqt_trio.wire.transfork.develop import CODES as DEVELOP


def test_session_codes_are_stable():
    """The session codes are those of moq-lite-06, section 4.4.1."""
    assert {code.name: code.value for code in codes.SessionCode} == {
        "NO_ERROR": 0x0,
        "INTERNAL_ERROR": 0x1,
        "UNAUTHORIZED": 0x2,
        "PROTOCOL_VIOLATION": 0x3,
        "KEY_VALUE_FORMATTING_ERROR": 0x6,
        "GOAWAY_TIMEOUT": 0x10,
        "CONTROL_MESSAGE_TIMEOUT": 0x11,
        "VERSION_NEGOTIATION_FAILED": 0x15,
    }


def test_stream_codes_are_stable():
    """The stream codes are those of moq-lite-06, section 4.4.2, and those that it adds from 0x30 on."""
    assert {code.name: code.value for code in codes.StreamCode} == {
        "INTERNAL_ERROR": 0x0,
        "CANCELLED": 0x1,
        "DELIVERY_TIMEOUT": 0x2,
        "SESSION_CLOSED": 0x3,
        "GOING_AWAY": 0x4,
        "TOO_FAR_BEHIND": 0x5,
        "MALFORMED_TRACK": 0x12,
        "NO_CAPACITY": 0x30,
        "CONTROL_TIMEOUT": 0x31,
        "GROUP_TOO_LARGE": 0x32,
        "NOT_FOUND": 0x33,
        "OLD": 0x34,
        "EVICTED": 0x35,
        "UNROUTABLE": 0x36,
        "WRONG_SIZE": 0x37,
        "FRAME_TOO_LARGE": 0x38,
        "TIMESTAMP_MISMATCH": 0x39,
    }


def test_names():
    """A known code is shown with its name, in its own space; an unknown one is shown in hexadecimal."""
    assert codes.describe_session_code(3) == "0x3 (PROTOCOL_VIOLATION)"
    assert codes.describe_stream_code(3) == "0x3 (SESSION_CLOSED)"
    assert codes.describe_session_code(0x40) == "0x40"
    assert codes.describe_stream_code(0x33) == "0x33 (NOT_FOUND)"
    assert codes.describe_stream_code(99) == "0x63"


SPACES = ("session", "announce", "subscribe", "fetch", "info", "group", "stream")


@pytest.mark.parametrize("space", SPACES)
def test_moq_lite_numbers_its_codes_as_this_library_does(space):
    """In the versions of moq-lite a code goes out and comes in as it is."""
    for code in (0, 1, 3, 0x33, 64, 404, (1 << 62) - 1):
        assert codes.MOQ_LITE.to_wire(space, code) == code
        assert codes.MOQ_LITE.from_wire(space, code) == code


@pytest.mark.parametrize(
    ("space", "code", "number"),
    [
        ("session", codes.SessionCode.NO_ERROR, 0),
        ("session", codes.SessionCode.UNAUTHORIZED, 2),
        ("session", codes.SessionCode.PROTOCOL_VIOLATION, 3),
        ("session", codes.SessionCode.GOAWAY_TIMEOUT, 0x10),
        ("subscribe", codes.StreamCode.NOT_FOUND, 3),
        ("fetch", codes.StreamCode.NOT_FOUND, 1),
        ("info", codes.StreamCode.NOT_FOUND, 1),
        ("group", codes.StreamCode.OLD, 3),
        ("group", codes.StreamCode.NOT_FOUND, 5),
        ("stream", codes.StreamCode.CANCELLED, 0x10),
    ],
)
def test_develop_numbers_its_codes_by_the_kind_of_stream(space, code, number):
    """In gomoqt's develop version the same code has another number on each kind of stream, and comes back as itself."""
    assert DEVELOP.to_wire(space, code) == number
    assert DEVELOP.from_wire(space, number) == code


@pytest.mark.parametrize("space", SPACES)
def test_every_code_goes_somewhere_and_unknown_ones_are_kept(space):
    """A code that develop has no number for becomes an internal error; one that is unknown stays what it is."""
    known = codes.SessionCode if space == "session" else codes.StreamCode
    for code in known:
        number = DEVELOP.to_wire(space, code)
        assert number in {*DEVELOP.numbers[space].values(), DEVELOP.fallback[space]}
    for code in (64, 404, 1 << 40):
        assert DEVELOP.to_wire(space, code) == code
        assert DEVELOP.from_wire(space, code) == code
    assert DEVELOP.to_wire("session", codes.SessionCode.CONTROL_MESSAGE_TIMEOUT) == 1
    assert DEVELOP.to_wire("announce", codes.StreamCode.NOT_FOUND) == 0


@pytest.mark.parametrize(("space", "number"), [("announce", 1), ("subscribe", 2)])
def test_something_that_is_there_twice(space, number):
    """Develop has numbers for a path and an id that are used twice, and for nothing else; moq-lite has none."""
    code = DEVELOP.duplicates[space]
    assert code not in {*codes.StreamCode}
    assert DEVELOP.to_wire(space, code) == number
    assert DEVELOP.from_wire(space, number) == code
    assert set(DEVELOP.duplicates) == {"announce", "subscribe"}
    assert codes.MOQ_LITE.duplicates == {}
