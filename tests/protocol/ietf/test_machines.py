"""The machines of an IETF session, fed with what moq-rs wrote on draft 18, and what they refuse."""

from __future__ import annotations

import pytest

from moqt_trio.codes import SessionCode, StreamCode
from moqt_trio.errors import LimitExceeded, LocalProtocolError, Malformed, RemoteProtocolError
from moqt_trio.frame import Frame
from moqt_trio.limits import Limits
from moqt_trio.protocol.events import (
    Announced,
    AnnouncementsEnded,
    AnnouncementsRequested,
    FramesReceived,
    GroupFinished,
    GroupStarted,
    InitialAnnouncementsDone,
    RequestCancelled,
    RequestFinished,
    RequestRefused,
    SubscribeRequested,
    Unannounced,
)
from moqt_trio.protocol.ietf.events import AliasShared, UpdateAnswered
from moqt_trio.protocol.ietf.state import MAX_PARKED
from moqt_trio.wire.messages import Goaway, Setup, SubscribeOk, SubscribeUpdate
from tests.protocol.ietf.cores import core, feed

DRAFTS = ["moqt-17", "moqt-18", "moqt-19", "moqt-20", "moqt-21", "moqt-22"]
EACH_DRAFT = pytest.mark.parametrize("name", DRAFTS)

# Written by moq-rs's wheel 0.5.1 on draft 18.
SETUP = "af00001c070b6d6f712d6c6974652d7273c40b4dfe01ef48613ede4e06010201"
CLIENT_SETUP = (
    "af00003801092f626173653f783d31040f3132372e302e302e313a3237303138020b6d6f712d6c6974652d7273"
    "c40b4dfe1ce84465838ce006010201"
)
SUBSCRIBE_NAMESPACE = "500007000001c40b5e01"
NAMESPACE = "08000a02046d696e650363616d"
NAMESPACE_DONE = "0e000a02046d696e650363616d"
REQUEST_OK = "07000100"
SUBSCRIBE = "03001c02020470656572056b6e6f776e046461746104100110ff0101020102"
SUBSCRIBE_OK = "04000e020109020208cf42400680801402"
NOT_FOUND = "05000c1000096e6f7420666f756e64"
PUBLISH_DONE = "0b000e02030b747261636b20656e646564"
EMPTY_TAIL = "19020280"
GROUP = "59020780000410c052080148000410c055f00448484848"


def asked(wire: str, **options):
    """Returns the machine of a client's request at a server, and its events."""
    stream = core(is_client=False, **options).accept_bidi()
    events = feed(stream, wire)
    return stream, events


# -- the control stream ------------------------------------------------------------------------------------------


@EACH_DRAFT
def test_setup_and_goaway(name):
    """Each side's control stream opens with SETUP, and carries a GOAWAY later."""
    client, server = core(name, is_client=True), core(name, is_client=False)
    for here, there in ((client, server), (server, client)):
        opening = here.setup_stream()
        assert opening is not None
        stream = there.accept_uni()
        assert stream.receive_data(opening, False) == [Setup()]
        assert there.peer_setup == Setup()
        uri = "" if here is client else "moqt://elsewhere/"
        assert stream.receive_data(here.goaway(uri).opening, False) == [Goaway(uri)]
        assert there.goaway_received == uri
        with pytest.raises(LocalProtocolError, match="once"):
            here.goaway()


def test_setup_of_moq_rs():
    """Options that are unknown here are skipped; the path is that of a client."""
    assert feed(core(is_client=True).accept_uni(), SETUP) == [Setup()]
    server = core(is_client=False, path_on_wire=True)
    assert feed(server.accept_uni(), CLIENT_SETUP) == [Setup(path="/base?x=1")]


@pytest.mark.parametrize(("is_client", "path_on_wire"), [(True, True), (False, False)], ids=["server's", "with a URI"])
def test_a_path_where_none_may_be(is_client, path_on_wire):
    """It ends the session with INVALID_PATH."""
    with pytest.raises(RemoteProtocolError) as caught:
        feed(core(is_client=is_client, path_on_wire=path_on_wire).accept_uni(), CLIENT_SETUP)
    assert (caught.value.scope, caught.value.code) == ("session", 0x8)


@pytest.mark.parametrize(
    "wire",
    [SETUP + SETUP, SETUP + "1000020000" + "1000020000", SETUP + REQUEST_OK, "af00000201"],
    ids=["SETUP twice", "GOAWAY twice", "another message", "cut short"],
)
def test_a_broken_control_stream(wire):
    """It ends the session; so does its end."""
    stream = core(is_client=True).accept_uni()
    with pytest.raises(RemoteProtocolError) as caught:
        feed(stream, wire, fin=True)
    assert caught.value.scope == "session"


def test_a_second_control_stream():
    side = core(is_client=True)
    feed(side.accept_uni(), SETUP)
    with pytest.raises(RemoteProtocolError, match="second control stream"):
        feed(side.accept_uni(), SETUP)


# -- namespaces --------------------------------------------------------------------------------------------------


@EACH_DRAFT
def test_namespaces(name):
    """What is announced below the prefix arrives, and what ends; a hidden path does not."""
    client, server = core(name, is_client=True), core(name, is_client=False)
    requester = client.request_announcements("a")
    stream = server.accept_bidi()
    [event] = stream.receive_data(requester.opening, False)
    assert isinstance(event, AnnouncementsRequested)
    assert event.prefix == "a"
    responder = stream.machine
    listed = [(path, (), 0, 0) for path in ("a", "a/b", "a/.c")]
    events = requester.receive_data(responder.accept(listed), False)
    assert [type(found) for found in events] == [InitialAnnouncementsDone, Announced, Announced]
    assert [str(found.path) for found in events[1:]] == ["a", "a/b"]
    assert responder.announce("a/b") == b""
    assert [type(found) for found in requester.receive_data(responder.unannounce("a/b"), False)] == [Unannounced]
    assert responder.unannounce("a/b") == b""
    assert requester.receive_data(b"", True) == [AnnouncementsEnded()]


def test_namespaces_of_moq_rs():
    """Its request is read with its private parameter, and its replies."""
    _, [event] = asked(SUBSCRIBE_NAMESPACE)
    assert isinstance(event, AnnouncementsRequested)
    assert event.prefix == ""
    requester = core(is_client=True).request_announcements("")
    assert feed(requester, REQUEST_OK + NAMESPACE) == [
        InitialAnnouncementsDone(),
        Announced(event.prefix.join("mine/cam")),
    ]
    assert feed(requester, NAMESPACE) == []
    assert feed(requester, NAMESPACE_DONE) == [Unannounced(event.prefix.join("mine/cam"))]
    assert feed(requester, NAMESPACE_DONE) == []


def test_a_refused_namespace_subscription():
    requester = core(is_client=True).request_announcements("a")
    assert feed(requester, NOT_FOUND) == [RequestRefused(StreamCode.NOT_FOUND)]
    assert feed(requester, NAMESPACE) == []


def test_more_namespaces_than_are_kept():
    """They break the list, not the session."""
    requester = core(is_client=True, limits=Limits(max_announcements=1)).request_announcements("")
    feed(requester, REQUEST_OK + NAMESPACE)
    with pytest.raises(LimitExceeded) as caught:
        feed(requester, "080007010567726f7570")
    assert caught.value.scope == "stream"


@pytest.mark.parametrize("field", [b"a/b", b"\xff", b""], ids=["a slash", "no UTF-8", "nothing"])
def test_a_namespace_that_no_path_has(field):
    """A request for it is refused; told by a publisher, it is left out. An empty field breaks the draft's own rule."""
    namespace = bytes((1, len(field))) + field
    request = b"\x00" + namespace + b"\x00"
    with pytest.raises(RemoteProtocolError) as caught:
        asked((b"\x50\x00" + bytes((len(request),)) + request).hex())
    assert caught.value.scope == ("stream" if field else "session")
    requester = core(is_client=True).request_announcements("")
    if field:
        assert feed(requester, REQUEST_OK + (b"\x08\x00" + bytes((len(namespace),)) + namespace).hex()) == [
            InitialAnnouncementsDone()
        ]


# -- subscriptions -----------------------------------------------------------------------------------------------


def subscribed(name: str = "moqt-18"):
    """Returns both cores, and both ends of a subscription that was accepted."""
    client, server = core(name, is_client=True), core(name, is_client=False)
    requester = client.subscribe("a/b", "t", priority=200)
    stream = server.accept_bidi()
    [event] = stream.receive_data(requester.opening, False)
    assert isinstance(event, SubscribeRequested)
    assert (event.path, event.request.track, event.request.priority) == ("a/b", "t", 200)
    [accepted] = requester.receive_data(stream.machine.accept(None, 3, (3, 1)), False)
    assert accepted == SubscribeOk(None, newest=(3, 1))
    return client, server, requester, stream.machine


@EACH_DRAFT
def test_a_subscription(name):
    """Groups arrive by the alias, with the ids of their frames; PUBLISH_DONE ends it."""
    client, server, requester, responder = subscribed(name)
    sender = server.group(responder.request.subscribe_id, 7)
    stream = client.accept_uni()
    frames = [Frame(b"x", 5), Frame(b"", 6)]
    events = stream.receive_data(sender.opening + sender.frames(frames), True)
    assert events[0] == GroupStarted(requester.subscribe_id, 7, 0, priority=127)
    assert isinstance(events[1], FramesReceived)
    assert [(bytes(frame), frame.timestamp, frame.object_id) for frame in events[1].frames] == [
        (b"x", 5, 0),
        (b"", 6, 1),
    ]
    assert events[2] == GroupFinished()
    assert requester.receive_data(responder.end(8), True) == [RequestFinished(streams=0)]


@EACH_DRAFT
def test_a_group_from_its_middle(name):
    """The first object's id says where it starts, however the stream is cut."""
    client, server, requester, responder = subscribed(name)
    sender = server.group(responder.request.subscribe_id, 7, 300)
    data = sender.opening + sender.frames([Frame(b"x"), Frame(b"y")])
    for cut in range(1, len(data)):
        stream = client.accept_uni()
        events = stream.receive_data(data[:cut], False) + stream.receive_data(data[cut:], True)
        assert events[0] == GroupStarted(requester.subscribe_id, 7, 300, False, priority=127)
        ids = [frame.object_id for event in events if isinstance(event, FramesReceived) for frame in event.frames]
        assert ids == [300, 301]


def test_a_subscription_of_moq_rs():
    """Its request, and its answers."""
    stream, [event] = asked(SUBSCRIBE)
    assert isinstance(event, SubscribeRequested)
    request = event.request
    assert (event.path, request.track, request.priority, request.ordered) == ("peer/known", "data", 0, False)
    assert stream.machine.start == "object"
    client = core(is_client=True)
    requester = client.subscribe("peer/known", "data")
    assert feed(requester, SUBSCRIBE_OK) == [SubscribeOk(None, newest=(2, 2))]
    tail = client.accept_uni()
    assert feed(tail, EMPTY_TAIL, fin=True) == [
        GroupStarted(requester.subscribe_id, 2, 0, False, priority=127),
        GroupFinished(),
    ]
    assert isinstance(feed(client.accept_uni(), GROUP)[1], FramesReceived)
    assert feed(requester, PUBLISH_DONE, fin=True) == [RequestFinished(streams=1)]


def test_names_that_are_no_text():
    """A track whose name is no UTF-8 is one that is not there; a text that UTF-8 cannot hold is refused here."""
    stream, [event] = asked(SUBSCRIBE.replace("0464617461", "04ff617461"))
    assert isinstance(event, SubscribeRequested)
    assert event.path == ""
    assert stream.machine.refusal(StreamCode.NOT_FOUND)
    for path, track in (("a\ud800", "t"), ("a", "\ud800")):
        with pytest.raises(LocalProtocolError, match="UTF-8"):
            core(is_client=True).subscribe(path, track)
    with pytest.raises(LocalProtocolError, match="UTF-8"):
        core(is_client=True).request_announcements("\ud800")


def test_an_update_of_a_list():
    """It is refused: the list ends, and the session goes on."""
    stream, _ = asked(SUBSCRIBE_NAMESPACE)
    stream.machine.accept()
    with pytest.raises(RemoteProtocolError) as caught:
        feed(stream, "0200020200")
    assert caught.value.scope == "stream"


def test_a_refused_subscription():
    """REQUEST_ERROR says so in one message; after it, nothing is said any more."""
    requester = core(is_client=True).subscribe("a", "t")
    assert feed(requester, NOT_FOUND) == [RequestRefused(StreamCode.NOT_FOUND)]
    stream, _ = asked(SUBSCRIBE)
    refusal = stream.machine.refusal(StreamCode.NOT_FOUND)
    assert feed(core(is_client=True).subscribe("a", "t"), refusal.hex()) == [RequestRefused(StreamCode.NOT_FOUND)]
    assert stream.machine.refusal(StreamCode.NOT_FOUND) == b""
    assert stream.machine.accept(None) == b""


@EACH_DRAFT
def test_updates(name):
    """Only what changes is written, and the answer is read."""
    _, _, requester, responder = subscribed(name)
    data = requester.update(priority=3)
    events = responder.receive_data(data, False)
    assert events == [SubscribeUpdate(3, False, 0, None, None, 0, None)]
    answer = responder.answer_updates()
    assert responder.answer_updates() == b""
    assert requester.receive_data(answer, False) == [UpdateAnswered(None)]
    assert requester.take_update() == b""
    assert requester.update(priority=3) == b""
    with pytest.raises(RemoteProtocolError):
        requester.receive_data(answer, False)


def test_updates_before_the_answer():
    """They are answered once the subscription is; a peer that takes no answers makes no more."""
    stream, _ = asked(SUBSCRIBE)
    update = "0200020400"
    for request_id in range(4, 4 + 2 * 32, 2):
        feed(stream, update[:6] + f"{request_id:02x}00")
    assert stream.machine.answer_updates() == b""
    stream.machine.accept(None)
    assert stream.machine.answer_updates().hex() == "07000100" * 32
    for request_id in range(70, 70 + 2 * 29, 2):
        feed(stream, update[:6] + f"{request_id:02x}00")
    assert len(stream.machine.answer_updates()) == 29 * 4
    updates = "".join(f"020003{request_id | 0x8000:04x}00" for request_id in range(4096, 4096 + 2 * 33, 2))
    with pytest.raises(RemoteProtocolError, match="more than 32") as caught:
        feed(stream, updates)
    assert (caught.value.scope, caught.value.code) == ("session", 0x1B)


@EACH_DRAFT
def test_a_range(name):
    """Absolute starts and ends travel as they are."""
    client, server = core(name, is_client=True), core(name, is_client=False)
    requester = client.subscribe("a", "t", start_group=4, start_frame=2, end_group=9)
    [event] = server.accept_bidi().receive_data(requester.opening, False)
    request = event.request
    assert (request.start_group, request.start_frame, request.end_group, request.end_frame) == (4, 2, 9, None)
    with pytest.raises(LocalProtocolError):
        client.subscribe("a", "t", end_group=9)
    [event] = server.accept_bidi().receive_data(client.subscribe("a", "t", start_group=0).opening, False)
    assert (event.request.start_group, event.request.start_frame) == (0, 0)


@EACH_DRAFT
def test_how_a_subscriber_cancels(name):
    """By a reset or a stop in each draft; by FIN up to 18."""
    for cancel in ("fin", "reset", "stop"):
        *_, responder = subscribed(name)
        if cancel == "fin":
            found = responder.receive_data(b"", True)
            assert found == ([RequestCancelled(None)] if name in ("moqt-17", "moqt-18") else [])
        else:
            found = responder.receive_reset(1) if cancel == "reset" else responder.receive_stop(1)
            assert found == [RequestCancelled(1)]


@EACH_DRAFT
def test_a_stop_after_fin(name):
    """This is how moq-rs unsubscribes: it cancels once, in each draft."""
    *_, responder = subscribed(name)
    found = responder.receive_data(b"", True) + responder.receive_stop(1)
    assert [type(event) for event in found] == [RequestCancelled]
    responder.release()
    assert responder.receive_stop(1) == []


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("moqt-17", 4, StreamCode.GOING_AWAY),
        ("moqt-17", 6, StreamCode.TOO_FAR_BEHIND),
        ("moqt-18", 5, StreamCode.TOO_FAR_BEHIND),
        ("moqt-18", 6, StreamCode.INTERNAL_ERROR),
        ("moqt-22", 0x12, StreamCode.MALFORMED_TRACK),
    ],
)
def test_how_a_publisher_ends(name, status, code):
    """A status that is no end of the track fails the subscription with its code."""
    _, _, requester, _ = subscribed(name)
    assert feed(requester, f"0b0003{status:02x}0000", fin=True) == [RequestRefused(code)]


# -- aliases -----------------------------------------------------------------------------------------------------


def test_a_group_that_overtakes_its_alias():
    """It waits, with its bytes, until SUBSCRIBE_OK names the alias."""
    client = core(is_client=True)
    requester = client.subscribe("peer/known", "data")
    early = client.accept_uni()
    assert feed(early, GROUP, fin=True) == []
    assert early.machine.parked
    assert client.parked(requester.subscribe_id) == []
    feed(requester, SUBSCRIBE_OK)
    assert client.parked(requester.subscribe_id) == [early.machine]
    events = early.machine.receive_data(b"", True)
    assert not early.machine.parked
    assert client.parked(requester.subscribe_id) == []
    assert events[0] == GroupStarted(requester.subscribe_id, 7, 0, priority=127)
    assert isinstance(events[1], FramesReceived)
    assert events[2] == GroupFinished()
    early.release()
    assert client.parked(requester.subscribe_id) == []


def test_a_group_of_a_subscription_that_ended():
    """It is refused at once, and waits for nothing."""
    client = core(is_client=True)
    requester = client.subscribe("peer/known", "data")
    feed(requester, SUBSCRIBE_OK)
    requester.release()
    with pytest.raises(RemoteProtocolError) as caught:
        feed(client.accept_uni(), GROUP)
    assert (caught.value.scope, caught.value.code) == ("stream", StreamCode.CANCELLED)


def test_many_groups_of_an_unknown_alias():
    """So many wait; the next one is refused, and a place is free once one has gone."""
    client = core(is_client=True)
    waiting = [client.accept_uni() for _ in range(MAX_PARKED)]
    for stream in waiting:
        feed(stream, GROUP)
    with pytest.raises(RemoteProtocolError, match="more than 32") as caught:
        feed(client.accept_uni(), GROUP)
    assert caught.value.scope == "stream"
    waiting[0].release()
    assert feed(client.accept_uni(), GROUP) == []


def test_one_alias_for_two_subscriptions():
    """It ends the session with DUPLICATE_TRACK_ALIAS; from 19 on it is allowed, and the second is not accepted here."""
    client = core("moqt-18", is_client=True)
    feed(client.subscribe("a", "t"), SUBSCRIBE_OK)
    with pytest.raises(RemoteProtocolError) as caught:
        feed(client.subscribe("a", "t"), SUBSCRIBE_OK)
    assert (caught.value.scope, caught.value.code) == ("session", 0x5)
    client = core("moqt-19", is_client=True)
    feed(client.subscribe("a", "t"), SUBSCRIBE_OK)
    assert feed(client.subscribe("a", "t"), SUBSCRIBE_OK) == [AliasShared()]


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_id", [1, 2], ids=["of the other side", "used"])
def test_request_ids(request_id):
    """A client's are even, and each is used once; else the session ends with INVALID_REQUEST_ID."""
    server = core(is_client=False)
    assert feed(server.accept_bidi(), SUBSCRIBE)
    wire = SUBSCRIBE[:6] + f"{request_id:02x}" + SUBSCRIBE[8:]
    with pytest.raises(RemoteProtocolError) as caught:
        feed(server.accept_bidi(), wire)
    assert (caught.value.scope, caught.value.code) == ("session", 0x4)


def test_request_ids_that_skip():
    """Requests overtake each other, so lower ids may follow; but a peer that skips for ever fills memory."""
    server = core(is_client=False, limits=Limits(max_subscriptions=10**6))

    def ask(request_id: int) -> None:
        body = server._state.profile.encode(request_id) + bytes.fromhex(SUBSCRIBE)[4:]
        stream = server.accept_bidi()
        stream.receive_data(b"\x03" + len(body).to_bytes(2, "big") + body, False)
        stream.release()

    for request_id in range(2, 2 * 1024 + 2, 2):
        ask(request_id)
    with pytest.raises(RemoteProtocolError, match="skip"):
        ask(2 * 1024 + 2)


@pytest.mark.parametrize(
    ("wire", "bidirectional"),
    [("04000e", True), ("3f0000", True), ("00", False), ("09", False)],
    ids=["a reply", "an unknown message", "an unknown stream", "another"],
)
def test_unknown_streams(wire, bidirectional):
    """They end the session."""
    side = core(is_client=False)
    with pytest.raises(RemoteProtocolError) as caught:
        feed(side.accept_bidi() if bidirectional else side.accept_uni(), wire)
    assert (caught.value.scope, caught.value.code) == ("session", SessionCode.PROTOCOL_VIOLATION)


def test_padding():
    """It is read and dropped."""
    assert feed(core(is_client=True).accept_uni(), "f0132b3e28" + "00" * 50, fin=True) == []


def test_a_header_that_is_cut_short():
    """It breaks the stream."""
    with pytest.raises(Malformed) as caught:
        feed(core(is_client=True).accept_uni(), "5902", fin=True)
    assert caught.value.scope == "stream"


@pytest.mark.parametrize(
    ("method", "arguments"),
    [("probe", ())],
)
def test_what_the_core_lacks(method, arguments):
    """It says so."""
    with pytest.raises(LocalProtocolError, match="moqt-18 has no"):
        getattr(core(is_client=True), method)(*arguments)
