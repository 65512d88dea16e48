"""The cursors: nothing is read past an end, and nothing is read twice."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moqt_trio.errors import LimitExceeded, LocalProtocolError, Malformed
from moqt_trio.wire.buffer import Reader, StreamBuffer, Writer


def _reader(wire: str) -> Reader:
    return Reader(bytes.fromhex(wire), "TEST", "stream", 7)


# -- StreamBuffer -----------------------------------------------------------------------------------------------


def test_buffer_peeks_at_varints_only_when_whole():
    """A varint that is not complete is not seen, and looking takes nothing."""
    buffer = StreamBuffer(b"\x7b")
    assert buffer.peek_varint() is None
    assert len(buffer) == 1
    buffer.feed(b"\xbd\x05")
    assert buffer.peek_varint() == (15293, 2)
    assert buffer.peek_varint(2) == (5, 3)
    assert buffer.peek_varint(3) is None
    buffer.skip(2)
    assert buffer.peek_varint() == (5, 1)
    buffer.skip(1)
    assert len(buffer) == 0


def test_buffer_takes_exactly():
    """`take` gives exactly what was asked for, and refuses to give more than there is."""
    buffer = StreamBuffer(b"abcdef")
    assert buffer.take(0) == b""
    assert buffer.take(2) == b"ab"
    with pytest.raises(IndexError):
        buffer.take(5)
    with pytest.raises(IndexError):
        buffer.take(-1)
    buffer.skip(1)
    assert repr(buffer) == "<StreamBuffer 3 bytes>"
    assert buffer.take_all() == b"def"
    assert buffer.take_all() == b""


def test_buffer_keeps_no_hold_on_what_it_gave():
    """What was taken does not change when more arrives."""
    buffer = StreamBuffer(b"abc")
    taken = buffer.take_all()
    buffer.feed(b"xyz")
    assert (taken, buffer.take(3)) == (b"abc", b"xyz")


@given(st.lists(st.binary(max_size=40)), st.randoms(use_true_random=False))
def test_buffer_is_a_queue_of_bytes(chunks, random):
    """However bytes are fed and taken, they come out once and in order."""
    buffer, out = StreamBuffer(), bytearray()
    for chunk in chunks:
        buffer.feed(chunk)
        out += buffer.take(random.randint(0, len(buffer)))
    out += buffer.take_all()
    assert bytes(out) == b"".join(chunks)


def test_buffer_cost_is_linear():
    """Taking a large buffer in small pieces costs about as much for each piece as with a small one."""

    def cost(pieces):
        buffer = StreamBuffer(bytes(16 * pieces))
        start = time.process_time()
        for _ in range(pieces):
            buffer.take(16)
        return (time.process_time() - start) / pieces

    cost(1000)
    small = min(cost(2_000) for _ in range(5))
    large = min(cost(60_000) for _ in range(3))
    assert large < 8 * small  # quadratic cost would be 30 times as much


# -- Reader -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "wire", "value"),
    [
        ("u8", "c8", 200),
        ("flag", "00", False),
        ("flag", "01", True),
        ("varint", "7bbd", 15293),
        ("optional", "00", None),
        # The same number in more bytes than it needs.
        ("optional", "4000", None),
        ("optional", "c000000000000000", None),
        ("optional", "01", 0),
        ("optional", "4046", 69),
    ],
)
def test_reader_fields(method, wire, value):
    """Each kind of field reads its value, and is Malformed when it is cut anywhere."""
    reader = _reader(wire)
    assert getattr(reader, method)() == value
    reader.expect_end()
    for cut in range(0, len(wire), 2):
        with pytest.raises(Malformed):
            getattr(_reader(wire[:cut]), method)()


def test_reader_errors_carry_their_scope_and_code():
    """An error says which message is broken, and breaks what the reader was made to break."""
    with pytest.raises(Malformed, match="TEST") as malformed:
        _reader("").u8()
    with pytest.raises(LimitExceeded) as exceeded:
        _reader("05").count("max_hops", 4)
    for error in (malformed.value, exceeded.value):
        assert (error.scope, error.code) == ("stream", 7)
    assert (exceeded.value.limit, exceeded.value.value) == ("max_hops", 5)


def test_reader_flag_is_nothing_but_0_or_1():
    """A flag of 2 is Malformed."""
    with pytest.raises(Malformed):
        _reader("02").flag()


def test_reader_count_is_checked_against_the_limit_and_the_bytes():
    """A count may be as high as its limit, and no higher than the bytes after it allow."""
    assert _reader("0400000000").count("max_hops", 4) == 4
    with pytest.raises(Malformed):
        _reader("04000000").count("max_hops", 4)
    assert _reader("0200000000").count("max_parameters", 4, item_size=2) == 2
    with pytest.raises(Malformed):
        _reader("0300000000").count("max_parameters", 4, item_size=2)


def test_reader_data_and_text():
    """Bytes and text are read up to their limit, within the message, and text only when it is UTF-8."""
    assert _reader("03616263").data("max_path", 3) == b"abc"
    assert _reader("02c3a9").text("max_path", 2) == "é"
    with pytest.raises(LimitExceeded):
        _reader("03616263").data("max_path", 2)
    with pytest.raises(Malformed):
        _reader("036162").data("max_path", 3)
    with pytest.raises(Malformed, match="UTF-8"):
        _reader("02c328").text("max_path", 2)
    with pytest.raises(Malformed):
        _reader("02c3").text("max_path", 2)


def test_reader_rest_and_end():
    """`rest` takes what is left, and `expect_end` refuses what is."""
    reader = _reader("010203")
    assert reader.u8() == 1
    assert reader.remaining == 2
    with pytest.raises(Malformed, match="2 bytes too many"):
        reader.expect_end()
    assert reader.rest() == b"\x02\x03"
    reader.expect_end()


# -- Writer -----------------------------------------------------------------------------------------------------


def test_writer_fields():
    """Each kind of field is written in the form that the reader reads."""
    writer = Writer()
    writer.u8(200)
    writer.flag(True)
    writer.flag(False)
    writer.varint(15293)
    writer.optional(None)
    writer.optional(69)
    writer.data(b"ab")
    writer.text("é")
    writer.raw(b"z")
    assert writer.getvalue().hex() == "c801007bbd00404602616202c3a97a"
    assert len(writer) == 15


def test_writer_frames_its_body():
    """A length goes in front of the body, and a type in front of the length."""
    writer = Writer()
    assert writer.framed() == b"\x00"
    writer.raw(bytes(64))
    assert writer.framed() == b"\x40\x40" + bytes(64)
    assert writer.framed(2) == b"\x02\x40\x40" + bytes(64)


@pytest.mark.parametrize(
    ("method", "value"),
    [
        ("u8", -1),
        ("u8", 256),
        ("varint", -1),
        ("varint", 1 << 62),
        ("optional", -1),
        ("optional", (1 << 62) - 1),
        ("text", "\ud800"),
    ],
)
def test_writer_refuses_what_a_field_cannot_hold(method, value):
    """A value out of range is the caller's mistake, and nothing is written."""
    writer = Writer()
    with pytest.raises(LocalProtocolError):
        getattr(writer, method)(value)
    assert len(writer) == 0
