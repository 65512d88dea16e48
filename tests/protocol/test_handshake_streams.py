"""The streams of the versions up to moq-lite-02 beyond the echo: what each of them has, and the quirks of peers."""

from __future__ import annotations

import attrs
import pytest

from moqt_trio.codes import SessionCode, StreamCode
from moqt_trio.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from moqt_trio.limits import Limits
from moqt_trio.protocol.core import SessionCore
from moqt_trio.protocol.events import (
    Announced,
    AnnouncementsRequested,
    FetchRequested,
    FramesReceived,
    InitialAnnouncementsDone,
    RequestFinished,
    RequestRefused,
    SubscribeRequested,
    TrackAnnounced,
    TrackInfoRequested,
    TrackUnannounced,
    Unannounced,
)
from moqt_trio.protocol.paths import track_path_local
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.messages import (
    AnnounceEnd,
    AnnounceLive,
    AnnounceRequest,
    AnnounceStart,
    Fetch,
    FetchUpdate,
    StreamKind,
    Subscribe,
    SubscribeDrop,
    SubscribeOk,
    SubscribeUpdate,
    TrackInfo,
)
from tests.protocol.harness import by_bytes, outcome, path_of
from tests.wire.strict import Frame

TRANSFORK, DEVELOP = "moq-transfork-03", "gomoqt-develop"
TUPLES = (TRANSFORK, DEVELOP)
LITE = ("moq-lite-02", "moq-lite-01")
ALL = (*TUPLES, *LITE)

each_version = pytest.mark.parametrize("name", ALL)
each_tuple_version = pytest.mark.parametrize("name", TUPLES)
each_lite_version = pytest.mark.parametrize("name", LITE)


def sides(name, limits=None):
    dialect = dialects.get(name)
    return tuple(SessionCore(dialect, is_client=side, limits=limits) for side in (True, False))


def opened(server, opening):
    stream = server.accept_bidi()
    return stream.machine, stream.receive_data(opening, False), stream


# -- every version --------------------------------------------------------------------------------------------


@each_version
@pytest.mark.parametrize("bidi", [True, False])
@pytest.mark.parametrize("number", [0x05, 0x3F])
def test_unknown_streams_close_the_session(name, bidi, number):
    """A stream of unknown type ends the session."""
    _, server = sides(name)
    stream = server.accept_bidi() if bidi else server.accept_uni()
    with pytest.raises(RemoteProtocolError, match=f"unknown type {number:#x}") as caught:
        stream.receive_data(bytes((number,)), False)
    assert (caught.value.scope, caught.value.code) == ("session", SessionCode.PROTOCOL_VIOLATION)


@each_version
def test_a_second_session_stream_closes_the_session(name):
    """There is one stream of the handshake: another one is of no known type."""
    _, server = sides(name)
    with pytest.raises(RemoteProtocolError, match="unknown type 0x0") as caught:
        server.accept_bidi().receive_data(b"\x00", False)
    assert caught.value.scope == "session"


def test_stream_types_of_develop_are_one_byte():
    """What would be the first half of a varint elsewhere is an unknown type at once."""
    _, server = sides(DEVELOP)
    with pytest.raises(RemoteProtocolError, match="unknown type 0x40"):
        server.accept_bidi().receive_data(b"\x40", False)
    _, server = sides(TRANSFORK)
    stream = server.accept_bidi()
    assert stream.receive_data(b"\x40", False) == []
    assert stream.receive_data(b"\x02", False) == []
    assert stream.kind is StreamKind.SUBSCRIBE


@each_version
@pytest.mark.parametrize("make", [lambda core: core.goaway(), lambda core: core.probe()])
def test_streams_that_none_of_them_has(name, make):
    """A feature that a version lacks is refused where it is requested."""
    with pytest.raises(LocalProtocolError, match="streams"):
        make(sides(name)[0])


# -- moq-lite-01 and -02 --------------------------------------------------------------------------------------


@each_lite_version
def test_lite_announcements(name):
    """A batch opens the replies, single messages follow; there are no hops, so no id leaves a trace."""
    dialect = dialects.get(name)
    client = SessionCore(dialect, is_client=True, hop_id=11)
    server = SessionCore(dialect, is_client=False, hop_id=77)
    subscriber = client.request_announcements("live")
    assert subscriber.opening.hex() == "0105046c697665"
    _, events, stream = opened(server, subscriber.opening)
    assert events == [AnnouncementsRequested(path_of("live"), AnnounceRequest("live"))]
    publisher = stream.machine
    initial = publisher.accept([("live/cam", (3, 4), 7, 7), ("live/.hidden", (), 0, 0)])
    assert initial.hex() == "05" + "01" + "0363616d"
    assert subscriber.receive_data(initial, False) == [
        Announced(path_of("live/cam"), initial=True),
        InitialAnnouncementsDone(),
    ]
    assert publisher.announce("live/cam", (3, 5)) == b""
    again = publisher.unannounce("live/cam") + publisher.announce("live/cam", (3, 5))
    assert again.hex() == "05000363616d" + "05010363616d"
    assert subscriber.receive_data(again, False) == [Unannounced(path_of("live/cam")), Announced(path_of("live/cam"))]
    assert subscriber.receive_data(publisher.unannounce("live/cam"), False) == [Unannounced(path_of("live/cam"))]


@each_lite_version
def test_lite_subscription(name):
    """SUBSCRIBE has a priority and nothing else; the answer has no type, and nothing may follow it."""
    client, server = sides(name)
    subscriber = client.subscribe("demo/cam", "events", priority=200, ordered=True, max_age_ms=9)
    assert subscriber.opening.hex() == "02" + "12000864656d6f2f63616d066576656e7473c8"
    _, events, stream = opened(server, subscriber.opening)
    assert events == [SubscribeRequested(path_of("demo/cam"), Subscribe(0, "demo/cam", "events", 200))]
    publisher = stream.machine
    answer = publisher.accept(4)
    assert answer.hex() == ("01c8" if name == "moq-lite-01" else "00")
    assert subscriber.receive_data(answer, False) == [SubscribeOk(priority=200 if name == "moq-lite-01" else 0)]
    assert publisher.drop(1, 2) == publisher.end(5) == b""
    update = subscriber.update(priority=9)
    assert update.hex() == "0109"
    assert publisher.receive_data(update, False) == [SubscribeUpdate(9)]
    with pytest.raises(LocalProtocolError, match="range"):
        subscriber.update(start_group=1)
    with pytest.raises(RemoteProtocolError, match="nothing more is due") as caught:
        subscriber.receive_data(b"\x00", False)
    assert caught.value.scope == "stream"


@each_lite_version
@pytest.mark.parametrize("make", [lambda core: core.fetch("a", "t", 1), lambda core: core.request_track_info("a", "t")])
def test_what_lite_02_lacks(name, make):
    """There is no request for a single group or for a track's properties."""
    with pytest.raises(LocalProtocolError, match="streams"):
        make(sides(name)[0])


# -- announcements that name tracks ---------------------------------------------------------------------------


@each_tuple_version
def test_tracks_add_up_to_broadcasts(name):
    """A broadcast is announced with its first track and unannounced with its last; each track is announced as well."""
    client, server = sides(name)
    subscriber = client.request_announcements("room")
    publisher = opened(server, subscriber.opening)[2].machine
    alice = [track_path_local("room/alice", track, Limits()) for track in ("audio", ".video")]
    data = publisher.accept([(path, (), 0, 0) for path in alice])
    assert subscriber.receive_data(data, False) == [
        Announced(path_of("room/alice"), initial=True),
        TrackAnnounced(path_of("room/alice"), "audio"),
        TrackAnnounced(path_of("room/alice"), ".video"),
        InitialAnnouncementsDone(),
    ]
    assert publisher.announce(track_path_local("room/.bob", "audio", Limits())) == b""
    data = publisher.announce("room/chat") + publisher.unannounce(alice[0]) + publisher.unannounce(alice[1])
    assert subscriber.receive_data(data, False) == [
        Announced(path_of("room")),
        TrackAnnounced(path_of("room"), "chat"),
        TrackUnannounced(path_of("room/alice"), "audio"),
        TrackUnannounced(path_of("room/alice"), ".video"),
        Unannounced(path_of("room/alice")),
    ]
    # The end of an announcement that never began, or was filtered, has no event.
    assert subscriber.receive_data(dialects.get(name).encode(AnnounceEnd(suffix="x")), False) == []


@each_tuple_version
def test_a_prefix_may_be_a_whole_track(name):
    """A request below a track's own path gets an announcement of the track, which leaves no suffix."""
    client, server = sides(name)
    subscriber = client.request_announcements("room/chat")
    publisher = opened(server, subscriber.opening)[2].machine
    data = publisher.accept([("room/chat", (), 0, 0)])
    events = subscriber.receive_data(data, False)
    assert events[:2] == [Announced(path_of("room"), initial=True), TrackAnnounced(path_of("room"), "chat")]


@each_tuple_version
def test_live_is_said_once(name):
    """The first LIVE ends the initial set, a second one has no event."""
    subscriber = sides(name)[0].request_announcements("")
    live = dialects.get(name).encode(AnnounceLive())
    assert subscriber.receive_data(live + live, False) == [InitialAnnouncementsDone()]
    events = subscriber.receive_data(dialects.get(name).encode(AnnounceStart("a/t")), False)
    assert events == [Announced(path_of("a")), TrackAnnounced(path_of("a"), "t")]


@each_tuple_version
@pytest.mark.parametrize(("suffixes", "problem"), [(("",), "without a name"), (("a/t", "a/t"), "already")])
def test_announcements_that_make_no_sense(name, suffixes, problem):
    """A track without a name, and one that is announced twice, break the stream."""
    subscriber = sides(name)[0].request_announcements("")
    data = b"".join(dialects.get(name).encode(AnnounceStart(suffix)) for suffix in suffixes)
    with pytest.raises(RemoteProtocolError, match=problem) as caught:
        subscriber.receive_data(data, False)
    assert caught.value.scope == "stream"


@each_tuple_version
def test_announced_tracks_are_bounded(name):
    """Each announced track counts against the bounds of the stream."""
    subscriber = sides(name, Limits(max_announcements=2))[0].request_announcements("")
    data = b"".join(dialects.get(name).encode(AnnounceStart(f"a/{number}")) for number in range(3))
    with pytest.raises(LimitExceeded) as caught:
        subscriber.receive_data(data, False)
    assert (caught.value.limit, caught.value.scope) == ("max_announcements", "stream")


@each_tuple_version
def test_what_cannot_be_announced(name):
    """A track's name that is no part of a path, and a path of no parts, are refused before anything is written."""
    for track in ("", "a/b"):
        with pytest.raises(LocalProtocolError, match="can't be announced"):
            track_path_local("room", track, Limits())
    with pytest.raises(LocalProtocolError, match="32 parts"):
        track_path_local("/".join("a" * 32), "t", Limits())
    assert track_path_local("", "t", Limits()) == path_of("t")
    client, server = sides(name)
    publisher = opened(server, client.request_announcements("").opening)[2].machine
    with pytest.raises(LocalProtocolError, match="at least one part"):
        publisher.accept([("", (), 0, 0)])


# -- a whole path where a suffix belongs ----------------------------------------------------------------------


def announce(name, prefix, *suffixes):
    subscriber = sides(name)[0].request_announcements(prefix)
    wire = b"".join(dialects.get(name).encode(message) for message in suffixes)
    return subscriber.receive_data(wire, False)


def test_whole_paths_are_known_by_their_prefix():
    """In develop a suffix that starts with the prefix is a whole path; in moq-transfork-03 it is a suffix."""
    broadcast, track = announce(DEVELOP, "a", AnnounceStart("a/b/t"))
    assert (broadcast, track) == (Announced(path_of("a/b"), initial=True), TrackAnnounced(path_of("a/b"), "t"))
    assert announce(TRANSFORK, "a", AnnounceStart("a/b/t"))[0] == Announced(path_of("a/a/b"), initial=True)
    assert announce(DEVELOP, "", AnnounceStart("a/b/t"))[0] == Announced(path_of("a/b"), initial=True)


def test_one_suffix_proves_that_a_peer_writes_suffixes():
    """Once a suffix does not start with the prefix, those that do are suffixes as well."""
    events = announce(DEVELOP, "a", AnnounceStart("b/t"), AnnounceStart("a/b/t"))
    assert [event for event in events if isinstance(event, Announced)] == [
        Announced(path_of("a/b"), initial=True),
        Announced(path_of("a/a/b"), initial=True),
    ]


def test_an_end_is_read_as_its_start_was():
    """What was taken for a whole path ends as one, and is a suffix once the peer has proved that it writes suffixes."""
    whole, plain = AnnounceStart("a/b/t"), AnnounceStart("c/t")
    events = announce(DEVELOP, "a", whole, plain, AnnounceEnd(suffix="a/b/t"), AnnounceEnd(suffix="c/t"))
    unannounced = [event for event in events if isinstance(event, Unannounced)]
    assert unannounced == [Unannounced(path_of("a/b")), Unannounced(path_of("a/a/b")), Unannounced(path_of("a/c"))]
    assert announce(DEVELOP, "a", whole, AnnounceEnd(suffix="a/b/t"))[2:] == [
        TrackUnannounced(path_of("a/b"), "t"),
        Unannounced(path_of("a/b")),
    ]
    assert announce(DEVELOP, "a", AnnounceEnd(suffix="a/b/t")) == []


def test_what_was_misread_is_announced_anew_with_the_proof():
    """A path that repeats its prefix is taken for a whole one at first; the proof corrects it, even onto its own."""
    wrong = [Announced(path_of("a"), initial=True), TrackAnnounced(path_of("a"), "t")]
    right = [Announced(path_of("a/a"), initial=True), TrackAnnounced(path_of("a/a"), "t")]
    taken_back = [TrackUnannounced(path_of("a"), "t"), Unannounced(path_of("a"))]
    assert announce(DEVELOP, "a", AnnounceStart("a/t")) == wrong
    # gomoqt leaves the suffix out of LIVE; a peer that writes it there writes suffixes.
    assert announce(DEVELOP, "a", AnnounceStart("a/t"), AnnounceLive()) == [
        *wrong,
        *taken_back,
        *right,
        InitialAnnouncementsDone(),
    ]
    # The suffix `t` is what the first one was taken for.
    events = announce(DEVELOP, "a", AnnounceStart("a/t"), AnnounceStart("t"))
    assert events == [*wrong, *taken_back, *right, *wrong]
    # The right path of one may be the wrong path of another.
    events = announce(DEVELOP, "a", AnnounceStart("a/a/t"), AnnounceStart("a/t"), AnnounceStart("b/t"))
    assert events[-2:] == [Announced(path_of("a/b"), initial=True), TrackAnnounced(path_of("a/b"), "t")]
    assert [str(event.path) for event in events if isinstance(event, TrackAnnounced)][-3:] == ["a/a/a", "a/a", "a/b"]


# -- ranges that can be moved and not lifted ------------------------------------------------------------------


def subscribed(name, **values):
    client, server = sides(name)
    subscriber = client.subscribe("a", "t", **values)
    return subscriber, opened(server, subscriber.opening)[2].machine


def test_an_update_of_transfork_keeps_what_it_does_not_name():
    """In moq-transfork-03 a bound of 0 in an update leaves the bound as it is."""
    subscriber, publisher = subscribed(TRANSFORK, start_group=3, end_group=9)
    for wire, start, end in (("0502000000", 3, 9), ("0502000006", 3, 5), ("0502000500", 4, 5)):
        update = SubscribeUpdate(5, start_group=start, end_group=end)
        assert publisher.receive_data(bytes.fromhex(wire), False) == [update]
    assert subscriber.update(priority=5).hex() == "050200040a"
    with pytest.raises(LocalProtocolError, match="not lift it"):
        subscriber.update(end_group=None)
    with pytest.raises(LocalProtocolError, match="not lift it"):
        subscriber.update(start_group=None)


def test_an_update_of_develop_has_every_field():
    """In develop a bound of 0 in an update is none."""
    subscriber, publisher = subscribed(DEVELOP, start_group=3, end_group=9)
    assert publisher.receive_data(bytes.fromhex("0405020000"), False) == [SubscribeUpdate(5)]
    assert subscriber.update(end_group=None).hex() == "0400020300"


def test_a_gap_that_ends_before_it_starts():
    """A range of dropped groups that is none breaks the subscription, and no more."""
    subscriber, publisher = subscribed(DEVELOP)
    subscriber.receive_data(publisher.accept(1), False)
    with pytest.raises(RemoteProtocolError, match="before it starts") as caught:
        subscriber.receive_data(bytes.fromhex("03060400"), False)
    assert caught.value.scope == "stream"


@each_tuple_version
def test_a_gap_is_no_answer(name):
    """The first reply on a subscription is INFO, whatever its bytes: the place decides the type of a message."""
    subscriber, publisher = subscribed(name)
    [answer] = subscriber.receive_data(publisher.accept(None, latest_group=7), False)
    assert isinstance(answer, SubscribeOk)
    assert (answer.start_group, answer.latest_group) == (None, 7)
    gap = dialects.get(name).encode(SubscribeDrop(1, 2))
    assert len(subscriber.receive_data(gap + gap, False)) == 2


# -- FETCH and INFO -------------------------------------------------------------------------------------------


@each_tuple_version
def test_fetch_from_a_frame(name):
    """A group is fetched from a frame on, and the priority of the fetch may change while it runs."""
    client, server = sides(name)
    subscriber = client.fetch("meeting/1234", "video", 42, priority=1, start_frame=3)
    body = "03076d656574696e67043132333405766964656f012a03"
    assert subscriber.opening.hex() == "03" + (body if name == TRANSFORK else "1800" + body)
    _, events, stream = opened(server, subscriber.opening)
    assert events == [FetchRequested(path_of("meeting/1234"), Fetch("meeting/1234", "video", 1, 42, 3))]
    update = dialects.get(name).encode(FetchUpdate(9))
    assert update.hex() == ("09" if name == TRANSFORK else "0109")
    assert stream.receive_data(update * 2, False) == [FetchUpdate(9), FetchUpdate(9)]
    frames = stream.machine.frames([Frame(b"x"), Frame(b"")])
    assert subscriber.receive_data(frames, True) == [FramesReceived([Frame(b"x"), Frame(b"")]), RequestFinished()]


def test_a_fetch_update_of_the_newer_versions():
    """moq-lite has no FETCH_UPDATE."""
    with pytest.raises(LocalProtocolError, match="FetchUpdate"):
        dialects.get("moq-lite-06").encode(FetchUpdate(5))


@each_tuple_version
def test_info(name):
    """A track's properties, and its newest group, can be requested on a stream of its own."""
    client, server = sides(name)
    subscriber = client.request_track_info("meeting/1234", "video")
    body = "03076d656574696e67043132333405766964656f"
    assert subscriber.opening.hex() == "04" + (body if name == TRANSFORK else "14" + body)
    _, events, stream = opened(server, subscriber.opening)
    assert events == [TrackInfoRequested(path_of("meeting/1234"), "video")]
    info = TrackInfo(2, False, 1500, latest_group=42)
    data = stream.machine.reply(info)
    assert data.hex() == ("022a0245dc" if name == TRANSFORK else "03022a02")
    expected = info if name == TRANSFORK else attrs.evolve(info, max_age_ms=0)
    assert subscriber.receive_data(data, True) == [expected]
    refused = client.request_track_info("a", "t")
    assert refused.receive_reset(1) == [RequestRefused(1)]


def test_the_fetch_that_gomoqt_always_sends():
    """gomoqt's fetch names no track and is counted a byte short: it is refused as not found, and breaks nothing."""
    wire = bytes.fromhex("03" + "040000000000")
    for pieces in ([wire], by_bytes(wire)):
        _, server = sides(DEVELOP)
        events, error = outcome(server.accept_bidi, pieces, fin=False)
        assert (events, error) == ([FetchRequested(path_of(""), Fetch("", "", 0, 0))], None)


@pytest.mark.parametrize(
    ("wire", "event"),
    [
        ("010000", AnnouncementsRequested(path_of(""), AnnounceRequest(""))),
        ("040000", TrackInfoRequested(path_of(""), "")),
    ],
)
def test_zeros_after_a_request(wire, event):
    """After a request of develop a zero is ignored, and any other byte is an error."""
    _, server = sides(DEVELOP)
    stream = server.accept_bidi()
    assert stream.receive_data(bytes.fromhex(wire + "0000"), False) == [event]
    assert stream.receive_data(b"\x00", False) == []
    with pytest.raises(RemoteProtocolError, match="nothing more is due"):
        stream.receive_data(b"\x00\x01", False)
    _, server = sides(TRANSFORK)
    stream = server.accept_bidi()
    with pytest.raises(RemoteProtocolError, match="nothing more is due"):
        stream.receive_data(bytes.fromhex("010000"), False)


def test_parameters_reach_the_driver():
    """The event has what develop adds to a request."""
    _, server = sides(DEVELOP)
    parameters = ((2, b"tok"),)
    events = server.accept_bidi().receive_data(bytes.fromhex("01" + "07" + "00" + "01" + "0203746f6b"), False)
    assert events == [AnnouncementsRequested(path_of(""), AnnounceRequest("", parameters=parameters))]
    wire = "02" + "13080105766964656f40c8020309010203746f6b"
    events = server.accept_bidi().receive_data(bytes.fromhex(wire), False)
    request = Subscribe(8, "", "video", 200, False, 0, 3, 9, parameters=parameters)
    assert events == [SubscribeRequested(path_of(""), request)]


def test_dropped_groups_are_reported_in_the_numbers_of_the_version():
    """A code is written with the version's number and read as this library's; one without a name is kept."""
    subscriber, publisher = subscribed(DEVELOP)
    subscriber.receive_data(publisher.accept(1), False)
    for code, number in ((StreamCode.DELIVERY_TIMEOUT, "04"), (StreamCode.WRONG_SIZE, "00"), (99, "4063")):
        assert publisher.drop(1, 1, code).hex()[2:] == "0101" + number
    (event,) = subscriber.receive_data(bytes.fromhex("03010104"), False)
    assert event.code == StreamCode.DELIVERY_TIMEOUT
    (event,) = subscriber.receive_data(bytes.fromhex("03010107"), False)
    assert event.code == 7
