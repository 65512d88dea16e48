"""The control messages of IETF moq-transport: real bytes, whole, cut anywhere, and with bodies of another length."""

from __future__ import annotations

import pytest

from moqt_trio.errors import LimitExceeded, Malformed
from moqt_trio.limits import Limits
from moqt_trio.wire.buffer import StreamBuffer
from moqt_trio.wire.ietf.codec import ControlCodec
from moqt_trio.wire.ietf.profile import PROFILES
from tests.wire.ietf_vectors import CONTROL, message

LIMITS = Limits()
CODECS = {draft: ControlCodec(profile) for draft, profile in PROFILES.items()}


def ids(record):
    return f"{record['draft']}-{record['message']}-{record['hex'][:24]}"


def read(draft, data):
    buffer = StreamBuffer(data)
    found = CODECS[draft].read_untrusted(buffer, LIMITS)
    return found, bytes(buffer)


@pytest.mark.parametrize("record", CONTROL, ids=ids)
def test_records(record):
    """Each record decodes to its fields, and encodes back byte for byte."""
    draft, wire = record["draft"], bytes.fromhex(record["hex"])
    found, left = read(draft, wire)
    assert found == message(record)
    assert left == b""
    if record["verified"]:
        assert CODECS[draft].encode(found) == wire


@pytest.mark.parametrize("record", CONTROL, ids=ids)
def test_cut_anywhere(record):
    """Up to its last byte a message is not there, and nothing is taken; bytes behind it are left."""
    draft, wire = record["draft"], bytes.fromhex(record["hex"])
    buffer = StreamBuffer()
    for index in range(len(wire) - 1):
        buffer.feed(wire[index : index + 1])
        assert CODECS[draft].read_untrusted(buffer, LIMITS) is None
    buffer.feed(wire[-1:] + wire)
    assert CODECS[draft].read_untrusted(buffer, LIMITS) == message(record)
    assert bytes(buffer) == wire


def resized(draft, wire, change):
    """Return a message with its body changed, and its length with it."""
    _, start = CODECS[draft].split_type(wire)
    body = change(wire[start + 2 :])
    return wire[:start] + len(body).to_bytes(2, "big") + body


@pytest.mark.parametrize("record", CONTROL, ids=ids)
def test_bodies_of_another_length(record):
    """A body that ends early, at any byte, or has a byte too many, is refused, or is another message that is whole.

    Lists that reach to the end of a message, properties and options, may end early between two pairs.
    """
    draft, wire = record["draft"], bytes.fromhex(record["hex"])
    _, start = CODECS[draft].split_type(wire)
    for size in range(len(wire) - start - 2):
        check_refused_or_whole(draft, resized(draft, wire, lambda body, size=size: body[:size]))
    for extra in (b"\0", b"\x7f", b"\xff"):
        check_refused_or_whole(draft, resized(draft, wire, lambda body, extra=extra: body + extra))


def check_refused_or_whole(draft, wire):
    try:
        found, left = read(draft, wire)
    except (Malformed, LimitExceeded):
        return
    assert left == b""
    assert CODECS[draft].encode(found) == wire


@pytest.mark.parametrize("draft", PROFILES)
def test_an_unknown_type_ends_the_session(draft):
    """A message of a type that the draft lacks cannot be skipped."""
    with pytest.raises(Malformed) as caught:
        read(draft, b"\x3f\x00\x00")
    assert caught.value.scope == "session"
