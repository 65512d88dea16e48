"""Fetch streams, both ends: one request, the frames, FIN."""

from __future__ import annotations

import pytest

from moqt_trio.codes import StreamCode
from moqt_trio.errors import LimitExceeded, LocalProtocolError, Malformed, RemoteProtocolError
from moqt_trio.limits import Limits
from moqt_trio.protocol.events import (
    FetchRequested,
    FramesReceived,
    RequestCancelled,
    RequestFinished,
    RequestRefused,
)
from moqt_trio.protocol.fetch import FetchResponder
from moqt_trio.wire.messages import Fetch
from tests.protocol.harness import NEW, OLD, core, path_of
from tests.wire.strict import Frame

# As moq-rs sends it, the stream type in front.
REQUEST = {
    **dict.fromkeys(OLD + NEW[:1], "03120864656d6f2f63616d066576656e74730001"),
    "moq-lite-06": "03140864656d6f2f63616d066576656e747300010000",
}
# Ours differs in one: gomoqt, which speaks that version only, accepts no path without a slash before it.
OPENING = {**REQUEST, "moq-lite-04": "0313092f64656d6f2f63616d066576656e74730001"}
REPLY = {**dict.fromkeys(OLD, "0361626300"), **dict.fromkeys(NEW, "67100361626347cf00")}


def frames_of(name: str) -> list[Frame]:
    """Returns the frames of the reply above."""
    return [Frame(b"abc", 5000), Frame(b"", 4000)] if name in NEW else [Frame(b"abc"), Frame(b"")]


def publisher(name: str) -> FetchResponder:
    """Returns a publisher's machine with the request above."""
    stream = core(name, is_client=False).accept_bidi()
    assert stream.receive_data(bytes.fromhex(REQUEST[name]), False) == [
        FetchRequested(path_of("demo/cam"), Fetch("demo/cam", "events", 0, 1))
    ]
    assert isinstance(stream.machine, FetchResponder)
    return stream.machine


def test_request_and_reply(name):
    """Both sides have the bytes that peers understand, and the reply reads as it was written."""
    subscriber = core(name).fetch("demo//cam", "events", 1)
    assert subscriber.opening.hex() == OPENING[name]
    machine = publisher(name)
    data = machine.frames(frames_of(name)[:1]) + machine.frames(frames_of(name)[1:])
    assert data.hex() == REPLY[name]
    assert subscriber.receive_data(data, True) == [FramesReceived(frames_of(name)), RequestFinished()]
    assert subscriber.receive_data(b"x", True) == subscriber.receive_reset(0) == subscriber.receive_stop(0) == []


def test_a_range_of_frames():
    """In moq-lite-06 a fetch may name frames; an empty range is refused on both sides."""
    side = core("moq-lite-06")
    machine = side.fetch("live/cam", "events", 0, priority=1, start_frame=1, end_frame=1)
    assert machine.opening.hex() == "0314086c6976652f63616d066576656e747301000102"
    [event] = core("moq-lite-06").accept_bidi().receive_data(machine.opening, False)
    assert event.request == Fetch("live/cam", "events", 1, 0, 1, 1)
    with pytest.raises(LocalProtocolError):
        side.fetch("live/cam", "events", 0, start_frame=2, end_frame=1)
    with pytest.raises(RemoteProtocolError) as caught:
        core("moq-lite-06").accept_bidi().receive_data(machine.opening[:-2] + b"\x02\x02", False)
    assert caught.value.scope == "stream"


@pytest.mark.parametrize("name", [*OLD, "moq-lite-05"])
def test_older_versions_fetch_whole_groups(name):
    """Frames can't be named before moq-lite-06, and asking for them is not ignored."""
    with pytest.raises(LocalProtocolError, match="whole group"):
        core(name).fetch("a", "t", 0, start_frame=1)


@pytest.mark.parametrize(
    ("cancel", "code"),
    [
        (lambda machine: machine.receive_data(b"", True), None),
        (lambda machine: machine.receive_reset(1), 1),
        (lambda machine: machine.receive_stop(0), 0),
    ],
)
def test_the_peer_may_cancel(name, cancel, code):
    """FIN, reset and stop cancel, once, and frames after it are b""; after `finish` they have no event."""
    machine = publisher(name)
    assert cancel(machine) == [RequestCancelled(code)]
    assert machine.receive_reset(1) == machine.receive_stop(0) == machine.receive_data(b"x", True) == []
    assert machine.frames(frames_of(name)) == b""
    machine = publisher(name)
    machine.finish()
    assert cancel(machine) == []


def test_frames_need_a_request(name):
    """Frames before the request are the caller's mistake."""
    stream = core(name).accept_bidi()
    stream.receive_data(b"\x03", False)
    with pytest.raises(LocalProtocolError, match="yet"):
        stream.machine.frames([])


@pytest.mark.parametrize("tail", [b"\x00", b"\xff"])
def test_bytes_after_the_request(name, tail):
    """More bytes after the request break the stream."""
    with pytest.raises(RemoteProtocolError) as caught:
        publisher(name).receive_data(tail, False)
    assert caught.value.scope == "stream"


def test_fin_before_the_request(name):
    """A fetch stream that finishes inside its request is broken."""
    for cut in (1, 4):
        with pytest.raises(RemoteProtocolError) as caught:
            core(name).accept_bidi().receive_data(bytes.fromhex(REQUEST[name])[:cut], True)
        assert caught.value.scope == "stream"


def test_fin_inside_a_frame(name):
    """A reply that finishes inside a frame is malformed; what came before it was delivered."""
    subscriber = core(name).fetch("a", "t", 0)
    data = bytes.fromhex(REPLY[name])[:-1] + b"\x01"
    assert subscriber.receive_data(data, False) == [FramesReceived(frames_of(name)[:1])]
    with pytest.raises(Malformed, match="FIN") as caught:
        subscriber.receive_data(b"", True)
    assert (caught.value.scope, caught.value.code) == ("stream", StreamCode.MALFORMED_TRACK)
    assert subscriber.receive_data(b"x", False) == []


def test_an_empty_reply(name):
    """A group without frames is a FIN at once."""
    assert core(name).fetch("a", "t", 0).receive_data(b"", True) == [RequestFinished()]


def test_reset_means_refused(name):
    """A reset refuses the fetch, before or between frames; STOP_SENDING has no event."""
    subscriber = core(name).fetch("a", "t", 0)
    assert subscriber.receive_stop(0) == []
    assert subscriber.receive_data(bytes.fromhex(REPLY[name]), False) == [FramesReceived(frames_of(name))]
    assert subscriber.receive_reset(0x33) == [RequestRefused(0x33)]
    assert subscriber.receive_reset(0x33) == subscriber.receive_data(b"x", True) == []


def test_a_frame_past_the_limit(name):
    """`max_frame` holds for fetched frames."""
    subscriber = core(name, limits=Limits(max_frame=2)).fetch("a", "t", 0)
    with pytest.raises(LimitExceeded, match="max_frame"):
        subscriber.receive_data(bytes.fromhex(REPLY[name]), False)


def test_a_released_fetch_ignores_its_input(name):
    """After release, late frames are ignored."""
    subscriber = core(name).fetch("a", "t", 0)
    subscriber.release()
    assert subscriber.receive_data(bytes.fromhex(REPLY[name]), True) == subscriber.receive_reset(1) == []


def test_a_path_past_the_limit(name):
    """`max_path` holds for the path of a fetch."""
    with pytest.raises(LimitExceeded, match="max_path"):
        core(name, limits=Limits(max_path=7)).accept_bidi().receive_data(bytes.fromhex(REQUEST[name]), False)
