"""The subscribe stream, both ends: the request and its updates, the replies, ids, limits and how it ends."""

from __future__ import annotations

import pytest

from moqt_trio.codes import SessionCode, StreamCode
from moqt_trio.errors import LimitExceeded, LocalProtocolError, Malformed, RemoteProtocolError
from moqt_trio.limits import Limits
from moqt_trio.protocol.events import (
    RequestCancelled,
    RequestFinished,
    RequestRefused,
    SubscribeRequested,
)
from moqt_trio.protocol.subscribe import SubscribeRequester, SubscribeResponder
from moqt_trio.wire.messages import (
    Subscribe,
    SubscribeDrop,
    SubscribeEnd,
    SubscribeOk,
    SubscribeUpdate,
)
from tests.protocol.harness import NEW, OLD, core, pair, version

# As moq-rs sends it, the stream type in front: priority 200, groups 3 to 8, 1500 ms.
REQUEST = {
    **dict.fromkeys(OLD + NEW[:1], "0217000864656d6f2f63616d066576656e7473c80045dc0409"),
    "moq-lite-06": "0218000864656d6f2f63616d066576656e7473c845dc03090000",
}
# Ours differs in one: gomoqt, which speaks that version only, accepts no path without a slash before it.
OPENING = {
    **REQUEST,
    "moq-lite-04": "021800092f64656d6f2f63616d066576656e7473c80045dc0409",
    # The age that the request has is for the start alone: any; the wanted one follows in an update.
    "moq-lite-06": "021e000864656d6f2f63616d066576656e7473c8c01fffffffffffff0309000007c845dc03090000",
}
UPDATE = {**dict.fromkeys(OLD + NEW[:1], "07090047d0054046"), "moq-lite-06": "080947d00440460000"}
# The same, as moq-rs accepts it for a subscriber with priority 200.
OK = {**dict.fromkeys(OLD, "0005c800000000"), **dict.fromkeys(NEW, "000104")}
DROP = {**dict.fromkeys(OLD, "0103040603"), **dict.fromkeys(NEW, "0203040603")}
END = "010102"


def publisher(name: str, side=None) -> SubscribeResponder:
    """Returns a publisher's machine with the request above."""
    stream = (side or core(name, is_client=False)).accept_bidi()
    [event] = stream.receive_data(bytes.fromhex(REQUEST[name]), False)
    assert isinstance(event, SubscribeRequested)
    assert isinstance(stream.machine, SubscribeResponder)
    return stream.machine


def accepted_publisher(name: str) -> SubscribeResponder:
    machine = publisher(name)
    assert machine.accept(4 if name in NEW else None).hex() == OK[name]
    return machine


def subscriber(name: str) -> SubscribeRequester:
    """Returns a subscriber's machine that waits for its answer."""
    return core(name).subscribe("demo/cam", "events")


def accepted_subscriber(name: str) -> SubscribeRequester:
    machine = subscriber(name)
    [event] = machine.receive_data(bytes.fromhex(OK[name]), False)
    assert event == (SubscribeOk(4) if name in NEW else SubscribeOk(None, 200))
    return machine


# -- the publisher's side -----------------------------------------------------------------------------------


def test_the_request_is_an_event(name):
    """The request of moq-rs has its ids, its path and its range."""
    expected = Subscribe(0, "demo/cam", "events", 200, False, 1500, 3, 8)
    machine = publisher(name)
    assert machine.request == expected
    assert not machine.accepted


def test_the_path_is_canonical(name):
    """Slashes at the ends of the broadcast's path are dropped; the track's name is left as it is."""
    side = core(name)
    opening = core(name).subscribe("a/bc", "/t/").opening.replace(b"a/bc", b"/ab/")
    event, *_ = side.accept_bidi().receive_data(opening, False)
    assert (str(event.path), event.request.track) == ("ab", "/t/")


def test_each_update_is_an_event(name):
    """Each update is an event, before and after acceptance."""
    expected = SubscribeUpdate(9, False, 2000, 4, 69)
    for machine in (publisher(name), accepted_publisher(name)):
        assert machine.receive_data(bytes.fromhex(UPDATE[name]) * 2, False) == [expected, expected]


def test_replies(name):
    """OK, DROP and END have the bytes of each version; what a version lacks is b""."""
    machine = accepted_publisher(name)
    assert machine.accepted
    assert machine.drop(4, 6, 3).hex() == DROP[name]
    assert machine.end(2).hex() == (END if name in NEW else "")
    assert machine.drop(1, 1) != b""


@pytest.mark.parametrize("name", NEW)
def test_a_track_that_never_had_a_group_ends_without_ok(name):
    """From moq-lite-05 on END 0 may be the only reply; OK after it is the caller's mistake."""
    machine = publisher(name)
    assert machine.end(0).hex() == "010100"
    with pytest.raises(LocalProtocolError, match="before"):
        machine.accept(0)


@pytest.mark.parametrize("name", OLD)
def test_old_versions_may_name_the_first_group_in_ok(name):
    """Before moq-lite-05 the first group is named when the caller knows it."""
    assert publisher(name).accept(4).hex() == "0005c800000500"


def test_misuse_of_the_publisher_changes_nothing(name):
    """Replies out of order raise `LocalProtocolError`, and the right ones still work after it."""
    stream = core(name).accept_bidi()
    stream.receive_data(b"\x02", False)
    for call in (lambda: stream.machine.accept(0), lambda: stream.machine.end(0), lambda: stream.machine.drop(0, 0)):
        with pytest.raises(LocalProtocolError, match="yet"):
            call()
    machine = publisher(name)
    with pytest.raises(LocalProtocolError, match="after SUBSCRIBE_OK"):
        machine.drop(0, 1)
    if name in NEW:
        with pytest.raises(LocalProtocolError, match="names the first group"):
            machine.accept(None)
    with pytest.raises(LocalProtocolError):
        machine.accept(1 << 62)
    assert machine.accept(4)
    with pytest.raises(LocalProtocolError, match="before"):
        machine.accept(4)
    with pytest.raises(LocalProtocolError):
        machine.drop(6, 4)
    machine.end(9)
    with pytest.raises(LocalProtocolError, match="before"):
        machine.end(9)


@pytest.mark.parametrize(
    ("cancel", "code"),
    [
        (lambda machine: machine.receive_data(b"", True), None),
        (lambda machine: machine.receive_reset(1), 1),
        (lambda machine: machine.receive_stop(0), 0),
    ],
)
@pytest.mark.parametrize("prepare", [publisher, accepted_publisher])
def test_every_way_to_cancel(name, prepare, cancel, code):
    """FIN (moq-rs HEAD) and reset with stop (the moq-rs package) both cancel, once; replies after it are b""."""
    machine = prepare(name)
    assert cancel(machine) == [RequestCancelled(code)]
    assert machine.receive_stop(0) == machine.receive_reset(1) == machine.receive_data(b"\xff", True) == []
    assert machine.accept(0) == machine.end(0) == machine.drop(0, 0) == b""


def test_nothing_is_cancelled_once_it_is_finished(name):
    """After this side finished the stream, the subscriber's FIN or reset only closes its own half."""
    for end in (lambda m: m.receive_data(b"", True), lambda m: m.receive_reset(1), lambda m: m.receive_stop(0)):
        machine = accepted_publisher(name)
        machine.finish()
        assert end(machine) == []


def test_cancelled_before_it_was_asked(name):
    """A stop that overtakes the request cancels it: no event, and no id in use."""
    side = core(name)
    stream = side.accept_bidi()
    stream.receive_data(b"\x02", False)
    assert stream.receive_stop(0) == []
    assert stream.receive_data(bytes.fromhex(REQUEST[name])[1:], True) == []
    stream.release()
    assert publisher(name, side)


@pytest.mark.parametrize("cut", [1, 5])
def test_fin_before_the_request_is_an_error_of_the_stream(name, cut):
    """A subscribe stream that finishes before its request is broken."""
    with pytest.raises(RemoteProtocolError) as caught:
        core(name).accept_bidi().receive_data(bytes.fromhex(REQUEST[name])[:cut], True)
    assert caught.value.scope == "stream"


def test_fin_inside_an_update_is_an_error_of_the_stream(name):
    """A FIN cancels only at a message's end."""
    with pytest.raises(Malformed, match="FIN inside SUBSCRIBE_UPDATE") as caught:
        accepted_publisher(name).receive_data(bytes.fromhex(UPDATE[name])[:-1], True)
    assert caught.value.scope == "stream"


def test_an_id_is_used_once(name):
    """A duplicate of an id in use and the reuse of an ended one are refused; the first subscription goes on."""
    side = core(name, is_client=False)
    first = publisher(name, side)
    second = side.accept_bidi()
    with pytest.raises(RemoteProtocolError, match="second time") as caught:
        second.receive_data(bytes.fromhex(REQUEST[name]), False)
    assert caught.value.scope == "stream"
    second.release()
    assert side.group(0, 1).opening
    assert first.accept(4)
    first.release()
    with pytest.raises(RemoteProtocolError, match="second time"):
        side.accept_bidi().receive_data(bytes.fromhex(REQUEST[name]), False)


def test_as_many_tombstones_as_the_limit(name):
    """The newest `max_tombstones` ended ids stay refused; what is kept of them does not grow."""
    side = core(name, is_client=False, limits=Limits(max_tombstones=2))
    peer = core(name)
    openings = [peer.subscribe("a", "t").opening for _ in range(3)]
    for opening in openings:
        stream = side.accept_bidi()
        stream.receive_data(opening, False)
        stream.release()
    for opening in openings[1:]:
        with pytest.raises(RemoteProtocolError, match="second time"):
            side.accept_bidi().receive_data(opening, False)
    assert side.accept_bidi().receive_data(openings[0], False)


def test_as_many_subscriptions_as_the_limit(name):
    """`max_subscriptions` are accepted; more are refused on their streams, and twice as many end the session."""
    side = core(name, is_client=False, limits=Limits(max_subscriptions=2))
    peer = core(name)

    def ask():
        stream = side.accept_bidi()
        stream.receive_data(peer.subscribe("a", "t").opening, False)
        return stream

    streams = [ask(), ask()]
    for _ in range(2):
        with pytest.raises(LimitExceeded) as caught:
            ask()
        assert (caught.value.scope, caught.value.code) == ("stream", StreamCode.NO_CAPACITY)
    streams.pop().release()
    streams.append(ask())  # an ended one makes room, and resets the count of refused ones
    for _ in range(2):
        with pytest.raises(LimitExceeded) as caught:
            ask()
        assert caught.value.scope == "stream"
    with pytest.raises(LimitExceeded) as caught:
        ask()
    assert (caught.value.scope, caught.value.code, caught.value.value) == (
        "session",
        SessionCode.PROTOCOL_VIOLATION,
        5,
    )


def _ranged(name: str, **kwargs) -> bytes:
    dialect = version(name)
    return b"\x02" + dialect.encode(Subscribe(0, "a", "t", **kwargs))


def test_a_range_that_ends_before_it_starts(name):
    """Such a request or update is an error of its stream; a range of one group is not."""
    assert core(name).accept_bidi().receive_data(_ranged(name, start_group=3, end_group=3), False)
    with pytest.raises(RemoteProtocolError, match="before group 3") as caught:
        core(name).accept_bidi().receive_data(_ranged(name, start_group=3, end_group=2), False)
    assert caught.value.scope == "stream"
    with pytest.raises(RemoteProtocolError, match="before group 3"):
        publisher(name).receive_data(version(name).encode(SubscribeUpdate(start_group=3, end_group=2)), False)


def test_a_range_of_frames_that_ends_before_it_starts():
    """Within one group the frames are in order too; in different groups they are not compared."""
    for start, end, last, fine in [(1, 1, 5, True), (1, 1, 4, False), (None, 0, 4, False), (1, 2, 4, True)]:
        data = _ranged("moq-lite-06", start_group=start, end_group=end, start_frame=5, end_frame=last)
        stream = core("moq-lite-06").accept_bidi()
        if fine:
            assert stream.receive_data(data, False)
        else:
            with pytest.raises(RemoteProtocolError, match="before frame 5"):
                stream.receive_data(data, False)


# -- the subscriber's side ----------------------------------------------------------------------------------


def test_the_opening(name):
    """Our opening is the one that peers send and accept for the same subscription."""
    machine = core(name).subscribe("/demo/cam", "events", priority=200, max_age_ms=1500, start_group=3, end_group=8)
    assert machine.opening.hex() == OPENING[name]


def test_the_opening_without_a_first_group():
    """moq-lite-06 starts as far back as the age in the request says: 0 is the latest group; the wanted age follows."""
    machine = core("moq-lite-06").subscribe("/demo/cam", "events", priority=200, max_age_ms=1500)
    request, update = "0217000864656d6f2f63616d066576656e7473c80000000000", "07c845dc00000000"
    assert machine.opening.hex() == request + update


def test_ids_count_up_from_zero(name):
    """Each subscription has the next id, whether or not the ones before have ended."""
    side = core(name)
    first, second = side.subscribe("a", "t"), side.subscribe("a", "t")
    first.release()
    assert [first.subscribe_id, second.subscribe_id, side.subscribe("a", "t").subscribe_id] == [0, 1, 2]


def test_a_refused_subscribe_takes_no_id(name):
    """After `LocalProtocolError` the next subscription has the id that the refused one would have had."""
    side = core(name)
    for kwargs in ({"priority": 256}, {"max_age_ms": -1}, {"start_group": 2, "end_group": 1}):
        with pytest.raises(LocalProtocolError):
            side.subscribe("a", "t", **kwargs)
    with pytest.raises(LocalProtocolError):
        side.subscribe("x" * 1025, "t")
    if name != "moq-lite-06":
        with pytest.raises(LocalProtocolError, match="range of frames"):
            side.subscribe("a", "t", start_frame=1)
    assert side.subscribe("a", "t").subscribe_id == 0


def test_replies_are_events(name):
    """OK, DROP and END become events; END and FIN end it in order."""
    machine = accepted_subscriber(name)
    assert machine.receive_data(bytes.fromhex(DROP[name]), False) == [SubscribeDrop(4, 6, 3)]
    if name in NEW:
        assert machine.receive_data(bytes.fromhex(END), False) == [SubscribeEnd(2)]
        assert machine.receive_data(bytes.fromhex(DROP[name]), False) == [SubscribeDrop(4, 6, 3)]
    assert machine.receive_data(b"", True) == [RequestFinished()]
    assert machine.receive_reset(1) == machine.receive_stop(0) == machine.receive_data(b"\xff", True) == []


@pytest.mark.parametrize("name", NEW)
def test_end_without_ok(name):
    """From moq-lite-05 on a track may end before its first group: END 0, then FIN."""
    machine = subscriber(name)
    assert machine.receive_data(bytes.fromhex("010100"), True) == [SubscribeEnd(0), RequestFinished()]


def test_ok_of_old_versions_may_name_a_group(name):
    """Where OK carries a start, the event does."""
    ok = version(name).encode(SubscribeOk(7))
    assert subscriber(name).receive_data(ok, False) == [SubscribeOk(7)]


@pytest.mark.parametrize("name", OLD)
def test_ok_of_old_versions_may_come_again(name):
    """Before moq-lite-05 a publisher may repeat OK, between DROPs, too; it has no effect."""
    machine = accepted_subscriber(name)
    again = bytes.fromhex(OK[name])
    dropped = bytes.fromhex(DROP[name])
    assert machine.receive_data(again + dropped + again, False) == [SubscribeDrop(4, 6, 3)]


@pytest.mark.parametrize(
    ("prepare", "messages"),
    [
        (subscriber, [SubscribeDrop(0, 1)]),
        (subscriber, [SubscribeEnd(0), SubscribeOk(0)]),
        (subscriber, [SubscribeEnd(0), SubscribeDrop(0, 0)]),
        (accepted_subscriber, [SubscribeOk(0)]),
        (accepted_subscriber, [SubscribeEnd(1), SubscribeEnd(1)]),
    ],
)
def test_replies_out_of_order_break_the_stream(name, prepare, messages):
    """OK comes before DROP, and from moq-lite-05 on once; END comes once and after OK."""
    if name in OLD and any(isinstance(message, SubscribeEnd | SubscribeOk) for message in messages):
        prepare, messages = subscriber, [SubscribeDrop(0, 1)]
    machine = prepare(name)
    with pytest.raises(RemoteProtocolError) as caught:
        machine.receive_data(b"".join(map(version(name).encode, messages)), False)
    assert caught.value.scope == "stream"
    assert machine.receive_data(b"\x00", True) == machine.receive_reset(1) == machine.receive_stop(1) == []


def test_unknown_replies_break_the_stream(name):
    """A reply of unknown type is an error, not skipped."""
    with pytest.raises(RemoteProtocolError) as caught:
        subscriber(name).receive_data(bytes.fromhex("070100"), False)
    assert caught.value.scope == "stream"


def test_fin_without_an_answer_finishes(name):
    """A publisher may finish without a reply."""
    assert subscriber(name).receive_data(b"", True) == [RequestFinished()]


def test_fin_inside_a_reply_breaks_the_stream(name):
    """A stream that finishes inside a reply is broken."""
    with pytest.raises(Malformed, match="FIN inside SUBSCRIBE_REPLY") as caught:
        subscriber(name).receive_data(bytes.fromhex(OK[name])[:-1], True)
    assert caught.value.scope == "stream"


@pytest.mark.parametrize("prepare", [subscriber, accepted_subscriber])
def test_reset_means_refused(name, prepare):
    """A reset ends the subscription at any time, and its code is reported once."""
    machine = prepare(name)
    assert machine.receive_reset(StreamCode.NOT_FOUND) == [RequestRefused(0x33)]
    assert machine.receive_reset(1) == machine.receive_stop(0) == machine.receive_data(b"\xff", True) == []


def test_stop_before_the_answer_means_refused(name):
    """A publisher that will not read the request refuses it; once it answered, it only reads no updates."""
    machine = subscriber(name)
    assert machine.receive_stop(5) == [RequestRefused(5)]
    assert machine.receive_reset(5) == []
    machine = accepted_subscriber(name)
    assert machine.receive_stop(5) == []
    assert machine.receive_reset(6) == [RequestRefused(6)]


@pytest.mark.parametrize("name", NEW)
def test_stop_after_the_end_has_no_event(name):
    """END is an answer too."""
    machine = subscriber(name)
    machine.receive_data(bytes.fromhex("010100"), False)
    assert machine.receive_stop(0) == []


def test_an_update_keeps_what_it_does_not_name(name):
    """Updates carry every field; those that are not named have their last value."""
    client, server = pair(name)
    machine = client.subscribe("demo/cam", "events", priority=1, ordered=True, max_age_ms=5, start_group=2, end_group=9)
    stream = server.accept_bidi()
    stream.receive_data(machine.opening, False)
    ordered = name != "moq-lite-06"
    [event] = stream.receive_data(machine.update(priority=7), False)
    assert event == SubscribeUpdate(7, ordered, 5, 2, 9)
    [event] = stream.receive_data(machine.update(end_group=None, max_age_ms=0), False)
    assert event == SubscribeUpdate(7, ordered, 0, 2, None)


def test_a_refused_update_changes_nothing(name):
    """After `LocalProtocolError` the next update starts from the values before."""
    client, server = pair(name)
    machine = client.subscribe("demo/cam", "events", start_group=2)
    stream = server.accept_bidi()
    stream.receive_data(machine.opening, False)
    for changes in ({"priority": -1}, {"end_group": 1}, {"max_age_ms": 1 << 62}):
        with pytest.raises(LocalProtocolError):
            machine.update(**changes)
    [event] = stream.receive_data(machine.update(priority=3), False)
    assert event == SubscribeUpdate(3, False, 0, 2)


def test_an_update_after_the_end_is_nothing(name):
    """Once the publisher has finished or refused nothing is written."""
    machine = subscriber(name)
    machine.receive_reset(1)
    assert machine.update(priority=4) == b""
