"""PUBLISH_NAMESPACE, as aiomoqt and moq-rs wrote it, and what is refused."""

from __future__ import annotations

import pytest

from moqt_trio.codes import SessionCode, StreamCode
from moqt_trio.errors import LocalProtocolError, RemoteProtocolError
from moqt_trio.limits import Limits
from moqt_trio.path import BroadcastPath
from moqt_trio.protocol.events import Announced, RequestCancelled
from moqt_trio.wire.messages import StreamKind
from tests.protocol.ietf.test_machines import DRAFTS, EACH_DRAFT, asked, core, feed

# Both are the same on drafts 18, 20 and 22; that of aiomoqt has a token.
AIOMOQT = "06000e0002016101620103050300746f6b"
MOQ_RS = "06000e02020470656572056b6e6f776e00"
REQUEST_OK = "07000100"


@pytest.mark.parametrize(("wire", "path"), [(AIOMOQT, "a/b"), (MOQ_RS, "peer/known")], ids=["aiomoqt", "moq-rs"])
@pytest.mark.parametrize("name", [name for name in DRAFTS if name != "moqt-17"])
def test_an_announcement(name, wire, path):
    """It is accepted with REQUEST_OK, which is its only answer, and lasts until the peer resets the stream."""
    stream = core(name, is_client=False).accept_bidi()
    assert feed(stream, wire) == [Announced(BroadcastPath.parse(path))]
    assert stream.kind is StreamKind.ANNOUNCE
    machine = stream.machine
    assert machine.path == path
    assert machine.accept().hex() == REQUEST_OK
    with pytest.raises(LocalProtocolError):
        machine.accept()
    assert machine.receive_reset(1) == [RequestCancelled(1)]
    assert machine.accept() == b""


@EACH_DRAFT
def test_how_it_ends(name):
    """STOP_SENDING ends it in every draft, a FIN up to draft 18."""
    wire = "0600080000020161016200" if name == "moqt-17" else "06000700020161016200"
    stream = core(name, is_client=False).accept_bidi()
    assert len(feed(stream, wire)) == 1
    machine = stream.machine
    machine.accept()
    by_fin = [RequestCancelled(None)] if name in ("moqt-17", "moqt-18") else []
    assert feed(stream, "", fin=True) == by_fin
    assert machine.receive_stop(1) == ([] if by_fin else [RequestCancelled(1)])


def test_byte_by_byte():
    """Nothing is announced before the last byte."""
    stream = core(is_client=False).accept_bidi()
    for byte in bytes.fromhex(AIOMOQT)[:-1]:
        assert stream.receive_data(bytes([byte]), False) == []
    assert feed(stream, AIOMOQT[-2:]) == [Announced(BroadcastPath.parse("a/b"))]


@pytest.mark.parametrize("wire", ["060003000000", "06000700020161012f00"], ids=["no field", "a slash"])
def test_namespaces_that_no_path_is(wire):
    """The request alone is refused."""
    stream = core(is_client=False).accept_bidi()
    with pytest.raises(RemoteProtocolError) as caught:
        feed(stream, wire)
    assert (caught.value.scope, caught.value.code) == ("stream", StreamCode.UNROUTABLE)


@pytest.mark.parametrize(
    ("wire", "code"),
    [("06000701020161016200", 4), (AIOMOQT[:8] + "00" + AIOMOQT[8:], SessionCode.PROTOCOL_VIOLATION)],
    ids=["the request id of a server", "bytes left"],
)
def test_mistakes_that_end_the_session(wire, code):
    """A wrong request id, and a message that is not as long as it says."""
    stream = core(is_client=False).accept_bidi()
    with pytest.raises(RemoteProtocolError) as caught:
        feed(stream, wire)
    assert (caught.value.scope, caught.value.code) == ("session", code)


def test_messages_behind_it():
    """An update is refused with its request, anything else ends the session."""
    stream, _ = asked(AIOMOQT)
    with pytest.raises(RemoteProtocolError) as caught:
        feed(stream, "0200020200")
    assert caught.value.scope == "stream"
    stream, _ = asked(AIOMOQT)
    with pytest.raises(RemoteProtocolError) as caught:
        feed(stream, AIOMOQT)
    assert caught.value.scope == "session"


def test_how_many_there_may_be():
    """`Limits.max_announcements` bounds them; one that has ended makes room."""
    side = core(is_client=False, limits=Limits(max_announcements=2))
    streams = [side.accept_bidi() for _ in range(3)]
    for number, stream in enumerate(streams[:2]):
        feed(stream, f"0600070{2 * number}020161016200")
    with pytest.raises(RemoteProtocolError) as caught:
        feed(streams[2], "06000704020161016200")
    assert caught.value.scope == "stream"
    streams[0].machine.release()
    assert len(feed(side.accept_bidi(), "06000706020161016200")) == 1
