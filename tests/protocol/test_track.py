"""Track streams, both ends: one request, one answer, and each end of the stream after it."""

from __future__ import annotations

import pytest

from moqt_trio.errors import LocalProtocolError, RemoteProtocolError
from moqt_trio.protocol.events import RequestCancelled, RequestRefused, TrackInfoRequested
from moqt_trio.protocol.track import TrackInfoResponder
from moqt_trio.wire.messages import TrackInfo
from tests.protocol.harness import NEW, OLD, core, path_of

# As moq-rs sends them, the stream type in front of the request.
REQUEST = "06100864656d6f2f63616d066576656e7473"
REPLY = {"moq-lite-05": "087f005388800f4240", "moq-lite-06": "077f5388800f4240"}
INFO = TrackInfo(127, False, 5000, 1_000_000)


def publisher(name: str) -> TrackInfoResponder:
    """Returns a publisher's machine with the request above."""
    stream = core(name, is_client=False).accept_bidi()
    assert stream.receive_data(bytes.fromhex(REQUEST), False) == [TrackInfoRequested(path_of("demo/cam"), "events")]
    assert isinstance(stream.machine, TrackInfoResponder)
    return stream.machine


@pytest.mark.parametrize("name", NEW)
def test_question_and_answer(name):
    """Both sides have the bytes of moq-rs; after its answer the publisher's STOP, FIN or reset is normal."""
    subscriber = core(name).request_track_info("/demo/cam", "events")
    assert subscriber.opening.hex() == REQUEST
    data = publisher(name).reply(INFO)
    assert data.hex() == REPLY[name]
    assert subscriber.receive_data(data, False) == [INFO]
    assert subscriber.receive_stop(0) == []
    assert subscriber.receive_data(b"", True) == []
    assert subscriber.receive_reset(0) == []


@pytest.mark.parametrize("name", NEW)
def test_stop_before_the_answer_has_no_event(name):
    """moq-rs stops reading before its answer is on the way, so the answer still counts, and so does a reset."""
    subscriber = core(name).request_track_info("a", "t")
    assert subscriber.receive_stop(0) == []
    assert subscriber.receive_data(bytes.fromhex(REPLY[name]), True) == [INFO]
    subscriber = core(name).request_track_info("a", "t")
    subscriber.receive_stop(0)
    assert subscriber.receive_reset(0x33) == [RequestRefused(0x33)]
    assert subscriber.receive_reset(0x33) == []


@pytest.mark.parametrize("name", NEW)
def test_a_reset_after_the_answer_has_no_event(name):
    """The answer has the properties of the requested track."""
    subscriber = core(name).request_track_info("a", "t")
    subscriber.receive_data(bytes.fromhex(REPLY[name]), False)
    assert subscriber.receive_reset(1) == []


@pytest.mark.parametrize("cut", [0, 1, 5])
@pytest.mark.parametrize("name", NEW)
def test_fin_before_the_answer(name, cut):
    """A publisher that finishes without an answer broke the stream."""
    with pytest.raises(RemoteProtocolError, match="FIN") as caught:
        core(name).request_track_info("a", "t").receive_data(bytes.fromhex(REPLY[name])[:cut], True)
    assert caught.value.scope == "stream"


@pytest.mark.parametrize("name", NEW)
def test_bytes_after_request_or_answer(name):
    """Neither side has a second message."""
    with pytest.raises(RemoteProtocolError) as caught:
        publisher(name).receive_data(b"\x00", False)
    assert caught.value.scope == "stream"
    subscriber = core(name).request_track_info("a", "t")
    with pytest.raises(RemoteProtocolError, match="nothing more") as caught:
        subscriber.receive_data(bytes.fromhex(REPLY[name]) * 2, False)
    assert caught.value.scope == "stream"


@pytest.mark.parametrize(
    ("cancel", "code"),
    [
        (lambda machine: machine.receive_data(b"", True), None),
        (lambda machine: machine.receive_reset(1), 1),
        (lambda machine: machine.receive_stop(0), 0),
    ],
)
@pytest.mark.parametrize("name", NEW)
def test_the_peer_may_cancel_until_it_is_answered(name, cancel, code):
    """FIN, reset and stop cancel before the answer; after it, moq-rs resets its half as a matter of course."""
    machine = publisher(name)
    assert cancel(machine) == [RequestCancelled(code)]
    assert machine.reply(INFO) == b""
    machine = publisher(name)
    machine.reply(INFO)
    assert cancel(machine) == []


@pytest.mark.parametrize("name", NEW)
def test_misuse(name):
    """One answer, after the request, with values that fit; a refused one changes nothing."""
    stream = core(name).accept_bidi()
    stream.receive_data(b"\x06", False)
    with pytest.raises(LocalProtocolError, match="yet"):
        stream.machine.reply(INFO)
    machine = publisher(name)
    with pytest.raises(LocalProtocolError):
        machine.reply(TrackInfo(timescale=0))
    assert machine.reply(INFO).hex() == REPLY[name]
    with pytest.raises(LocalProtocolError, match="before"):
        machine.reply(INFO)
    with pytest.raises(LocalProtocolError):
        core(name).request_track_info("x" * 1025, "t")


@pytest.mark.parametrize("name", NEW)
def test_fin_before_the_question(name):
    """A track stream that finishes inside its request is broken."""
    for cut in (1, 5):
        with pytest.raises(RemoteProtocolError) as caught:
            core(name).accept_bidi().receive_data(bytes.fromhex(REQUEST)[:cut], True)
        assert caught.value.scope == "stream"


@pytest.mark.parametrize("name", OLD)
def test_old_versions_have_no_track_streams(name):
    """Before moq-lite-05 the request can't be sent, and a peer's is an unknown stream."""
    with pytest.raises(LocalProtocolError, match="no track streams"):
        core(name).request_track_info("a", "t")
    with pytest.raises(RemoteProtocolError, match="unknown type"):
        core(name).accept_bidi().receive_data(bytes.fromhex(REQUEST), False)
