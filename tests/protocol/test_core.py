"""The session core: stream types, datagrams, and its attributes."""

from __future__ import annotations

import pytest

from moqt_trio.codes import StreamCode
from moqt_trio.errors import LocalProtocolError, RemoteProtocolError
from moqt_trio.limits import Limits
from moqt_trio.protocol.core import MAX_DATAGRAM, SessionCore
from moqt_trio.protocol.events import DatagramReceived
from moqt_trio.wire.messages import StreamKind
from tests.protocol.harness import NEW, OLD, core, pair, version
from tests.wire.strict import Frame

KNOWN = {
    "moq-lite-03": ({1, 2, 3, 4}, {0}),
    "moq-lite-04": ({1, 2, 3, 4, 5}, {0}),
    "moq-lite-05": ({1, 2, 3, 4, 5, 6}, {0, 1}),
    "moq-lite-06": ({1, 2, 3, 4, 5, 6}, {0, 1}),
}


def test_what_a_core_is(name):
    """A core has the attributes that it was made with, and a repr."""
    side = SessionCore(version(name), is_client=True)
    assert (side.dialect.name, side.is_client, side.limits, side.hop_id) == (name, True, Limits(), 0)
    side.subscribe("a", "t")
    assert repr(side) == f"<SessionCore client {name}: 1 subscriptions of ours, 0 of the peer's>"
    assert repr(core(name, is_client=False)).startswith("<SessionCore server")


@pytest.mark.parametrize("bidi", [True, False])
def test_stream_types(name, bidi):
    """Each known type has its kind; an unknown one breaks its stream only, in any encoding, and is then ignored."""
    for number in range(10):
        for encoded in (bytes([number]), bytes([0x40, number])):
            side = core(name)
            stream = side.accept_bidi() if bidi else side.accept_uni()
            for piece in encoded[:-1]:
                assert stream.receive_data(bytes([piece]), False) == []
            if number in KNOWN[name][0 if bidi else 1]:
                stream.receive_data(encoded[-1:], False)
                assert isinstance(stream.kind, StreamKind)
                assert stream.machine is not None
                continue
            with pytest.raises(RemoteProtocolError, match="unknown type") as caught:
                stream.receive_data(encoded[-1:], False)
            assert (caught.value.scope, caught.value.code) == ("stream", StreamCode.CANCELLED)
            assert stream.kind is None
            assert stream.receive_data(b"x", True) == stream.receive_reset(0) == stream.receive_stop(0) == []
            stream.release()


@pytest.mark.parametrize("bidi", [True, False])
@pytest.mark.parametrize("sent", [b"", b"\x40", b"\xc0\x00\x00\x00\x00\x00\x00"])
@pytest.mark.parametrize(
    "end",
    [
        lambda stream: stream.receive_data(b"", True),
        lambda stream: stream.receive_reset(1),
        lambda stream: stream.receive_stop(1),
        lambda stream: stream.release() or [],
    ],
)
def test_a_stream_that_ends_before_its_type_was_never_there(name, bidi, sent, end):
    """No event, no error, and what still arrives is ignored."""
    side = core(name)
    stream = side.accept_bidi() if bidi else side.accept_uni()
    assert stream.receive_data(sent, False) == []
    assert end(stream) == []
    assert stream.receive_data(b"\x07\x07", True) == []
    assert stream.machine is None


def test_both_roles_on_both_sides(name):
    """Client and server subscribe to each other with the same ids, which are independent."""
    for one, other in (pair(name), pair(name)[::-1]):
        machine = one.subscribe("a", "t")
        back = other.subscribe("b", "t")
        assert machine.subscribe_id == back.subscribe_id == 0
        other.accept_bidi().receive_data(machine.opening, False)
        one.accept_bidi().receive_data(back.opening, False)
        assert one.accept_uni().receive_data(other.group(0, 0).opening, False)
        assert other.accept_uni().receive_data(one.group(0, 0).opening, False)


@pytest.mark.parametrize("name", NEW)
def test_datagrams(name):
    """A datagram has the bytes of moq-rs, and reads back as a group of one frame."""
    client, server = pair(name)
    for _ in range(8):
        subscription = client.subscribe("a", "t")
        server.accept_bidi().receive_data(subscription.opening, False)
    data = server.datagram(7, 1, 7000, b"dgram")
    assert data.hex() == "07015b58646772616d"
    assert client.receive_datagram(data) == DatagramReceived(7, 1, Frame(b"dgram", 7000))
    subscription.release()
    assert client.receive_datagram(data) is None
    assert client.dropped_datagrams == 1


@pytest.mark.parametrize("name", NEW)
def test_as_long_a_datagram_as_fits(name):
    """A body of 1200 bytes is sent and read; one more is refused here and dropped there."""
    client, server = pair(name)
    server.accept_bidi().receive_data(client.subscribe("a", "t").opening, False)
    longest = b"x" * (MAX_DATAGRAM - 3)
    data = server.datagram(0, 1, 1, longest)
    assert len(data) == MAX_DATAGRAM
    assert client.receive_datagram(data) is not None
    with pytest.raises(LocalProtocolError, match="1200"):
        server.datagram(0, 1, 1, longest + b"x")
    assert client.receive_datagram(data + b"x") is None
    assert client.dropped_datagrams == 1


def test_datagrams_of_no_use_are_dropped(name):
    """Undecodable ones, unknown ids and all of them in versions without datagrams: dropped and counted, no error."""
    side = core(name)
    side.subscribe("a", "t")
    for data in (b"", b"\x00", b"\xff", bytes.fromhex("07015b58646772616d")):
        assert side.receive_datagram(data) is None
    assert side.dropped_datagrams == 4


def test_a_datagram_needs_a_subscription(name):
    """Sending one without a subscription, or in a version without them, is the caller's mistake."""
    client, server = pair(name)
    with pytest.raises(LocalProtocolError, match="no subscription"):
        server.datagram(0, 0, 0, b"")
    if name in OLD:
        server.accept_bidi().receive_data(client.subscribe("a", "t").opening, False)
        with pytest.raises(LocalProtocolError, match="no datagrams"):
            server.datagram(0, 0, 0, b"")
