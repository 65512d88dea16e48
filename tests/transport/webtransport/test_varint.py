"""The varint of QUIC, with the examples of RFC 9000, appendix A.1."""

from __future__ import annotations

import pytest

from moqt_trio.transport.http3.varint import read_varint, write_varint

EXAMPLES = [
    ("c2197c5eff14e88c", 151_288_809_941_952_652),
    ("9d7f3e7d", 494_878_333),
    ("7bbd", 15_293),
    ("25", 37),
]


@pytest.mark.parametrize(("encoded", "value"), EXAMPLES)
def test_examples(encoded, value):
    """The examples of the RFC read and write; each truncation asks for more."""
    data = bytes.fromhex(encoded)
    assert read_varint(b"\x00" + data + b"\xff", 1) == (value, 1 + len(data))
    assert write_varint(value) == data
    for cut in range(len(data)):
        assert read_varint(data[:cut]) is None


def test_long_forms_are_read():
    """A value in more bytes than it needs is the same value."""
    assert read_varint(bytes.fromhex("4025")) == (37, 2)


def test_bounds():
    """Nothing outside 0 … 2**62-1 can be written."""
    assert read_varint(write_varint(2**62 - 1)) == (2**62 - 1, 8)
    for value in (-1, 2**62):
        with pytest.raises(ValueError, match="varint"):
            write_varint(value)
