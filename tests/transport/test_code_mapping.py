"""How stream error codes are written on the wire: plain, in WebTransport's range, and mapped once more by a version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from moqt_trio.errors import StreamReset
from moqt_trio.transport.code_mapping import (
    HTTP3_CODES,
    PLAIN_CODES,
    CodeMapping,
    stream_code_from_http3,
    stream_code_to_http3,
)
from moqt_trio.transport.memory import open_memory_pair

VECTORS = [
    (vector["fields"]["code"], int(vector["fields"]["h3"], 16))
    for vector in json.loads((Path(__file__).parents[1] / "vectors" / "moq-lite.json").read_text())["vectors"]
    if vector["dialect"] == "webtransport-code"
]
FIRST, LAST = VECTORS[0][1], VECTORS[-1][1]


@pytest.mark.parametrize(("code", "codepoint"), VECTORS)
def test_http3_vectors(code, codepoint):
    """A stream code is carried by the codepoint of its vector, and read back from it."""
    assert stream_code_to_http3(code) == codepoint
    assert stream_code_from_http3(codepoint) == code


@given(st.integers(0, 0xFFFFFFFF))
def test_http3_round_trip(code):
    """Every stream code comes back, and no codepoint that HTTP/3 keeps for greasing is used."""
    codepoint = stream_code_to_http3(code)
    assert FIRST <= codepoint <= LAST
    assert (codepoint - 0x21) % 0x1F != 0
    assert stream_code_from_http3(codepoint) == code


@pytest.mark.parametrize("codepoint", [0, 0x100, FIRST - 1, LAST + 1, FIRST + 0x1E, FIRST + 0x1E + 0x1F])
def test_http3_codepoints_that_carry_no_code(codepoint):
    """A codepoint outside the range, or one of the greased ones within it, carries no stream code."""
    assert stream_code_from_http3(codepoint) is None


@pytest.mark.parametrize("code", [-1, 1 << 32])
def test_stream_codes_fit_in_32_bits(code):
    """A stream code that WebTransport can't carry is refused."""
    with pytest.raises(ValueError, match="32 bits"):
        stream_code_to_http3(code)


@pytest.mark.parametrize(("mapping", "largest"), [(PLAIN_CODES, (1 << 62) - 1), (HTTP3_CODES, LAST)])
def test_a_code_that_is_too_large_becomes_the_largest(mapping, largest):
    """A reset may not fail: a code that does not fit is sent as the largest that does."""
    assert mapping.to_wire(1 << 70) == largest


def test_a_codepoint_that_carries_no_code_stays_as_it_is():
    """A peer may reset a WebTransport stream with a code of HTTP/3."""
    assert HTTP3_CODES.from_wire(0x10C) == 0x10C


NUMBERS = CodeMapping(lambda code: code + 100, lambda number: number - 100)
"""A version that numbers its codes in its own way."""


@pytest.mark.parametrize("opener", ["open_bidi", "open_uni"])
@pytest.mark.parametrize(("lower", "on_the_wire"), [(PLAIN_CODES, 107), (HTTP3_CODES, stream_code_to_http3(107))])
async def test_codes_of_a_stream_can_be_mapped(opener, lower, on_the_wire):
    """A stream of any kind maps its codes on top of its connection's, both ways."""
    async with open_memory_pair() as (client, server):
        client.code_mapping = lower
        ours = await getattr(client, opener)()
        ours.map_codes(NUMBERS)
        ours.write(b"x")
        while not server.streams:
            await trio.testing.wait_all_tasks_blocked()
        theirs = server.streams[ours.stream_id]
        theirs.map_codes(NUMBERS.over(lower))
        assert theirs.codes.from_wire(on_the_wire) == 7
        assert await theirs.receive_some() == b"x"
        ours.reset(7)
        with pytest.raises(StreamReset) as caught:
            await theirs.receive_some()
        assert caught.value.code == 7
