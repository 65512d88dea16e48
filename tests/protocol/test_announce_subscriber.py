"""The subscriber's side of an announce stream: what each version's replies mean, and which of them break it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from moqt_trio.codes import SessionCode, StreamCode
from moqt_trio.errors import LimitExceeded, LocalProtocolError, Malformed, RemoteProtocolError
from moqt_trio.limits import Limits
from moqt_trio.protocol.events import (
    Announced,
    AnnouncementsEnded,
    InitialAnnouncementsDone,
    RequestRefused,
    Unannounced,
)
from moqt_trio.wire.messages import AnnounceEnd, AnnounceOk, AnnounceStart, AnnounceUpdate
from tests.protocol.harness import NEW, OLD, OWN_HOP, PEER_HOP, core, path_of, version

if TYPE_CHECKING:
    from moqt_trio.protocol.announce import AnnounceRequester

UP_TO_05 = (*OLD, "moq-lite-05")


def subscriber(name: str, prefix: str = "", **kwargs) -> AnnounceRequester:
    """Returns a machine that asked, on a side with a hop id."""
    return core(name, hop_id=OWN_HOP, **kwargs).request_announcements(prefix)


def live(name: str, prefix: str = "", **kwargs) -> AnnounceRequester:
    """Returns a machine whose initial set, where the version has one, is empty."""
    machine = subscriber(name, prefix, **kwargs)
    if name in NEW:
        assert machine.receive_data(bytes.fromhex("03404d00"), False) == [InitialAnnouncementsDone()]
    return machine


def start(name: str, suffix: str, hops: tuple[int, ...] = ()) -> bytes:
    """Returns the bytes of a start."""
    return version(name).encode(AnnounceStart(suffix, hops))


def end(name: str, suffix: str, announce_id: int = 0) -> bytes:
    """Returns the bytes of an end, by suffix or by id."""
    if name == "moq-lite-06":
        return version(name).encode(AnnounceEnd(announce_id))
    return version(name).encode(AnnounceEnd(suffix=suffix))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("moq-lite-03", "0105046c697665"),
        ("moq-lite-04", "0108062f6c6976652f0b"),
        ("moq-lite-05", "0106046c6976650b"),
        ("moq-lite-06", "0105046c697665"),
    ],
)
def test_the_request(name, expected):
    """The request carries the prefix without slashes at its ends, and our hop id where it can be excluded.

    In moq-lite-04 it stands between slashes: gomoqt, which speaks that version only, ends its process without them.
    """
    for text in ("live", "/live/"):
        machine = subscriber(name, text)
        assert machine.opening.hex() == expected
        assert machine.prefix == path_of("live")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("moq-lite-03", "010100"),
        ("moq-lite-04", "0103012f0b"),
        ("moq-lite-05", "0102000b"),
        ("moq-lite-06", "010100"),
    ],
)
def test_the_request_for_everything(name, expected):
    """The prefix of everything is empty, or one slash where a prefix stands between slashes."""
    assert subscriber(name, "").opening.hex() == expected


def test_a_prefix_out_of_bounds_is_the_callers_mistake(name):
    """A prefix past the bound is refused before anything is sent."""
    with pytest.raises(LocalProtocolError, match="32 parts"):
        subscriber(name, "a/" * 33)


@pytest.mark.parametrize(
    ("name", "data", "hops"),
    [
        ("moq-lite-03", "0b01086c6976652f63616d01", (0,)),
        ("moq-lite-04", "0d010864656d6f2f63616d020506", (5, 6)),
        ("moq-lite-05", "03404d010d010864656d6f2f63616d020506", (5, 6, 77)),
        ("moq-lite-06", "03404d01000e0864656d6f2f63616d020506090b", (5, 6, 77)),
    ],
)
def test_bytes_of_moq_rs(name, data, hops):
    """The bytes of moq-rs for one broadcast are read; the sender's hop is added where it was sent once for all."""
    events = subscriber(name).receive_data(bytes.fromhex(data), False)
    announced = events[0]
    assert isinstance(announced, Announced)
    assert str(announced.path) in ("live/cam", "demo/cam")
    assert announced.hops == hops
    assert (announced.warm_cost, announced.cold_cost) == ((9, 11) if name == "moq-lite-06" else (0, 0))
    assert announced.initial is (name in NEW)
    assert events[1:] == ([InitialAnnouncementsDone()] if name in NEW else [])


@pytest.mark.parametrize("name", NEW)
def test_the_initial_set_ends_after_as_many_as_were_counted(name):
    """The initial set is done after the number in ANNOUNCE_OK, dropped ones counted; later starts are not initial."""
    machine = subscriber(name)
    ok = version(name).encode(AnnounceOk(PEER_HOP, 2))
    assert machine.receive_data(ok, False) == []
    [first] = machine.receive_data(start(name, "a"), False)
    assert first.initial
    assert machine.receive_data(start(name, "loop", (OWN_HOP,)), False) == [InitialAnnouncementsDone()]
    [later] = machine.receive_data(start(name, "b"), False)
    assert not later.initial


def test_paths_are_joined_and_canonical(name):
    """Slashes at the ends of a suffix or doubled in it make no other path; the empty suffix is the prefix."""
    machine = live(name, "live")
    [one] = machine.receive_data(start(name, "/cam//front/"), False)
    assert str(one.path) == "live/cam/front"
    [two] = machine.receive_data(start(name, ""), False)
    assert str(two.path) == "live"


def test_start_and_end(name):
    """A broadcast that ended may come again."""
    machine = live(name)
    for ordinal in range(3):
        [came] = machine.receive_data(start(name, "a"), False)
        assert str(came.path) == "a"
        assert not came.updated
        assert machine.receive_data(end(name, "a", ordinal), False) == [Unannounced(path_of("a"))]


@pytest.mark.parametrize("name", ["moq-lite-03", "moq-lite-04", "moq-lite-06"])
def test_a_second_start_breaks_the_stream(name):
    """Before moq-lite-05 and with ids, announcing what is announced already is an error of the stream."""
    machine = live(name)
    machine.receive_data(start(name, "a"), False)
    with pytest.raises(RemoteProtocolError, match="already") as caught:
        machine.receive_data(start(name, "/a"), False)
    assert caught.value.scope == "stream"
    assert machine.receive_data(start(name, "b"), False) == []


def test_a_second_start_is_a_restart_in_moq_lite_05():
    """In moq-lite-05 a second start, and the explicit restart status, update the announcement."""
    machine = live("moq-lite-05")
    machine.receive_data(start("moq-lite-05", "live/cam"), False)
    assert machine.receive_data(start("moq-lite-05", "live/cam", (5,)), False) == [
        Announced(path_of("live/cam"), (5, 77), updated=True)
    ]
    assert machine.receive_data(bytes.fromhex("0c02086c6976652f63616d0106"), False) == [
        Announced(path_of("live/cam"), (6, 77), updated=True)
    ]


def test_a_restart_of_what_never_started_starts_it():
    """In moq-lite-05 the restart status for an unknown path counts as a start."""
    assert live("moq-lite-05").receive_data(bytes.fromhex("0c02086c6976652f63616d0105"), False) == [
        Announced(path_of("live/cam"), (5, 77))
    ]


def test_a_restart_through_us_takes_the_broadcast_away():
    """In moq-lite-05 a restart whose hops have our own is a loop: the broadcast is unannounced, and may return."""
    machine = live("moq-lite-05")
    machine.receive_data(start("moq-lite-05", "a"), False)
    assert machine.receive_data(start("moq-lite-05", "a", (OWN_HOP,)), False) == [Unannounced(path_of("a"))]
    assert machine.receive_data(end("moq-lite-05", "a"), False) == []
    [again] = machine.receive_data(start("moq-lite-05", "a"), False)
    assert not again.updated


def test_update_in_moq_lite_06():
    """An update replaces hops and costs; one with a loop unannounces it, a later one announces it again."""
    machine = live("moq-lite-06")
    machine.receive_data(bytes.fromhex("000c086c6976652f63616d000000"), False)
    assert machine.receive_data(bytes.fromhex("0206000203040608"), False) == [
        Announced(path_of("live/cam"), (3, 4, 77), 6, 8, updated=True)
    ]
    encode = version("moq-lite-06").encode
    assert machine.receive_data(encode(AnnounceUpdate(0, (OWN_HOP,))), False) == [Unannounced(path_of("live/cam"))]
    assert machine.receive_data(encode(AnnounceUpdate(0, (OWN_HOP, 3))), False) == []
    assert machine.receive_data(encode(AnnounceUpdate(0, (3,))), False) == [Announced(path_of("live/cam"), (3, 77))]
    machine.receive_data(encode(AnnounceUpdate(0, (OWN_HOP,))), False)
    assert machine.receive_data(encode(AnnounceEnd(0)), False) == []


@pytest.mark.parametrize("message", [AnnounceEnd(0), AnnounceUpdate(0), AnnounceEnd(1), AnnounceUpdate(7)])
@pytest.mark.parametrize("retired", [False, True])
def test_unknown_and_retired_ids_end_the_session(message, retired):
    """An id that was never given, or whose announcement ended, is a violation of the session."""
    machine = live("moq-lite-06")
    if retired:
        machine.receive_data(start("moq-lite-06", "a") + end("moq-lite-06", "a"), False)
    with pytest.raises(RemoteProtocolError) as caught:
        machine.receive_data(version("moq-lite-06").encode(message), False)
    assert (caught.value.scope, caught.value.code) == ("session", SessionCode.PROTOCOL_VIOLATION)


@pytest.mark.parametrize("name", UP_TO_05)
def test_the_end_of_something_unknown_is_tolerated(name):
    """Before ids, an end may belong to an announcement that was dropped as a loop on the way."""
    assert live(name).receive_data(end(name, "nowhere"), False) == []


@pytest.mark.parametrize("name", ["moq-lite-04", "moq-lite-05", "moq-lite-06"])
def test_our_own_announcements_are_dropped(name):
    """An announcement that passed our own hop is dropped, and so is its end."""
    machine = live(name)
    assert machine.receive_data(start(name, "a", (3, OWN_HOP)), False) == []
    assert machine.receive_data(end(name, "a"), False) == []


@pytest.mark.parametrize("name", NEW)
def test_a_peer_with_our_own_hop_id_announces_nothing_new(name):
    """A session with this side itself is the shortest loop."""
    machine = subscriber(name)
    machine.receive_data(version(name).encode(AnnounceOk(OWN_HOP, 0)), False)
    assert machine.receive_data(start(name, "a"), False) == []


def test_without_a_hop_id_nothing_is_a_loop(name):
    """Hop id 0 means none: unknown hops, which are 0 too, are no loop."""
    machine = core(name).request_announcements("")
    if name in NEW:
        machine.receive_data(bytes.fromhex("020000"), False)
    [came] = machine.receive_data(start(name, "a", (0, 0)), False)
    assert str(came.path) == "a"


@pytest.mark.parametrize("name", NEW)
def test_nothing_may_come_before_announce_ok(name):
    """A start where ANNOUNCE_OK is due does not decode as one, and ends the session."""
    with pytest.raises(Malformed) as caught:
        subscriber(name).receive_data(bytes.fromhex("0b01086c6976652f63616d00"), False)
    assert (caught.value.scope, caught.value.code) == ("session", SessionCode.PROTOCOL_VIOLATION)


def test_as_many_announcements_as_the_limit(name):
    """`max_announcements` are accepted, one more breaks the stream, and an end makes room."""
    machine = live(name, limits=Limits(max_announcements=2))
    machine.receive_data(start(name, "a") + start(name, "b"), False)
    machine.receive_data(end(name, "a"), False)
    machine.receive_data(start(name, "c"), False)
    with pytest.raises(LimitExceeded) as caught:
        machine.receive_data(start(name, "d"), False)
    assert (caught.value.limit, caught.value.value, caught.value.scope, caught.value.code) == (
        "max_announcements",
        3,
        "stream",
        StreamCode.NO_CAPACITY,
    )


def test_as_many_bytes_of_paths_as_the_limit(name):
    """`max_announcement_bytes` are accepted, one more breaks the stream, and an end makes room."""
    machine = live(name, limits=Limits(max_announcement_bytes=6))
    machine.receive_data(start(name, "aaa") + start(name, "bbb"), False)
    machine.receive_data(end(name, "aaa"), False)
    machine.receive_data(start(name, "ccc"), False)
    with pytest.raises(LimitExceeded) as caught:
        machine.receive_data(start(name, "d"), False)
    assert (caught.value.limit, caught.value.value, caught.value.scope) == ("max_announcement_bytes", 7, "stream")


def test_dropped_loops_count_where_they_have_ids():
    """In moq-lite-06 a loop keeps its id until it ends, so it counts; before, it is dropped at once."""
    machine = live("moq-lite-06", limits=Limits(max_announcements=1))
    machine.receive_data(start("moq-lite-06", "a", (OWN_HOP,)), False)
    with pytest.raises(LimitExceeded):
        machine.receive_data(start("moq-lite-06", "b", (OWN_HOP,)), False)
    machine = live("moq-lite-05", limits=Limits(max_announcements=1))
    for suffix in "abc":
        assert machine.receive_data(start("moq-lite-05", suffix, (OWN_HOP,)), False) == []


@pytest.mark.parametrize(
    ("limit", "fits", "exceeds"),
    [("max_path", "12345", "123456"), ("max_path_parts", "2/3", "2/3/4")],
)
def test_a_path_is_bounded_with_its_prefix(name, limit, fits, exceeds):
    """The bounds hold for prefix and suffix together, and one step past them breaks the stream."""
    limits = Limits(max_path=10, max_path_parts=3)
    machine = live(name, "pref", limits=limits)
    [came] = machine.receive_data(start(name, fits), False)
    assert str(came.path) == f"pref/{fits}"
    with pytest.raises(LimitExceeded) as caught:
        machine.receive_data(start(name, exceeds), False)
    assert (caught.value.limit, caught.value.scope) == (limit, "stream")


def test_a_raised_bound_holds(name):
    """Limits above the default lift the bound: a deeper path is read, and one past the new bound breaks the stream."""
    machine = live(name, "a/" * 62, limits=Limits(max_path_parts=64))
    assert len(machine.receive_data(start(name, "b/c"), False)) == 1
    with pytest.raises(LimitExceeded) as caught:
        machine.receive_data(start(name, "b/c/d"), False)
    assert (caught.value.limit, caught.value.value, caught.value.scope) == ("max_path_parts", 65, "stream")


@pytest.mark.parametrize("name", ["moq-lite-04", "moq-lite-05", "moq-lite-06"])
def test_more_hops_than_the_limit_do_not_decode(name):
    """`max_hops` hops are read, one more is refused."""
    machine = live(name, limits=Limits(max_hops=3))
    assert len(machine.receive_data(start(name, "a", (1, 2, 3)), False)) == 1
    with pytest.raises(LimitExceeded, match="max_hops"):
        machine.receive_data(start(name, "b", (1, 2, 3, 4)), False)


@pytest.mark.parametrize("prepare", [subscriber, live])
def test_fin_means_nothing_more(name, prepare):
    """The publisher's FIN ends all announcements, and nothing after it counts."""
    machine = prepare(name)
    assert machine.receive_data(b"", True) == [AnnouncementsEnded()]
    assert machine.receive_data(start(name, "a"), False) == machine.receive_reset(0) == []


def test_fin_inside_a_message_breaks_the_stream(name):
    """A stream that finishes inside a message is broken."""
    machine = live(name)
    machine.receive_data(start(name, "a")[:-1], False)
    with pytest.raises(Malformed, match="FIN") as caught:
        machine.receive_data(b"", True)
    assert caught.value.scope == "stream"


@pytest.mark.parametrize("prepare", [subscriber, live])
def test_reset_means_refused(name, prepare):
    """A reset is reported once, with its code; STOP_SENDING alone has no event, as there is nothing left to send."""
    machine = prepare(name)
    assert machine.receive_stop(5) == []
    assert machine.receive_reset(0x33) == [RequestRefused(0x33)]
    assert machine.receive_reset(0x33) == machine.receive_data(b"\xff", True) == machine.receive_stop(5) == []


def test_a_released_machine_ignores_its_input(name):
    """After release, late announcements, ends and resets are ignored."""
    machine = live(name)
    machine.receive_data(start(name, "a"), False)
    machine.release()
    machine.release()
    assert machine.receive_data(end(name, "a"), False) == machine.receive_reset(1) == machine.receive_stop(1) == []
