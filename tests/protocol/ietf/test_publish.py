"""PUBLISH and SUBSCRIBE_TRACKS, at both ends: against what aiomoqt 0.13 wrote, and what the drafts demand."""

from __future__ import annotations

import attrs
import pytest

from moqt_trio.codes import SessionCode, StreamCode
from moqt_trio.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from moqt_trio.limits import Limits
from moqt_trio.path import BroadcastPath
from moqt_trio.protocol.events import (
    AnnouncementsRequested,
    GroupStarted,
    RequestCancelled,
    RequestFinished,
    RequestRefused,
)
from moqt_trio.protocol.ietf.events import PublishRequested, TrackBlocked, TracksRequested, UpdateAnswered
from moqt_trio.wire.messages import StreamKind, SubscribeUpdate
from tests.protocol.ietf.cores import core, feed

DRAFTS = ["moqt-17", "moqt-18", "moqt-19", "moqt-20", "moqt-21", "moqt-22"]
EACH_DRAFT = pytest.mark.parametrize("name", DRAFTS)
PATH = BroadcastPath.parse("moq-test/2f6e/interop/namespace-discovery")

# Written by aiomoqt 0.13.3: its interop client, and its relay.
PUBLISH = (
    "1d003b0204086d6f712d74657374043266366507696e7465726f70136e616d6573706163652d646973636f766572790a"
    "747261636b2d3266366500011000"
)
PUBLISH_OF_A_RELAY = "1d0011010201610162037375620302090c030701"
PUBLISH_WITH_PROPERTIES = "1d00260202046c6976650363616d05766964656f05030883e801070207010281f40902300103641401"
ACCEPTANCE_OF_A_RELAY = "07000a04100010800101020101"
SUBSCRIBE_TRACKS = "51002d0204086d6f712d74657374043266366507696e7465726f70136e616d6573706163652d646973636f7665727900"
PUBLISH_BLOCKED = "0f000b010363616d05766964656f"
ENDED = "0b0003020000"


def received(wire: str, name: str = "moqt-18", **options):
    """Returns a server, its machine of a stream that a client opened, and its events."""
    server = core(name, is_client=False, **options)
    stream = server.accept_bidi()
    events = feed(stream, wire)
    return server, stream.machine, events


def offered(name: str = "moqt-18", *, forward: bool = False):
    """Returns a client and a server, and both ends of an offer of the client's, which is not answered."""
    client, server = core(name, is_client=True), core(name, is_client=False)
    requester = client.offer(BroadcastPath.parse("a/b"), "t", forward=forward, newest=(4, 2))
    stream = server.accept_bidi()
    events = stream.receive_data(requester.opening, False)
    assert events == [PublishRequested(BroadcastPath.parse("a/b"), "t", (4, 2))]
    assert stream.kind is StreamKind.PUBLISH
    return client, server, requester, stream.machine


def test_own_offers_leave_the_peer_its_subscriptions():
    """They do not count for `max_subscriptions`, and an offer that ended leaves nothing."""
    server = core(is_client=False, limits=Limits(max_subscriptions=1))
    offers = [server.offer(BroadcastPath.parse("a"), f"t{number}", forward=False) for number in range(3)]
    client = core(is_client=True)
    for number in range(2):
        stream = server.accept_bidi()
        if number:
            with pytest.raises(LimitExceeded):
                stream.receive_data(client.subscribe("a", "t").opening, False)
        else:
            assert len(stream.receive_data(client.subscribe("a", "t").opening, False)) == 1
    assert len(server._state.peers) == 4
    for offer in offers:
        offer.release()
    assert len(server._state.peers) == 1


# -- the peer offers ---------------------------------------------------------------------------------------------


def test_an_offer_of_aiomoqt():
    """It is read, accepted with Forward 0 in the layout of draft 18, woken up, and ended."""
    server, machine, events = received(PUBLISH)
    assert events == [PublishRequested(PATH, "track-2f6e", None)]
    assert machine.accept().hex() == "070003011000"
    # FORWARD 1 and the next object, which in 18 is filter 2: a reader says where it starts.
    assert machine.wake("latest_group", forward=True).hex() == "0200070102" + "1001" + "110102"
    assert feed(machine, "07000401090403") == [UpdateAnswered((4, 3))]
    # Its objects arrive by the alias that it named: 0.
    [group, *_] = feed(server.accept_uni(), "58000780000161", fin=True)
    assert group == GroupStarted(machine.subscribe_id, 7, 0, priority=127)
    assert feed(machine, ENDED, fin=True) == [RequestFinished()]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("moqt-17", "1e0003011000"),
        ("moqt-18", "070003011000"),
        ("moqt-19", "070003011000"),
        ("moqt-20", "07000100"),
        ("moqt-22", "07000100"),
    ],
)
def test_how_an_offer_is_accepted(name, answer):
    """With what the subscriber wants, up to 19; from 20 on by an update, and that only where it changes something."""
    *_, machine = offered(name)
    assert machine.accept().hex() == answer
    *_, machine = offered(name, forward=True)
    asleep = "0200040101" + "1000" if name in ("moqt-20", "moqt-22") else ""
    assert machine.accept().hex() == answer + asleep


def test_the_newest_object_of_an_offer():
    client = core(is_client=True)
    stream = client.accept_bidi()
    assert feed(stream, PUBLISH_OF_A_RELAY) == [PublishRequested(BroadcastPath.parse("a/b"), "sub", (12, 3))]
    assert feed(core(is_client=False).accept_bidi(), PUBLISH_WITH_PROPERTIES) == [
        PublishRequested(BroadcastPath.parse("live/cam"), "video", (7, 2))
    ]


def test_a_property_that_has_to_be_known():
    """An offer with one is refused with UNSUPPORTED_EXTENSION, from draft 18 on."""
    body = bytes.fromhex(PUBLISH)[3:] + bytes.fromhex("c0400001")
    _, machine, [event] = received((b"\x1d" + len(body).to_bytes(2, "big") + body).hex())
    assert isinstance(event, PublishRequested)
    assert machine.problem == 0x33
    assert machine.refuse(machine.problem).hex() == "050003330000"
    assert machine.refuse(machine.problem) == b""


@pytest.mark.parametrize(
    ("old", "new"),
    [("0a747261636b2d32663665", "0aff7261636b2d32663665"), ("2f6d", "2f6d"), ("7465737404", "742f737404")],
    ids=["a name that is no text", "as it is", "a part with a slash"],
)
def test_names_that_no_track_has(old, new):
    """They are refused, and the session goes on."""
    _, machine, [event] = received(PUBLISH.replace(old, new))
    assert isinstance(event, PublishRequested)
    assert machine.problem == (None if old == new else 0x20)


def test_an_offer_that_ends_at_once():
    """It is over before it was accepted."""
    _, machine, events = received(PUBLISH + ENDED)
    assert [type(event) for event in events] == [PublishRequested, RequestFinished]
    assert machine.accept() == b""
    assert machine.update(forward=True) == b""


@pytest.mark.parametrize("how", ["reset", "stop", "fin"])
def test_a_publisher_that_leaves(how):
    """The offer ends with it."""
    *_, machine = offered()
    machine.accept()
    if how == "fin":
        assert machine.receive_data(b"", True) == [RequestFinished()]
    else:
        assert (machine.receive_reset(1) if how == "reset" else machine.receive_stop(1)) == [RequestRefused(1)]
    assert machine.update(forward=True) == b""


@pytest.mark.parametrize(
    "wire",
    [PUBLISH + PUBLISH, PUBLISH + "07000100", PUBLISH + "0500030000" + "00", PUBLISH + "04000e" + "02" * 14],
    ids=["PUBLISH twice", "an answer to nothing", "a refusal of nothing", "SUBSCRIBE_OK"],
)
def test_a_broken_offer(wire):
    """It ends the session."""
    server = core(is_client=False)
    with pytest.raises(RemoteProtocolError) as caught:
        feed(server.accept_bidi(), wire)
    assert (caught.value.scope, caught.value.code) == ("session", SessionCode.PROTOCOL_VIOLATION)


def test_one_alias_for_two_offers():
    """It ends the session with DUPLICATE_TRACK_ALIAS; from 19 on the second one is to be refused as not wanted."""
    second = PUBLISH[:6] + "04" + PUBLISH[8:]
    server = core("moqt-18", is_client=False)
    feed(server.accept_bidi(), PUBLISH)
    with pytest.raises(RemoteProtocolError) as caught:
        feed(server.accept_bidi(), second)
    assert (caught.value.scope, caught.value.code) == ("session", 0x5)
    server = core("moqt-19", is_client=False)
    feed(server.accept_bidi(), PUBLISH)
    stream = server.accept_bidi()
    assert feed(stream, second) == [PublishRequested(PATH, "track-2f6e", None)]
    assert stream.machine.problem == 0x20


def test_a_refused_update_of_an_offer():
    """The publisher refuses it, and ends the subscription for that: it fails with the code of the refusal."""
    *_, machine = offered()
    machine.accept()
    machine.update(forward=True)
    events = feed(machine, "0500031000" + "00" + "0b0003080000", fin=True)
    assert events == [UpdateAnswered(None), RequestRefused(StreamCode.NOT_FOUND)]


# -- this side offers --------------------------------------------------------------------------------------------


def test_an_offer_on_the_wire():
    """Draft 18: the request's id is the alias; FORWARD and LARGEST_OBJECT."""
    _, _, requester, _ = offered()
    assert (
        requester.opening.hex() == "1d000f" + "00" + "02" + "0161" + "0162" + "0174" + "00" + "02" + "090402" + "0700"
    )
    _, _, requester, _ = offered(forward=True)
    assert requester.opening.hex()[-4:] == "0701"


def test_an_acceptance_of_aiomoqt():
    """What it wants with Forward 0 is read as an update; then it wakes the subscription up."""
    _, _, requester, _ = offered(forward=True)
    wanted = SubscribeUpdate(127, True, 0, None, None, 0, None, forward=False)
    assert feed(requester, ACCEPTANCE_OF_A_RELAY) == [attrs.evolve(wanted, restart=True)]
    assert feed(requester, "0200040101" + "1001") == [attrs.evolve(wanted, forward=True)]
    requester.resumed((4, 2))
    assert requester.answer_updates().hex() == "070004" + "01" + "090402"


@EACH_DRAFT
def test_an_acceptance_that_says_nothing(name):
    """Up to 19 it wants everything at once; from 20 on it says nothing about that."""
    _, _, requester, _ = offered(name)
    events = feed(requester, "1e000100" if name == "moqt-17" else "07000100")
    if name in ("moqt-17", "moqt-18", "moqt-19"):
        [update] = events
        assert update.forward
    else:
        assert events == []


@EACH_DRAFT
def test_a_refused_offer(name):
    """It is over; nothing more is written on its stream."""
    client, _, requester, machine = offered(name)
    assert requester.receive_data(machine.refuse(0x20), True) == [RequestCancelled(StreamCode.INTERNAL_ERROR)]
    assert requester.end(5) == b""
    requester.release()
    assert len(client._state.peers) == 0


@EACH_DRAFT
def test_how_an_offer_ends(name):
    """PUBLISH_DONE has the status and how many streams there were; both ends release what they held."""
    client, server, requester, machine = offered(name, forward=True)
    requester.receive_data(machine.accept(), False)
    for sequence in (5, 6):
        sender = client.group(requester.request.subscribe_id, sequence)
        [group, *_] = server.accept_uni().receive_data(sender.opening + b"\x00\x00\x01x", False)
        assert group == GroupStarted(machine.subscribe_id, sequence, 0, priority=127)
    done = requester.end(7)
    assert done.hex() == "0b0003" + "02" + "02" + "00"
    assert machine.receive_data(done, True)[-1] == RequestFinished(streams=0)
    requester.release()
    machine.release()
    assert (len(client._state.peers), len(server._state.issued), client._state.streams_opened) == (0, 0, {})


@pytest.mark.parametrize(
    ("name", "code", "status"),
    [
        ("moqt-17", StreamCode.TOO_FAR_BEHIND, 6),
        ("moqt-18", StreamCode.TOO_FAR_BEHIND, 5),
        ("moqt-22", StreamCode.GOING_AWAY, 4),
        ("moqt-22", StreamCode.MALFORMED_TRACK, 0x12),
    ],
)
def test_how_a_subscription_is_given_up(name, code, status):
    """By PUBLISH_DONE, where the draft has a status for it; else by a reset alone."""
    _, _, requester, machine = offered(name)
    machine.accept()
    done = requester.refusal(code)
    assert done.hex() == f"0b0003{status:02x}0000"
    assert machine.receive_data(done, True) == [RequestRefused(code)]
    _, _, requester, _ = offered(name)
    assert requester.refusal(StreamCode.CANCELLED) == b""


@EACH_DRAFT
def test_how_the_subscriber_of_an_offer_leaves(name):
    """By a reset or a stop in each draft; by FIN up to 18."""
    for how in ("fin", "reset", "stop"):
        _, _, requester, _ = offered(name)
        if how == "fin":
            expected = [RequestCancelled(None)] if name in ("moqt-17", "moqt-18") else []
            assert requester.receive_data(b"", True) == expected
        else:
            assert (requester.receive_reset(1) if how == "reset" else requester.receive_stop(1)) == [
                RequestCancelled(1)
            ]


# -- asking for offers -------------------------------------------------------------------------------------------


def test_what_aiomoqt_asks_for():
    """The tracks below a prefix, with what is published on them."""
    _, machine, events = received(SUBSCRIBE_TRACKS)
    assert events == [TracksRequested(PATH, True)]
    assert machine.accept().hex() == "07000100"
    assert machine.blocked(PATH.join("cam"), "video").hex() == PUBLISH_BLOCKED


@EACH_DRAFT
def test_tracks(name):
    """They are asked for asleep; 17 asks by SUBSCRIBE_NAMESPACE, with the option of tracks alone."""
    client, server = core(name, is_client=True), core(name, is_client=False)
    requester = client.request_tracks("a")
    stream = server.accept_bidi()
    assert stream.receive_data(requester.opening, False) == [TracksRequested(BroadcastPath.parse("a"), False)]
    assert stream.kind is StreamKind.TRACKS
    machine = stream.machine
    assert requester.receive_data(machine.accept(), False) == []
    blocked = BroadcastPath.parse("a/b")
    assert requester.receive_data(machine.blocked(blocked, "t"), False) == [TrackBlocked(blocked, "t")]
    assert requester.receive_data(b"", True) == []


def test_both_at_once():
    """Draft 17 may ask for namespaces and tracks in one request."""
    _, _, events = received("1100070000" + "010161" + "02" + "00", "moqt-17")
    assert [type(event) for event in events] == [AnnouncementsRequested, TracksRequested]


def test_refusals_of_tracks():
    """One that does not do this is told from one that does not want to."""
    for number, unsupported in ((0x3, True), (0x1, False)):
        requester = core(is_client=True).request_tracks("a")
        [event] = feed(requester, f"050003{number:02x}0000", fin=True)
        assert isinstance(event, RequestRefused)
        assert requester.unsupported is unsupported


@pytest.mark.parametrize("wire", [SUBSCRIBE_TRACKS + SUBSCRIBE_TRACKS, SUBSCRIBE_TRACKS + "07000100"])
def test_a_broken_request_for_tracks(wire):
    """It ends the session."""
    with pytest.raises(RemoteProtocolError) as caught:
        received(wire)
    assert caught.value.scope == "session"


def test_requests_for_tracks_are_bounded():
    server = core(is_client=False, limits=Limits(max_requests=1))
    feed(server.accept_bidi(), SUBSCRIBE_TRACKS)
    with pytest.raises(LimitExceeded) as caught:
        feed(server.accept_bidi(), SUBSCRIBE_TRACKS[:6] + "04" + SUBSCRIBE_TRACKS[8:])
    assert caught.value.scope == "stream"


def test_draft_17_has_no_subscribe_tracks():
    with pytest.raises(RemoteProtocolError):
        received(SUBSCRIBE_TRACKS, "moqt-17")


def test_names_that_cannot_be_written():
    with pytest.raises(LocalProtocolError, match="UTF-8"):
        core(is_client=True).offer(BroadcastPath.parse("a"), "\ud800", forward=False)
