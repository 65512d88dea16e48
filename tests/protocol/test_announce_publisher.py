"""The publisher's side of an announce stream: what goes out in each version's form, and what is withheld."""

from __future__ import annotations

import pytest

from moqt_trio.codes import StreamCode
from moqt_trio.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from moqt_trio.limits import Limits
from moqt_trio.protocol.announce import AnnounceResponder
from moqt_trio.protocol.events import AnnouncementsRequested, RequestCancelled
from moqt_trio.wire.messages import AnnounceRequest, Setup
from tests.protocol.harness import core, path_of

# The whole opening of an announce stream: the type, then the request.
ROOT = {"moq-lite-03": "010100", "moq-lite-04": "01020000", "moq-lite-05": "01020000", "moq-lite-06": "010100"}
LIVE = {
    "moq-lite-03": "0105046c697665",
    "moq-lite-04": "0106046c69766500",
    "moq-lite-05": "0106046c69766500",
    "moq-lite-06": "0105046c697665",
}
# Own broadcasts as moq-rs sends them, and the answer to the request when there is none.
START = {
    "moq-lite-03": "0b01086c6976652f63616d01",
    "moq-lite-04": "0d01086c6976652f63616d01404d",
    "moq-lite-05": "0b01086c6976652f63616d00",
    "moq-lite-06": "000c086c6976652f63616d000000",
}
END = {
    "moq-lite-03": "0b00086c6976652f63616d00",
    "moq-lite-04": "0b00086c6976652f63616d00",
    "moq-lite-05": "0b00086c6976652f63616d00",
    "moq-lite-06": "010100",
}
NOTHING = {"moq-lite-03": "", "moq-lite-04": "", "moq-lite-05": "03404d00", "moq-lite-06": "03404d00"}
ONE = {"moq-lite-03": "", "moq-lite-04": "", "moq-lite-05": "03404d01", "moq-lite-06": "03404d01"}
# A second announcement of the same path, with one hop more than before.
AGAIN = {
    "moq-lite-03": END["moq-lite-03"] + "0b01086c6976652f63616d02",
    "moq-lite-04": END["moq-lite-04"] + "0e01086c6976652f63616d0203404d",
    "moq-lite-05": "0c01086c6976652f63616d0103",
    "moq-lite-06": "02050001030608",
}


def requested(name: str, opening: str | None = None, **kwargs) -> AnnounceResponder:
    """Returns a publisher's machine that was asked for everything, or what the opening asks for."""
    side = core(name, is_client=False, hop_id=77, **kwargs)
    stream = side.accept_bidi()
    events = stream.receive_data(bytes.fromhex(opening or ROOT[name]), False)
    assert len(events) == 1
    assert isinstance(events[0], AnnouncementsRequested)
    assert isinstance(stream.machine, AnnounceResponder)
    return stream.machine


def accepted(name: str, opening: str | None = None, **kwargs) -> AnnounceResponder:
    """Returns the same with nothing available at first."""
    machine = requested(name, opening, **kwargs)
    assert machine.accept().hex() == NOTHING[name]
    return machine


def test_the_request_names_a_prefix(name):
    """The message has the prefix as it was written; the event and the machine have it canonical."""
    side = core(name)
    stream = side.accept_bidi()
    raw = bytes.fromhex(LIVE[name]).replace(b"\x04live", b"\x04/li/")
    assert stream.receive_data(raw, False) == [AnnouncementsRequested(path_of("/li/"), AnnounceRequest("/li/"))]
    assert stream.machine.prefix == path_of("li")


def test_what_is_available_at_first_answers_the_request(name):
    """One message opens the replies where the version has one, and the initial set follows."""
    assert requested(name).accept([("live/cam", (), 0, 0)]).hex() == ONE[name] + START[name]


def test_a_broadcast_comes_changes_and_goes(name):
    """An announcement, its replacement and its end have the bytes of each version."""
    machine = accepted(name)
    assert machine.announce("live/cam").hex() == START[name]
    assert machine.announce("live/cam", (3,), 6, 8).hex() == AGAIN[name]
    assert machine.unannounce("/live//cam/").hex() == END[name]


def test_ordinals_count_up_and_never_return():
    """In moq-lite-06 each start takes the next ordinal on its stream, the initial set included."""
    machine = requested("moq-lite-06")
    machine.accept([("a", (), 0, 0), ("b", (), 0, 0)])
    assert machine.unannounce("a").hex() == "010100"
    machine.announce("a")
    assert machine.unannounce("a").hex() == "010102"
    assert machine.unannounce("b").hex() == "010101"


def test_suffixes_are_relative_to_the_prefix(name):
    """What goes out is the rest of the path, without a leading slash; the prefix itself has the empty rest."""
    machine = accepted(name, LIVE[name])
    assert b"\x03cam" in machine.announce("live/cam")
    assert b"live" not in machine.announce("live")


def test_a_path_outside_the_prefix_is_the_callers_mistake(name):
    """Prefixes cover whole parts: `live` covers neither `lively` nor `other`."""
    machine = accepted(name, LIVE[name])
    for path in ("lively", "other/cam", ""):
        with pytest.raises(LocalProtocolError, match="not below"):
            machine.announce(path)
    with pytest.raises(LocalProtocolError, match="not below"):
        requested(name, LIVE[name]).accept([("other", (), 0, 0)])


def test_a_path_that_is_too_long_is_the_callers_mistake(name):
    """A path that exceeds the library's bound is refused, not cut."""
    with pytest.raises(LocalProtocolError, match="1024"):
        accepted(name).announce("x" * 1025)


@pytest.mark.parametrize("path", [".hidden", "live/.hidden", "live/.hidden/cam"])
def test_hidden_paths_are_withheld(name, path):
    """A part that starts with a dot hides a path from a prefix above it, as with moq-rs."""
    machine = accepted(name)
    assert machine.announce(path) == b""
    assert machine.unannounce(path) == b""


def test_a_prefix_inside_a_hidden_part_sees_what_is_there(name):
    """Only parts below the prefix hide a path."""
    opening = bytes.fromhex(LIVE[name]).replace(b"\x04live", b"\x04.abc").hex()
    assert accepted(name, opening).announce(".abc/cam") != b""


@pytest.mark.parametrize("hops", [(9,), (5, 9, 6), (77,)])
def test_loops_are_withheld(name, hops):
    """What passed the peer, as its SETUP names it, or this side itself, is not announced to it."""
    machine = requested(name)
    machine._session.peer_setup = Setup(hop_id=9)
    assert machine.accept([("live/cam", hops, 0, 0)]).hex() == NOTHING[name]
    assert machine.announce("live/cam2", hops) == b""


@pytest.mark.parametrize("name", ["moq-lite-04", "moq-lite-05"])
def test_the_hop_that_a_request_excludes_is_withheld(name):
    """A request's exclude_hop leaves out what passed that hop, and nothing else."""
    machine = accepted(name, "01020009")
    assert machine.announce("a", (4, 9)) == b""
    assert machine.announce("b", (4,)) != b""


@pytest.mark.parametrize(("name", "longest"), [("moq-lite-03", 3), ("moq-lite-04", 3), ("moq-lite-05", 4)])
def test_too_many_hops_are_withheld(name, longest):
    """An announcement that travelled `max_hops` hops goes no further; the sender's own counts where it is written."""
    machine = accepted(name, limits=Limits(max_hops=4))
    assert machine.announce("a", tuple(range(1, longest + 1))) != b""
    assert machine.announce("b", tuple(range(1, longest + 2))) == b""


def test_an_announcement_that_becomes_a_loop_ends(name):
    """When new hops exclude a path for the peer, its announcement ends; with other hops it is announced again."""
    machine = accepted(name)
    machine.announce("live/cam")
    assert machine.announce("live/cam", (77,)).hex() == END[name]
    assert machine.announce("live/cam", (77,)) == b""
    again = machine.announce("live/cam").hex()
    assert again == START[name]
    assert machine.unannounce("live/cam") != b""


def test_answers_come_in_order(name):
    """Nothing can be announced before the request and its acceptance, and acceptance comes once."""
    stream = core(name).accept_bidi()
    stream.receive_data(b"\x01", False)
    machine = stream.machine
    assert isinstance(machine, AnnounceResponder)
    for call in (machine.accept, lambda: machine.announce("a"), lambda: machine.unannounce("a")):
        with pytest.raises(LocalProtocolError):
            call()
    machine = requested(name)
    with pytest.raises(LocalProtocolError, match="not accepted"):
        machine.announce("live/cam")
    machine.accept()
    with pytest.raises(LocalProtocolError, match="before"):
        machine.accept()
    with pytest.raises(LocalProtocolError, match="not announced"):
        machine.unannounce("live/cam")


def test_a_refused_call_changes_nothing(name):
    """After a refused acceptance with a path twice, the request can still be accepted."""
    machine = requested(name)
    with pytest.raises(LocalProtocolError, match="twice"):
        machine.accept([("a", (), 0, 0), ("/a", (), 0, 0)])
    assert machine.accept([("live/cam", (), 0, 0)]).hex() == ONE[name] + START[name]


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda machine: machine.receive_data(b"", True), None),
        (lambda machine: machine.receive_reset(1), 1),
        (lambda machine: machine.receive_stop(7), 7),
    ],
)
@pytest.mark.parametrize("prepare", [requested, accepted])
def test_the_peer_may_cancel_at_any_time(name, prepare, end, code):
    """FIN, reset and stop each cancel, once; from then on nothing is written."""
    machine = prepare(name)
    assert end(machine) == [RequestCancelled(code)]
    assert machine.receive_reset(1) == machine.receive_stop(0) == machine.receive_data(b"x", True) == []
    if prepare is requested:
        assert machine.accept([("a", (), 0, 0)]) == b""
    assert machine.announce("live/cam") == b""
    assert machine.unannounce("live/cam") == b""


def test_a_reset_before_the_request_has_no_event(name):
    """A stream that ends before its request has no cancellation."""
    for end in ("receive_reset", "receive_stop"):
        stream = core(name).accept_bidi()
        stream.receive_data(b"\x01", False)
        assert getattr(stream, end)(1) == []
        assert stream.receive_data(bytes.fromhex(ROOT[name])[1:], False) == []


@pytest.mark.parametrize("cut", [1, 2])
def test_fin_before_the_request_is_an_error_of_the_stream(name, cut):
    """A stream that finishes inside its request is broken, and only it."""
    with pytest.raises(RemoteProtocolError) as caught:
        core(name).accept_bidi().receive_data(bytes.fromhex(ROOT[name])[:cut], True)
    assert caught.value.scope == "stream"


def test_bytes_after_the_request_are_an_error_of_the_stream(name):
    """More bytes after the request break an announce stream."""
    machine = accepted(name)
    with pytest.raises(RemoteProtocolError) as caught:
        machine.receive_data(b"\x00", False)
    assert caught.value.scope == "stream"
    assert machine.receive_data(b"\x00", False) == []
    assert machine.receive_stop(0) == []


def test_a_prefix_that_is_too_deep_is_refused(name):
    """More parts than `max_path_parts` break at most the session, and never get as far as an event."""
    stream = core(name, limits=Limits(max_path_parts=1)).accept_bidi()
    with pytest.raises(LimitExceeded, match="max_path_parts"):
        stream.receive_data(bytes.fromhex(LIVE[name]).replace(b"live", b"li/e"), False)


def test_requests_past_the_limit_are_refused_until_one_is_released(name):
    """At `max_requests` open requests a further one gets NO_CAPACITY on its stream; released ones make room."""
    side = core(name, limits=Limits(max_requests=2))
    opening = bytes.fromhex(ROOT[name])
    streams = [side.accept_bidi() for _ in range(2)]
    for stream in streams:
        stream.receive_data(opening, False)
    third = side.accept_bidi()
    with pytest.raises(LimitExceeded) as caught:
        third.receive_data(opening, False)
    assert (caught.value.limit, caught.value.scope, caught.value.code) == (
        "max_requests",
        "stream",
        StreamCode.NO_CAPACITY,
    )
    assert third.receive_data(opening, False) == third.receive_reset(0) == third.receive_stop(0) == []
    third.release()
    with pytest.raises(LimitExceeded):
        side.accept_bidi().receive_data(opening, False)
    streams[0].release()
    streams[0].release()
    assert side.accept_bidi().receive_data(opening, False) != []
    with pytest.raises(LimitExceeded):
        side.accept_bidi().receive_data(opening, False)
