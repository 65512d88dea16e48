"""Capsules of the CONNECT stream, with bytes written out by hand from RFC 9297 and draft-ietf-webtrans-http3."""

from __future__ import annotations

import tracemalloc

import pytest

from moqt_trio.errors import Malformed
from moqt_trio.transport.webtransport.capsule import CapsuleReader, CloseSession, DrainSession, encode_close

# Type 0x2843 as a two-byte varint, length 7, code 0x2a, "bye".
CLOSE = bytes.fromhex("6843 07 0000002a 627965")
DRAIN = bytes.fromhex("800078ae 00")
GREASE = bytes.fromhex("29 05 0102030405")


def read(*pieces):
    reader = CapsuleReader()
    return [capsule for piece in pieces for capsule in reader.receive_untrusted(piece)], reader


def test_close_is_written_as_the_draft_says():
    """A close capsule is type 0x2843, a length, 32 bits of code and the reason."""
    assert encode_close(0x2A, "bye") == CLOSE


def test_every_split_reads_the_same():
    """Capsules mean the same wherever the stream cuts them."""
    whole = GREASE + DRAIN + GREASE + CLOSE
    for cut in range(len(whole) + 1):
        found, reader = read(whole[:cut], whole[cut:])
        assert found == [DrainSession(), CloseSession(0x2A, "bye")], cut
        assert reader.between_capsules


def test_byte_by_byte():
    """Capsules may arrive one byte at a time."""
    found, _ = read(*(bytes([byte]) for byte in GREASE + CLOSE + DRAIN))
    assert found == [CloseSession(0x2A, "bye"), DrainSession()]


def test_a_cut_capsule_is_noticed():
    """The reader knows when the stream would end within a capsule."""
    for cut in range(1, len(CLOSE)):
        assert not read(CLOSE[:cut])[1].between_capsules
    assert not read(GREASE[:3])[1].between_capsules


def test_unknown_capsule_is_drained():
    """A megabyte of an unknown capsule is passed over without being kept."""
    reader = CapsuleReader()
    piece = bytes(16 * 1024)
    reader.receive_untrusted(bytes.fromhex("29 80100000"))
    tracemalloc.start()
    for _ in range(64):
        assert reader.receive_untrusted(piece) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 1024
    assert reader.receive_untrusted(CLOSE) == [CloseSession(0x2A, "bye")]


def test_a_capsule_of_any_length_is_not_allocated():
    """A length of 2**62-1 costs nothing."""
    found, reader = read(bytes.fromhex("29 ffffffffffffffff"), bytes(1000))
    assert found == []
    assert not reader.between_capsules


@pytest.mark.parametrize(
    "data",
    [
        bytes.fromhex("6843 03 000000"),
        bytes.fromhex("6843 4405"),
        bytes.fromhex("6843 ffffffffffffffff"),
        bytes.fromhex("6843 05 00000000 ff"),
        bytes.fromhex("800078ae 01 00"),
    ],
    ids=["no code", "reason of 1025 bytes", "endless", "not UTF-8", "drain with a body"],
)
def test_what_a_type_forbids_is_malformed(data):
    """A close or drain capsule whose length or text is wrong is refused, before its bytes arrive where possible."""
    with pytest.raises(Malformed):
        read(data)


def test_longest_reason_passes():
    """A reason of exactly 1024 bytes is read."""
    found, _ = read(bytes.fromhex("6843 4404 00000001") + b"x" * 1024)
    assert found == [CloseSession(1, "x" * 1024)]


def test_long_reason_is_cut_between_characters():
    """A reason is cut to 1024 bytes of UTF-8 without splitting a character, and a code to 32 bits."""
    found, _ = read(encode_close(2**40, "€" * 1000))
    assert found == [CloseSession(0xFFFFFFFF, "€" * 341)]
