"""Group streams, both ends: frames in order, whatever the cut, and groups that were not asked for."""

from __future__ import annotations

import pytest

import moqt_trio
from moqt_trio.codes import SessionCode, StreamCode
from moqt_trio.errors import LimitExceeded, LocalProtocolError, Malformed, RemoteProtocolError
from moqt_trio.limits import Limits
from moqt_trio.protocol.events import FramesReceived, GroupFinished, GroupReset, GroupStarted
from moqt_trio.protocol.group import GroupReceiver
from tests.protocol.harness import NEW, OLD, core, pair
from tests.wire.strict import Frame

# A group as moq-rs sends it, stream type in front: subscription 0, group 4, "abc" and an empty frame.
GROUP = {
    **dict.fromkeys(OLD, "00020004" + "03616263" + "00"),
    "moq-lite-05": "00020004" + "671003616263" + "47cf00",
    "moq-lite-06": "0003000400" + "671003616263" + "47cf00",
}
HEADER = {**dict.fromkeys(OLD + NEW[:1], 4), "moq-lite-06": 5}


def frames_of(name: str) -> list[Frame]:
    """Returns the frames of the group above."""
    return [Frame(b"abc", 5000), Frame(b"", 4000)] if name in NEW else [Frame(b"abc"), Frame(b"")]


def subscribed(name: str, **kwargs):
    """Returns a core with one subscription, and its machine."""
    side = core(name, **kwargs)
    return side, side.subscribe("demo/cam", "events")


def test_a_whole_group(name):
    """Header, frames and FIN in one chunk are three events, and each frame has its size on the wire."""
    side, _ = subscribed(name)
    stream = side.accept_uni()
    events = stream.receive_data(bytes.fromhex(GROUP[name]), True)
    assert events == [GroupStarted(0, 4, 0), FramesReceived(frames_of(name)), GroupFinished()]
    machine = stream.machine
    assert isinstance(machine, GroupReceiver)
    assert machine.header_bytes == HEADER[name]
    sizes = sum(events[1].sizes)
    assert machine.header_bytes + sizes == len(GROUP[name]) // 2


def test_one_event_for_each_chunk_with_frames(name):
    """Frames that a chunk completes come together; a chunk that completes none has no event."""
    side, _ = subscribed(name)
    stream = side.accept_uni()
    data = bytes.fromhex(GROUP[name])
    head = HEADER[name]
    assert stream.receive_data(data[: head - 1], False) == []
    assert stream.machine.frames is None
    assert stream.receive_data(data[head - 1 : head], False) == [GroupStarted(0, 4, 0)]
    assert stream.machine.frames.pending_bytes == 0
    assert stream.receive_data(data[head : head + 2], False) == []
    assert stream.machine.frames.pending_bytes == 2
    assert stream.receive_data(data[head + 2 :], False) == [FramesReceived(frames_of(name))]
    assert stream.receive_data(b"", False) == []
    assert stream.receive_data(b"", True) == [GroupFinished()]


def test_an_empty_group_finishes(name):
    """A group may have no frames."""
    side, _ = subscribed(name)
    assert side.accept_uni().receive_data(bytes.fromhex(GROUP[name])[: HEADER[name]], True) == [
        GroupStarted(0, 4, 0),
        GroupFinished(),
    ]


def test_groups_may_come_before_the_answer_and_after_fin(name):
    """A subscription accepts groups from its making to its release, whatever arrives on its own stream."""
    side, machine = subscribed(name)
    assert side.accept_uni().receive_data(bytes.fromhex(GROUP[name]), True)
    machine.receive_data(b"", True)
    assert side.accept_uni().receive_data(bytes.fromhex(GROUP[name]), True)


def test_what_we_send_is_what_we_read(name):
    """A sender's bytes, in any number of calls, are the frames that the other side reads."""
    client, server = pair(name)
    server.accept_bidi().receive_data(client.subscribe("a", "t").opening, False)
    sender = server.group(0, 4)
    assert (sender.subscribe_id, sender.sequence) == (0, 4)
    data = sender.opening + sender.frames(frames_of(name)[:1]) + sender.frames([]) + sender.frames(frames_of(name)[1:])
    assert data.hex() == GROUP[name]
    assert sender.receive_stop(0) == sender.receive_reset(0) == sender.receive_data(b"", True) == []
    sender.release()


@pytest.mark.parametrize("name", NEW)
def test_a_frame_without_a_timestamp_has_the_one_before(name):
    """None repeats the timestamp before it, in one call or in several."""
    client, server = pair(name)
    server.accept_bidi().receive_data(client.subscribe("a", "t").opening, False)
    sender = server.group(0, 4)
    data = (
        sender.opening + sender.frames([Frame(b"a", 10), Frame(b"b")]) + sender.frames([Frame(b"c"), Frame(b"d", 11)])
    )
    [_, frames] = client.accept_uni().receive_data(data, False)
    assert [frame.timestamp for frame in frames.frames] == [10, 10, 10, 11]


@pytest.mark.parametrize("name", NEW)
def test_frames_that_cannot_be_carried_are_as_if_never_given(name):
    """After `LocalProtocolError` no frame of that call counts: the next timestamp is relative to the last sent one."""
    client, server = pair(name)
    server.accept_bidi().receive_data(client.subscribe("a", "t").opening, False)
    sender = server.group(0, 4)
    data = sender.opening + sender.frames([Frame(b"a", 10)])
    with pytest.raises(LocalProtocolError):
        sender.frames([Frame(b"b", 500), Frame(b"c", 1 << 62)])
    [_, frames] = client.accept_uni().receive_data(data + sender.frames([Frame(b"d", 12)]), False)
    assert [frame.timestamp for frame in frames.frames] == [10, 12]


def test_a_group_that_starts_later():
    """In moq-lite-06 a group may start at a later frame; before, that can't be expressed."""
    client, server = pair("moq-lite-06")
    server.accept_bidi().receive_data(client.subscribe("a", "t").opening, False)
    assert client.accept_uni().receive_data(server.group(0, 1, 2).opening, False) == [GroupStarted(0, 1, 2)]
    client, server = pair("moq-lite-05")
    server.accept_bidi().receive_data(client.subscribe("a", "t").opening, False)
    with pytest.raises(LocalProtocolError, match="first frame"):
        server.group(0, 1, 2)


def test_groups_are_sent_only_to_subscriptions_that_are_open(name):
    """A group for an id that the peer never used, or that was released, is the caller's mistake."""
    client, server = pair(name)
    with pytest.raises(LocalProtocolError, match="no subscription 0"):
        server.group(0, 0)
    stream = server.accept_bidi()
    stream.receive_data(client.subscribe("a", "t").opening, False)
    assert server.group(0, 0).opening
    stream.release()
    with pytest.raises(LocalProtocolError, match="no subscription 0"):
        server.group(0, 1)


def test_late_groups_are_refused_without_harm(name):
    """Groups of a released subscription get CANCELLED on their stream, any number of them, and are not counted."""
    side, machine = subscribed(name, limits=Limits(max_unknown_groups=1))
    machine.release()
    machine.release()
    for _ in range(5):
        stream = side.accept_uni()
        with pytest.raises(RemoteProtocolError) as caught:
            stream.receive_data(bytes.fromhex(GROUP[name]), True)
        assert (caught.value.scope, caught.value.code) == ("stream", StreamCode.CANCELLED)
        assert stream.receive_data(b"late", True) == stream.receive_reset(0) == stream.receive_stop(0) == []
        stream.release()
    assert side._state.issued.unknown_groups == 0


def test_as_many_unknown_groups_as_the_limit(name):
    """Groups for ids that never were are refused on their stream; one more than the bound ends the session."""
    side = core(name, limits=Limits(max_unknown_groups=2))
    for count in (1, 2):
        with pytest.raises(RemoteProtocolError) as caught:
            side.accept_uni().receive_data(bytes.fromhex(GROUP[name]), True)
        assert (caught.value.scope, caught.value.code) == ("stream", StreamCode.CANCELLED)
        assert side._state.issued.unknown_groups == count
    with pytest.raises(LimitExceeded) as caught:
        side.accept_uni().receive_data(bytes.fromhex(GROUP[name]), True)
    assert (caught.value.limit, caught.value.scope, caught.value.code) == (
        "max_unknown_groups",
        "session",
        SessionCode.PROTOCOL_VIOLATION,
    )


def test_fin_inside_the_group_is_an_error_of_the_stream(name):
    """A FIN anywhere but after the header or a frame makes the group malformed."""
    data = bytes.fromhex(GROUP[name])
    first_frame = HEADER[name] + (6 if name in NEW else 4)
    for cut in range(1, len(data)):
        if cut in (HEADER[name], first_frame):
            continue
        side, _ = subscribed(name)
        with pytest.raises(Malformed) as caught:
            side.accept_uni().receive_data(data[:cut], True)
        assert (caught.value.scope, caught.value.code) == ("stream", StreamCode.MALFORMED_TRACK)


def test_a_header_that_does_not_decode_breaks_only_its_stream(name):
    """A header with a byte too many is an error of the group's stream."""
    side, _ = subscribed(name)
    with pytest.raises(Malformed) as caught:
        side.accept_uni().receive_data(bytes.fromhex("000400040000"), False)
    assert caught.value.scope == "stream"


def test_as_long_a_frame_as_the_limit(name):
    """A frame of `max_frame` bytes is read; the length of one more is refused before its bytes come."""
    side, _ = subscribed(name, limits=Limits(max_frame=3))
    header = bytes.fromhex(GROUP[name])[: HEADER[name]]
    delta = b"\x00" if name in NEW else b""
    [_, frames] = side.accept_uni().receive_data(header + delta + b"\x03abc", False)
    assert frames.frames[0].payload == b"abc"
    stream = side.accept_uni()
    with pytest.raises(LimitExceeded, match="max_frame") as caught:
        stream.receive_data(header + delta + b"\x04", False)
    assert caught.value.scope == "stream"
    assert stream.receive_data(b"abcd", True) == []


def test_reset_gives_the_group_up(name):
    """A reset after the header resets the group; before it there was none, and after FIN it has no event."""
    side, _ = subscribed(name)
    data = bytes.fromhex(GROUP[name])
    for cut, expected in [(0, []), (1, []), (2, []), (HEADER[name], [GroupReset(2)]), (len(data) - 1, [GroupReset(2)])]:
        stream = side.accept_uni()
        stream.receive_data(data[:cut], False)
        assert stream.receive_reset(2) == expected
        assert stream.receive_reset(2) == stream.receive_data(data, True) == []
    stream = side.accept_uni()
    stream.receive_data(data, True)
    assert stream.receive_reset(2) == stream.receive_data(b"x", False) == []


def test_a_released_group_ignores_its_input_and_holds_nothing(name):
    """After release, late bytes are ignored and nothing is pending."""
    side, _ = subscribed(name)
    for cut in (1, 2, HEADER[name] + 1):
        stream = side.accept_uni()
        stream.receive_data(bytes.fromhex(GROUP[name])[:cut], False)
        stream.release()
        stream.release()
        assert stream.machine.frames is stream.machine._head is None
        assert stream.receive_data(b"\xff" * 9, True) == stream.receive_reset(1) == []


def test_frames_are_equal_whatever_they_took_on_the_wire():
    """The sizes are bookkeeping: they do not make two events different, and a timestamp does."""
    assert FramesReceived([moqt_trio.Frame(b"a", 1)], [9]) == FramesReceived([moqt_trio.Frame(b"a", 1)])
    assert FramesReceived([moqt_trio.Frame(b"a", 1)]) != FramesReceived([moqt_trio.Frame(b"a", 2)])
