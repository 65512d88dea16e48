"""The handshake of the versions up to moq-lite-02, in each of its forms: what is refused, and what is tolerated."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moqt_trio.errors import LimitExceeded, LocalProtocolError, Malformed
from moqt_trio.limits import Limits
from moqt_trio.wire.buffer import StreamBuffer
from moqt_trio.wire.handshake import (
    PATH,
    HandshakeForm,
    encode_client,
    encode_server,
    read_client_untrusted,
    read_server_untrusted,
)
from moqt_trio.wire.messages import SessionClient, SessionServer

LIMITS = Limits()
UNFRAMED, PREFIXED, TYPED, COMPAT = HandshakeForm
DEVELOP, TRANSFORK, LITE_01, LITE_02 = "c0000000ffffff00", "c0000000ff0bad03", "c0000000ff0dad01", "c0000000ff0dad02"

each_form = pytest.mark.parametrize("form", HandshakeForm)


def client(wire: str, limits: Limits = LIMITS):
    return read_client_untrusted(StreamBuffer(bytes.fromhex(wire)), limits)


def server(form: HandshakeForm, wire: str, limits: Limits = LIMITS):
    return read_server_untrusted(form, StreamBuffer(bytes.fromhex(wire)), limits)


# The same offer with a path in the four forms: the bytes are put together by hand from the table in `handshake.py`.
OFFERS = {
    UNFRAMED: "00" + "01" + TRANSFORK + "01" + "01052f6563686f",
    PREFIXED: "00" + "11" + "01" + DEVELOP + "01" + "01052f6563686f",
    TYPED: "4040" + "11" + "01" + LITE_01 + "01" + "01052f6563686f",
    COMPAT: "20" + "0011" + "01" + LITE_01 + "01" + "01052f6563686f",
}
ANSWERS = {
    UNFRAMED: TRANSFORK + "00",
    PREFIXED: "09" + DEVELOP + "00",
    TYPED: "4041" + "09" + LITE_01 + "00",
    COMPAT: "21" + "0009" + LITE_01 + "00",
}


def numbers(form: HandshakeForm) -> int:
    return {UNFRAMED: 0xFF0BAD03, PREFIXED: 0xFFFFFF00}.get(form, 0xFF0DAD01)


@each_form
def test_forms(form):
    """Each form is recognised by its first bytes and written in the same way."""
    opening = SessionClient((numbers(form),), ((PATH, b"/echo"),))
    assert client(OFFERS[form]) == (form, opening)
    assert encode_client(form, opening).hex() == OFFERS[form]
    answer = SessionServer(numbers(form))
    assert server(form, ANSWERS[form]) == answer
    assert encode_server(form, answer).hex() == ANSWERS[form]


@each_form
def test_cut_anywhere(form):
    """Until the last byte there is nothing to read, and nothing is taken."""
    for wire, read in (
        (OFFERS[form], lambda buffer: read_client_untrusted(buffer, LIMITS)),
        (ANSWERS[form], lambda buffer: read_server_untrusted(form, buffer, LIMITS)),
    ):
        data = bytes.fromhex(wire)
        for cut in range(len(data)):
            buffer = StreamBuffer(data[:cut])
            assert read(buffer) is None
            assert len(buffer) == cut


@pytest.mark.parametrize(("form", "length"), [(PREFIXED, "{:02x}"), (TYPED, "4040{:02x}"), (COMPAT, "20{:04x}")])
def test_an_opening_whose_length_is_wrong(form, length):
    """A body that is longer or shorter than its fields is Malformed."""
    head = "00" if form is PREFIXED else ""
    body = "01" + LITE_01 + "01" + "01052f6563686f"
    assert client(head + length.format(17) + body)[0] is form
    with pytest.raises(Malformed, match="1 bytes too many"):
        client(head + length.format(18) + body + "00")
    for size in range(1, 17):
        if (form, size) != (PREFIXED, 9):
            with pytest.raises(Malformed):
                client(head + length.format(size) + body)


@pytest.mark.parametrize(("form", "length"), [(PREFIXED, "{:02x}"), (TYPED, "4041{:02x}"), (COMPAT, "21{:04x}")])
def test_an_answer_whose_length_is_wrong(form, length):
    """A body that is longer or shorter than its fields is Malformed."""
    body = LITE_01 + "00"
    with pytest.raises(Malformed, match="1 bytes too many"):
        server(form, length.format(10) + body + "00")
    for size in range(9):
        if (form, size) != (PREFIXED, 8):
            with pytest.raises(Malformed):
                server(form, length.format(size) + body)


@pytest.mark.parametrize(
    ("wire", "problem"),
    [
        ("01", "does not start with 0x1"),
        ("21" + "0009" + LITE_01 + "00", "does not start with 0x21"),
        ("4041", "does not start with 0x41"),
        ("0000", "offers no version"),
        ("20" + "000a" + "02" + LITE_01 + "00", "ends where a varint is due"),
        ("20" + "000c" + "01" + LITE_01 + "01" + "0105", "a field of 5 bytes where 0 are left"),
        ("00" + "0b" + "01" + DEVELOP + "40" + "01", "announces 1 items in 0 bytes"),
    ],
)
def test_what_is_no_opening(wire, problem):
    """A first stream that starts otherwise, or whose fields can't be, breaks the session."""
    with pytest.raises(Malformed, match=problem) as caught:
        client(wire)
    assert (caught.value.scope, caught.value.code) == ("session", 3)


def test_what_is_no_answer():
    """An answer to the typed form is typed."""
    with pytest.raises(Malformed, match="does not answer with 0x9"):
        server(TYPED, ANSWERS[PREFIXED])


def test_a_compat_client_takes_a_native_answer():
    """Servers that know the native form may answer in it, whatever the client's (as seen from moq-rs)."""
    assert server(COMPAT, "09" + LITE_01 + "00") == SessionServer(0xFF0DAD01)
    for cut in range(10):
        assert server(COMPAT, ("09" + LITE_01 + "00")[: 2 * cut]) is None


def test_parameters_may_be_missing_in_one_form():
    """Without even their count, parameters are None: gomoqt writes a nil map as no byte at all."""
    assert client("00" + "09" + "01" + DEVELOP) == (PREFIXED, SessionClient((0xFFFFFF00,), None))
    assert server(PREFIXED, "08" + DEVELOP) == SessionServer(0xFFFFFF00, None)
    for form in (UNFRAMED, TYPED, COMPAT):
        with pytest.raises(LocalProtocolError, match="always has parameters"):
            encode_server(form, SessionServer(1, None))


def test_even_parameters_are_numbers_in_one_form():
    """In the form of moq-transport the value of an even id is a number; in the others every value is bytes."""
    wire = "20" + "0016" + "01" + LITE_02 + "02" + "02" + "80010000" + "01052f6563686f"
    message = SessionClient((0xFF0DAD02,), ((2, 0x10000), (1, b"/echo")))
    assert client(wire) == (COMPAT, message)
    assert encode_client(COMPAT, message).hex() == wire
    with pytest.raises(LocalProtocolError, match="parameter 0x2 is a number"):
        encode_client(COMPAT, SessionClient((1,), ((2, b"x"),)))
    with pytest.raises(LocalProtocolError, match="parameter 0x1 is bytes"):
        encode_client(COMPAT, SessionClient((1,), ((1, 5),)))
    with pytest.raises(LocalProtocolError, match="parameter 0x2 is bytes"):
        encode_client(UNFRAMED, SessionClient((1,), ((2, 5),)))


def test_two_byte_length():
    """The length of the compat form has two bytes, and what does not fit in them is refused."""
    assert len(encode_client(COMPAT, SessionClient((1,), ((1, bytes(65527)),)))) == 3 + 65535
    with pytest.raises(LocalProtocolError, match="65535"):
        encode_client(COMPAT, SessionClient((1,), ((1, bytes(65528)),)))


@pytest.mark.parametrize(
    ("wire", "limit"),
    [
        ("00" + "ffffffffffffffff" + "01", "max_message"),
        ("4040" + "ffffffffffffffff", "max_message"),
        ("20" + "0065", "max_message"),
        ("00" + "0b" + "03" + DEVELOP + "00" + "00", "max_parameters"),
        ("00" + "03" + TRANSFORK, "max_parameters"),
        ("00" + "01" + TRANSFORK + "03", "max_parameters"),
        ("00" + "01" + TRANSFORK + "01" + "01" + "4065", "max_message"),
        ("00" + "01" + TRANSFORK + "01" + "01" + "4063", "max_message"),
    ],
)
def test_limits(wire, limit):
    """A length or a count over its bound fails as soon as it is there, without waiting for what it announces."""
    with pytest.raises(LimitExceeded) as caught:
        client(wire, attrs.evolve(LIMITS, max_message=100, max_parameters=2))
    assert (caught.value.limit, caught.value.scope) == (limit, "session")


@given(st.binary(max_size=64), st.sampled_from([b"", b"\x00", b"\x20\x00", b"\x40\x40"]))
def test_any_bytes(data, head):
    """Whatever a client sends is waited for, read, or refused with a documented exception."""
    limits = attrs.evolve(LIMITS, max_message=64)
    for read in (
        lambda buffer: read_client_untrusted(buffer, limits),
        *(lambda buffer, form=form: read_server_untrusted(form, buffer, limits) for form in HandshakeForm),
    ):
        buffer = StreamBuffer(head + data)
        error = None
        try:
            found = read(buffer)
        except (Malformed, LimitExceeded) as refused:
            error = refused
        assert error.scope == "session" if error else (found is None) == (len(buffer) == len(head + data))
