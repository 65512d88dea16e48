"""Varints and zigzag numbers against the vectors and the rules of RFC 9000, section 16."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moqt_trio import varint
from moqt_trio.errors import LocalProtocolError

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "moq-lite.json").read_text())["vectors"]


def _pairs(dialect):
    return [(int(v["fields"]["value"]), bytes.fromhex(v["hex"])) for v in VECTORS if v["dialect"] == dialect]


@pytest.mark.parametrize(("value", "wire"), _pairs("quic-varint"))
def test_varint_vectors(value, wire):
    """Each vector decodes to its number and encodes back to its bytes."""
    assert varint.decode(wire) == (value, len(wire))
    assert varint.encode(value) == wire
    assert varint.decode(bytearray(b"\xff" + wire + b"\xff"), 1) == (value, len(wire) + 1)


@pytest.mark.parametrize(("value", "wire"), _pairs("quic-varint"))
def test_cut_varint_is_incomplete(value, wire):
    """A varint that is cut anywhere is incomplete, never a smaller number."""
    for cut in range(len(wire)):
        assert varint.decode(wire[:cut]) is None


def unzigzag(value):
    """Returns the signed number that an unsigned one stands for; frames are decoded in line."""
    return (value >> 1) ^ -(value & 1)


@pytest.mark.parametrize(("value", "wire"), _pairs("zigzag-quic-varint"))
def test_zigzag_vectors(value, wire):
    """Each vector decodes to its signed number and encodes back to its bytes."""
    found = varint.decode(wire)
    assert found is not None
    assert unzigzag(found[0]) == value
    assert varint.encode(varint.zigzag(value)) == wire


@pytest.mark.parametrize(
    ("wire", "value"),
    [("c2197c5eff14e88c", 151_288_809_941_952_652), ("9d7f3e7d", 494_878_333), ("7bbd", 15_293), ("25", 37)],
)
def test_varint_examples(wire, value):
    """The examples of RFC 9000, appendix A.1, decode and encode; each truncation is incomplete."""
    data = bytes.fromhex(wire)
    assert varint.decode(b"\x00" + data + b"\xff", 1) == (value, 1 + len(data))
    assert varint.encode(value) == data
    for cut in range(len(data)):
        assert varint.decode(data[:cut]) is None


def test_largest_varint():
    """The largest number fits in eight bytes."""
    assert varint.decode(varint.encode(2**62 - 1)) == (2**62 - 1, 8)


@pytest.mark.parametrize("wire", ["4025", "80000025", "c000000000000025"])
def test_long_encodings_are_accepted(wire):
    """A number that takes more bytes than it needs still is that number."""
    assert varint.decode(bytes.fromhex(wire)) == (0x25, len(wire) // 2)


@pytest.mark.parametrize("value", [-1, 1 << 62, 1 << 64])
def test_varint_range(value):
    """A number that no varint holds is the caller's mistake."""
    with pytest.raises(LocalProtocolError, match="varint"):
        varint.encode(value)


@pytest.mark.parametrize("value", [varint.SIGNED_MIN - 1, varint.SIGNED_MAX + 1])
def test_zigzag_range(value):
    """A signed number whose zigzag form fits in no varint is the caller's mistake."""
    with pytest.raises(LocalProtocolError):
        varint.zigzag(value)


@given(st.integers(0, varint.MAX))
def test_varint_round_trip(value):
    """Every number comes back, in the shortest of the four widths."""
    wire = varint.encode(value)
    assert varint.decode(wire) == (value, len(wire))
    assert len(wire) == next(width for width, bits in ((1, 6), (2, 14), (4, 30), (8, 62)) if value < 1 << bits)


@given(st.integers(varint.SIGNED_MIN, varint.SIGNED_MAX))
def test_zigzag_round_trip(value):
    """Every signed number comes back, and its zigzag form fits in a varint."""
    folded = varint.zigzag(value)
    assert 0 <= folded <= varint.MAX
    assert unzigzag(folded) == value
