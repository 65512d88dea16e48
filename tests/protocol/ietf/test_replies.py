"""What each request makes of what comes on its stream: an answer, a refusal, a GOAWAY, a message out of its place."""

from __future__ import annotations

import attrs
import pytest

from moqt_trio.codes import SessionCode, StreamCode
from moqt_trio.errors import LocalProtocolError, Malformed, RemoteProtocolError
from moqt_trio.frame import Frame
from moqt_trio.limits import Limits
from moqt_trio.path import BroadcastPath
from moqt_trio.protocol.events import GroupFinished, GroupStarted, RequestRefused
from moqt_trio.protocol.group import Subgroup
from moqt_trio.protocol.ietf.endings import VirtualRequest, ending
from moqt_trio.protocol.ietf.events import PastRange
from moqt_trio.wire.ietf import messages as ietf
from moqt_trio.wire.ietf.filters import Filter, Start
from moqt_trio.wire.ietf.names import TrackName
from moqt_trio.wire.ietf.objects import ObjectDatagram, write_datagram
from moqt_trio.wire.ietf.parameters import Parameters
from tests.protocol.ietf.test_machines import core, feed

DRAFTS = [f"moqt-{draft}" for draft in range(17, 23)]
EACH_DRAFT = pytest.mark.parametrize("name", DRAFTS)

NOT_THERE = ietf.RequestError(None, 0x10)
REQUESTS = {
    "announcements": lambda client: client.request_announcements("a"),
    "tracks": lambda client: client.request_tracks("a"),
    "announcement": lambda client: client.publish_namespace(BroadcastPath.parse("a/b")),
    "subscription": lambda client: client.subscribe("a", "t"),
    "fetch": lambda client: client.fetch("a", "t", 0),
    "status": lambda client: client.request_track_info("a", "t"),
}
EACH_REQUEST = pytest.mark.parametrize("kind", REQUESTS)


def asked(name: str, kind: str):
    """Returns a request of a client's, and the codec that its server writes with."""
    client = core(name, is_client=True)
    machine = REQUESTS[kind](client)
    assert machine.opening
    return machine, client._state.codec


def accepted(kind: str, codec) -> bytes:
    match kind:
        case "subscription":
            return codec.encode(ietf.SubscribeOk(None, 7))
        case "fetch":
            return codec.encode(ietf.FetchOk(None, False, 0, 0))
        case _:
            return codec.encode(ietf.RequestOk(None))


@EACH_REQUEST
@EACH_DRAFT
def test_a_refusal(name, kind):
    """It ends the request with its code, and nothing that follows it counts."""
    machine, codec = asked(name, kind)
    refusal = codec.encode(ietf.RequestError(None, 0x10, "there is none"))
    events = machine.receive_data(refusal, True)
    assert [event for event in events if isinstance(event, RequestRefused)] == [RequestRefused(StreamCode.NOT_FOUND)]
    assert machine.receive_data(refusal, False) == []


@EACH_REQUEST
@EACH_DRAFT
def test_a_goaway_on_a_request(name, kind):
    """It is legal before the answer and after it, and changes nothing here."""
    machine, codec = asked(name, kind)
    goaway = codec.encode(ietf.Goaway("moqt://elsewhere/"))
    assert machine.receive_data(goaway, False) == []
    machine.receive_data(accepted(kind, codec), False)
    if kind != "status":
        assert machine.receive_data(goaway, False) == []


@EACH_REQUEST
@EACH_DRAFT
def test_a_reply_to_something_else(name, kind):
    """It ends the session."""
    machine, codec = asked(name, kind)
    wrong = ietf.PublishDone(None, 2, 0) if kind != "subscription" else ietf.NamespaceFound((b"x",))
    with pytest.raises(RemoteProtocolError) as caught:
        machine.receive_data(codec.encode(wrong), False)
    assert (caught.value.scope, caught.value.code) == ("session", SessionCode.PROTOCOL_VIOLATION)


@pytest.mark.parametrize("name", ["moqt-16", *DRAFTS])
def test_namespaces_among_tracks(name):
    """One message asks for both in drafts 16 and 17, and moq-relay 0.17 answers each with namespaces: they are ignored.

    From 18 on they break the session.
    """
    machine, codec = asked(name, "tracks")
    machine.receive_data(codec.encode(ietf.RequestOk(machine.request_id if name == "moqt-16" else None)), False)
    found = codec.encode(ietf.NamespaceFound((b"x",))) + codec.encode(ietf.NamespaceDone((b"x",)))
    if name in ("moqt-16", "moqt-17"):
        assert machine.receive_data(found, False) == []
        blocked = codec.encode(ietf.PublishBlocked((b"x",), b"t")) if name == "moqt-17" else b""
        assert bool(machine.receive_data(blocked, False)) == bool(blocked)
    else:
        with pytest.raises(RemoteProtocolError):
            machine.receive_data(found, False)


@EACH_REQUEST
@EACH_DRAFT
def test_a_second_acceptance(name, kind):
    """It ends the session, where the first one did not end the request."""
    machine, codec = asked(name, kind)
    machine.receive_data(accepted(kind, codec), False)
    with pytest.raises(RemoteProtocolError) as caught:
        machine.receive_data(accepted(kind, codec), False)
    assert caught.value.scope == "session"


@EACH_DRAFT
def test_the_end_of_an_announcement(name):
    """A FIN follows the acceptance without harm, and breaks the session before it; a reset or a stop refuses."""
    machine, codec = asked(name, "announcement")
    assert machine.receive_data(accepted("announcement", codec), True) == []
    machine, _ = asked(name, "announcement")
    with pytest.raises(RemoteProtocolError):
        machine.receive_data(b"", True)
    for end in ("reset", "stop"):
        machine, _ = asked(name, "announcement")
        assert getattr(machine, f"receive_{end}")(1) == [RequestRefused(1)]


@pytest.mark.parametrize("kind", ["announcements", "tracks", "status", "fetch", "announcement"])
@EACH_DRAFT
def test_a_goaway_behind_a_request_of_the_peer(name, kind):
    """It changes nothing; a message that the requester may not send ends the session."""
    machine, codec = asked(name, kind)
    stream = core(name, is_client=False).accept_bidi()
    stream.receive_data(machine.opening, False)
    assert stream.receive_data(codec.encode(ietf.Goaway("")), False) == []
    with pytest.raises(RemoteProtocolError) as caught:
        stream.receive_data(codec.encode(ietf.PublishDone(None, 2, 0)), False)
    assert caught.value.scope == "session"


@EACH_DRAFT
def test_namespaces_that_are_repeated(name):
    """A namespace that is there already, and the end of one that is not, are no events."""
    machine, codec = asked(name, "announcements")
    machine.receive_data(accepted("announcements", codec), False)
    found, done = (codec.encode(kind((b"x",))) for kind in (ietf.NamespaceFound, ietf.NamespaceDone))
    assert len(machine.receive_data(found, False)) == 1
    assert machine.receive_data(found, False) == []
    assert len(machine.receive_data(done, False)) == 1


# -- data ----------------------------------------------------------------------------------------------------------


def awaiting(name: str):
    """Returns a client that waits for the acceptance of a subscription, and a datagram of alias 9."""
    client = core(name, is_client=True, limits=Limits(max_parameters=2))
    requester = client.subscribe("a", "t")
    assert requester.opening
    frame = Frame(b"x")
    frame.object_id = 0
    return client, requester, write_datagram(ObjectDatagram(0x04, 9, 1, frame, 128), client._state.profile)


@EACH_DRAFT
def test_datagrams_that_wait_for_nothing(name):
    """One with too many properties, and one of an alias that has ended, are dropped."""
    client, requester, data = awaiting(name)
    frame = Frame(b"x")
    frame.object_id = 0
    frame.properties = tuple((kind, 1) for kind in (0x70, 0x72, 0x74))
    many = write_datagram(ObjectDatagram(0x05, 9, 1, frame, 128), client._state.profile)
    assert client.receive_datagram(many) is None
    assert client.dropped_datagrams == 1
    codec = client._state.codec
    requester.receive_data(codec.encode(ietf.SubscribeOk(None, 9)), False)
    requester.release()
    assert client.subscribe("a", "t").opening
    assert client.receive_datagram(data) is None
    assert client.dropped_datagrams == 2


@EACH_DRAFT
def test_aliases_that_ended_long_ago(name):
    """The last 256 are remembered: streams of the others wait as those of unknown ones do."""
    client = core(name, is_client=True)
    codec = client._state.codec
    for alias in range(300):
        requester = client.subscribe("a", "t")
        requester.receive_data(codec.encode(ietf.SubscribeOk(None, alias)), False)
        requester.release()
    encode = client._state.profile.encode
    for alias, parks in ((299, False), (0, True)):
        stream = client.accept_uni()
        header = b"\x10" + encode(alias) + encode(0) + b"\x80" + b"\x00\x01x"
        if parks:
            assert stream.receive_data(header, False) == []
            assert stream.machine.parked
        else:
            with pytest.raises(RemoteProtocolError) as caught:
                stream.receive_data(header, False)
            assert (caught.value.scope, caught.value.code) == ("stream", StreamCode.CANCELLED)


@EACH_DRAFT
def test_a_whole_group_before_its_alias(name):
    """A stream that ended while it waited is read once it is known."""
    client = core(name, is_client=True)
    requester = client.subscribe("a", "t")
    stream = client.accept_uni()
    encode = client._state.profile.encode
    assert stream.receive_data(b"\x18" + encode(9) + encode(4) + b"\x80", False) == []
    assert stream.receive_data(b"\x00\x01x", False) == []
    assert stream.receive_data(b"", True) == []
    requester.receive_data(client._state.codec.encode(ietf.SubscribeOk(None, 9)), False)
    events = stream.receive_data(b"", False)
    assert isinstance(events[0], GroupStarted)
    assert events[-1] == GroupFinished()


@EACH_DRAFT
@pytest.mark.parametrize("field", ["group", "subgroup"])
def test_numbers_beyond_those_of_a_group(name, field):
    """The stream is broken, and not the session."""
    client = core(name, is_client=True)
    requester = client.subscribe("a", "t")
    requester.receive_data(client._state.codec.encode(ietf.SubscribeOk(None, 9)), False)
    large = b"\xff" * 9
    encode = client._state.profile.encode
    group, subgroup = (large, b"\x00") if field == "group" else (encode(1), large)
    with pytest.raises(Malformed) as caught:
        client.accept_uni().receive_data(b"\x14" + encode(9) + group + subgroup + b"\x80" + b"\x00\x01x", False)
    assert (caught.value.scope, caught.value.code) == ("stream", StreamCode.MALFORMED_TRACK)


# -- how requests are ended by messages (14 to 16) -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["moqt-14", "moqt-15", "moqt-16"])
def test_the_message_that_ends_a_request(name):
    """Section 3.4 of the drafts: each kind has its own, and who made it counts."""
    state = core(name, is_client=True)._state
    expected = {
        (ietf.Subscribe, True): ietf.Unsubscribe,
        (ietf.Subscribe, False): ietf.PublishDone,
        (ietf.Publish, True): ietf.PublishDone,
        (ietf.Publish, False): ietf.Unsubscribe,
        (ietf.Fetch, True): ietf.FetchCancel,
        (ietf.Fetch, False): None,
        (ietf.PublishNamespace, True): ietf.PublishNamespaceDone,
        (ietf.PublishNamespace, False): ietf.PublishNamespaceCancel,
        (ietf.SubscribeNamespace, True): None if name == "moqt-14" else ietf.UnsubscribeNamespace,
        (ietf.SubscribeNamespace, False): None,
        (ietf.TrackStatus, True): None,
    }
    for (kind, ours), message in expected.items():
        request = VirtualRequest(4, kind, ours, (b"a",), answered=True)
        found = ending(request, StreamCode.CANCELLED, state)
        assert (None if found is None else type(found)) is message, kind
        if not ours:
            refused = ending(attrs.evolve(request, answered=False), StreamCode.NOT_FOUND, state)
            assert isinstance(refused, ietf.RequestError)


def test_an_ended_subgroup_of_a_datagram():
    """What is sent as the last of its group says so."""
    server, client = core(is_client=False), core(is_client=True)
    requester = client.subscribe("a", "t")
    stream = server.accept_bidi()
    stream.receive_data(requester.opening, False)
    requester.receive_data(stream.machine.accept(None), False)
    subscribe_id = stream.machine.request.subscribe_id
    for ends in (False, True):
        data = server.datagram(subscribe_id, 3, 0, Frame(b"x"), Subgroup(ends_group=ends))
        assert client.receive_datagram(data).ends_group is ends
    assert feed(client.accept_uni(), "") == []


# -- requests of the peer's ----------------------------------------------------------------------------------------


def request(name: str, message):
    """Returns the machine of a peer's request, and its events."""
    server = core(name, is_client=False)
    stream = server.accept_bidi()
    events = stream.receive_data(server._state.codec.encode(message), False)
    return stream.machine, events


@pytest.mark.parametrize("name", ["moqt-20", "moqt-21", "moqt-22"])
def test_a_fetch_of_everything(name):
    """Without a filter it is all that there is."""
    track = TrackName((b"a",), b"t")
    _, [event] = request(name, ietf.Fetch(0, track))
    assert event.wanted == PastRange((0, 0), None)
    _, [event] = request(name, ietf.Fetch(0, track, parameters=Parameters(filter=Filter(Start.NEXT_OBJECT))))
    assert event.wanted is None
    _, [event] = request(name, ietf.Fetch(0, track, parameters=Parameters(filter=Filter(3))))
    assert event.wanted == PastRange(2, None)


@pytest.mark.parametrize("name", ["moqt-20", "moqt-21", "moqt-22"])
def test_a_subscription_that_starts_some_groups_back(name):
    """The publisher resolves it, as it knows the newest group."""
    machine, [event] = request(name, ietf.Subscribe(0, TrackName((b"a",), b"t"), Parameters(filter=Filter(2))))
    assert (machine.start, event.request.start_group) == (2, None)


@EACH_DRAFT
def test_the_end_of_a_subscription(name):
    """Before the acceptance it is a refusal; after a cancellation there is nothing to say."""
    for cancelled in (False, True):
        machine, _ = request(name, ietf.Subscribe(0, TrackName((b"a",), b"t")))
        if cancelled:
            machine.receive_stop(1)
        end = machine.end(0)
        assert end == (b"" if cancelled else core(name, is_client=False)._state.codec.encode(NOT_THERE))


@EACH_DRAFT
def test_a_status_of_a_name_that_no_track_has(name):
    """It is asked for as one that is not there."""
    _, [event] = request(name, ietf.TrackStatus(0, TrackName((b"\xff",), b"t")))
    assert (event.path, event.track) == (BroadcastPath(), "")


@pytest.mark.parametrize("message", [ietf.TrackStatus, ietf.Publish, ietf.Subscribe, ietf.Fetch])
@EACH_DRAFT
def test_a_request_that_ends_before_it_is_whole(name, message):
    """A FIN inside it ends the session."""
    track = TrackName((b"a",), b"t")
    made = {
        ietf.TrackStatus: lambda: ietf.TrackStatus(0, track),
        ietf.Publish: lambda: ietf.Publish(0, track, 3),
        ietf.Subscribe: lambda: ietf.Subscribe(0, track),
        ietf.Fetch: lambda: None,
    }[message]()
    server = core(name, is_client=False)
    data = core(name, is_client=True).fetch("a", "t", 0).opening if made is None else server._state.codec.encode(made)
    with pytest.raises(RemoteProtocolError) as caught:
        server.accept_bidi().receive_data(data[:-1], True)
    assert caught.value.scope == "session"


@EACH_DRAFT
def test_announcing_outside_a_prefix(name):
    """It is the caller's mistake."""
    machine, _ = asked(name, "announcements")
    server = core(name, is_client=False)
    stream = server.accept_bidi()
    stream.receive_data(machine.opening, False)
    stream.machine.accept()
    with pytest.raises(LocalProtocolError, match="not below the prefix"):
        stream.machine.announce("b")


@EACH_DRAFT
def test_a_fetch_that_was_refused_is_not_updated(name):
    """There is nothing to write."""
    machine, codec = asked(name, "fetch")
    machine.receive_data(codec.encode(ietf.RequestError(None, 0x10)), False)
    assert machine.update(3) == b""


@EACH_DRAFT
def test_a_goaway_that_was_not_written(name):
    """It may be sent again."""
    server = core(name, is_client=False)
    server.goaway("moqt://a/").undo()
    assert server.goaway("moqt://b/").opening


@EACH_DRAFT
def test_an_offer_of_the_peer_opens_nothing(name):
    """Its machine is the peer's request, and has nothing to write first."""
    machine, _ = request(name, ietf.Publish(0, TrackName((b"a",), b"t"), 3))
    assert (machine.opening, machine.subscribe_id) == (b"", 0)
