"""What the caller of a machine may do wrong, or late, and with what the stream of a request may end."""

from __future__ import annotations

import pytest

from moqt_trio.codes import StreamCode
from moqt_trio.errors import LocalProtocolError, RemoteProtocolError
from moqt_trio.frame import Frame
from moqt_trio.limits import Limits
from moqt_trio.path import BroadcastPath
from moqt_trio.protocol.events import RequestCancelled, RequestRefused
from moqt_trio.protocol.ietf.core import IetfCore
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.ietf.drafts import IetfDialect
from moqt_trio.wire.messages import Datagram, StreamKind, TrackInfo
from tests.faults.drafts import SUBSCRIBE_TRACKS, DraftWire

NAME = "moqt-18"
WIRE = DraftWire(NAME)


def core(*, is_client: bool = False, name: str = NAME) -> IetfCore:
    dialect = dialects.get(name)
    assert isinstance(dialect, IetfDialect)
    return IetfCore(dialect, is_client=is_client)


def asked(data: bytes):
    """Return the machine of a request at a server, and the events so far."""
    stream = core().accept_bidi()
    events = stream.receive_data(data, False)
    return stream.machine, events


TRACKS = WIRE.message(SUBSCRIBE_TRACKS, b"\x00" + WIRE.namespace(b"a") + b"\x00")
REQUESTS = {
    "namespaces": WIRE.subscribe_namespace(0, b"a"),
    "tracks": TRACKS,
    "fetch": WIRE.fetch(0),
    "subscription": WIRE.subscribe(0),
    "announcement": WIRE.publish_namespace(0, b"a"),
    "offer": WIRE.publish(0, 7),
}
ACCEPT = {
    "fetch": lambda machine: machine.accept((0, 0), end_of_track=False),
    "subscription": lambda machine: machine.accept(None),
}


def accept(kind: str, machine) -> bytes:
    return ACCEPT.get(kind, lambda machine: machine.accept())(machine)


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_request_is_accepted_once(kind):
    """And not before it is whole."""
    half, _ = asked(REQUESTS[kind][:-1])
    with pytest.raises(LocalProtocolError):
        accept(kind, half)
    machine, _ = asked(REQUESTS[kind])
    assert accept(kind, machine)
    with pytest.raises(LocalProtocolError):
        accept(kind, machine)


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_request_that_is_over_is_not_accepted(kind):
    """Nothing is written for it, whether the peer has reset its half or reads no answer."""
    for end in ("reset", "stop"):
        machine, _ = asked(REQUESTS[kind])
        events = getattr(machine, f"receive_{end}")(3)
        assert events == [RequestRefused(3) if kind == "offer" else RequestCancelled(3)]
        assert accept(kind, machine) == b""
        machine.release()
        machine.release()
        assert getattr(machine, f"receive_{end}")(3) == []


@pytest.mark.parametrize("kind", [*REQUESTS, "status"])
@pytest.mark.parametrize("end", ["FIN", "reset", "stop"])
def test_a_request_that_ends_before_it_is_whole(kind, end):
    """A FIN breaks the session; the rest asked for nothing."""
    data = REQUESTS.get(kind, WIRE.track_status(0))
    machine, events = asked(data[:1])
    assert events == []
    if end == "FIN":
        with pytest.raises(RemoteProtocolError) as caught:
            machine.receive_data(b"", True)
        assert caught.value.scope == "session"
    else:
        assert getattr(machine, f"receive_{end.lower()}")(1) == []
    machine.release()


@pytest.mark.parametrize("kind", ["namespaces", "tracks", "announcement"])
def test_an_update_of_what_cannot_be_changed(kind):
    """It ends its stream alone."""
    machine, _ = asked(REQUESTS[kind])
    accept(kind, machine)
    with pytest.raises(RemoteProtocolError) as caught:
        machine.receive_data(WIRE.update(2, 0), False)
    assert caught.value.scope == "stream"


@pytest.mark.parametrize("kind", [*REQUESTS, "status"])
def test_a_goaway_on_a_request(kind):
    """It says nothing that this side acts on."""
    machine, _ = asked(REQUESTS.get(kind, WIRE.track_status(0)))
    assert machine.receive_data(WIRE.goaway(), False) == []


@pytest.mark.parametrize("kind", ["tracks", "namespaces"])
def test_what_is_behind_a_request_for_a_list(kind):
    """A second request on its stream ends the session."""
    machine, _ = asked(REQUESTS[kind])
    with pytest.raises(RemoteProtocolError) as caught:
        machine.receive_data(REQUESTS[kind], False)
    assert caught.value.scope == "session"


def test_tracks_below_a_prefix_that_no_path_has():
    """The request ends its stream alone."""
    stream = core().accept_bidi()
    with pytest.raises(RemoteProtocolError) as caught:
        stream.receive_data(WIRE.message(SUBSCRIBE_TRACKS, b"\x00" + WIRE.namespace(b"a/b") + b"\x00"), False)
    assert (caught.value.scope, caught.value.code) == ("stream", StreamCode.UNROUTABLE)


def test_answers_of_a_request_for_tracks():
    """One acceptance, then PUBLISH_BLOCKED of names that may be none; anything else ends the session."""
    blocked = WIRE.message(0x0F, WIRE.namespace(b"x") + WIRE.data(b"t"))
    requester = core(is_client=True).request_tracks("a")
    assert requester.receive_data(WIRE.update_ok(0), False) == []
    [event] = requester.receive_data(blocked, False)
    assert (str(event.path), event.track) == ("a/x", "t")
    assert requester.receive_data(WIRE.message(0x0F, WIRE.namespace(b"x") + WIRE.data(b"\xff")), False) == []
    assert requester.receive_data(WIRE.goaway(), False) == []
    with pytest.raises(RemoteProtocolError):
        requester.receive_data(WIRE.update_ok(0), False)
    requester = core(is_client=True).request_tracks("a")
    assert requester.receive_reset(5) == [RequestRefused(5)]
    requester = core(is_client=True).request_tracks("a")
    with pytest.raises(RemoteProtocolError):
        requester.receive_data(blocked, False)


def test_the_status_of_a_track_is_answered_once():
    """And not before it was asked for."""
    info = TrackInfo(0, None, 0, 1)
    half, _ = asked(WIRE.track_status(0)[:-1])
    with pytest.raises(LocalProtocolError):
        half.reply(info)
    machine, _ = asked(WIRE.track_status(0))
    assert machine.reply(info, (3, 1))
    with pytest.raises(LocalProtocolError):
        machine.reply(info)
    machine, _ = asked(WIRE.track_status(0))
    machine.receive_reset(1)
    assert machine.reply(info) == b""


def test_an_offer_that_was_answered_is_not_refused():
    machine, _ = asked(WIRE.publish(0, 7))
    machine.accept()
    assert machine.refuse(0x20) == b""
    machine, _ = asked(WIRE.publish(0, 7))
    assert machine.refusal(StreamCode.NO_CAPACITY)
    assert machine.refusal(StreamCode.NO_CAPACITY) == b""


def test_what_answers_an_offer():
    """An acceptance or a refusal, once; a refusal after the end has no event."""
    server = core()
    offer = server.offer(BroadcastPath.parse("a"), "t", forward=True)
    assert offer.accept(None) == b""
    assert offer.receive_data(WIRE.goaway(), False) == []
    assert offer.receive_data(WIRE.refused(0, 0x1D, 0x20), False) == [RequestCancelled(StreamCode.INTERNAL_ERROR)]
    with pytest.raises(RemoteProtocolError):
        offer.receive_data(WIRE.refused(0, 0x1D, 0x20), False)
    offer = server.offer(BroadcastPath.parse("a"), "u", forward=True)
    offer.receive_stop(1)
    assert offer.receive_data(WIRE.update_ok(0), False) == []


def test_names_of_kinds_that_the_drafts_lack():
    """A draft's dialect has neither streams of the lite kinds nor their datagrams and frames."""
    dialect = dialects.get(NAME)
    assert isinstance(dialect, IetfDialect)
    assert dialect.split_stream_type(b"\x03") == (3, 1)
    with pytest.raises(LocalProtocolError):
        dialect.stream_type(StreamKind.SUBSCRIBE)
    with pytest.raises(LocalProtocolError):
        dialect.stream_kind_untrusted(0, bidirectional=True)
    with pytest.raises(LocalProtocolError):
        dialect.encode_frame(b"", None, 0)
    for call in (
        lambda: dialect.encode_datagram(Datagram(0, 0, 0, b"")),
        lambda: dialect.read_datagram_untrusted(b""),
    ):
        with pytest.raises(LocalProtocolError):
            call()


def test_frames_of_a_draft():
    """Its encoder and its decoder are those of subgroups, with properties."""
    dialect = dialects.get(NAME)
    frames: list[Frame] = []
    data = dialect.frame_encoder().encode([Frame(b"x", 5), Frame(b"")])
    assert dialect.frame_decoder(Limits()).feed_untrusted(data, frames, []) == len(data)
    assert [(bytes(frame), frame.timestamp) for frame in frames] == [(b"x", 5), (b"", None)]


def test_an_update_that_cannot_be_written_changes_nothing():
    """The next one is counted from what was said last."""
    client, server = core(is_client=True), core()
    requester = client.subscribe("a", "t", priority=5)
    stream = server.accept_bidi()
    stream.receive_data(requester.opening, False)
    requester.receive_data(stream.machine.accept(None), False)
    with pytest.raises(LocalProtocolError):
        requester.update(priority=1000)
    [update] = stream.receive_data(requester.update(priority=6), False)
    assert update.priority == 6
    assert requester.update(priority=6) == b""


def test_goaway_of_a_client_that_names_a_place():
    with pytest.raises(LocalProtocolError, match="elsewhere"):
        core(is_client=True).goaway("moqt://elsewhere/")
    with pytest.raises(LocalProtocolError, match="probes"):
        core().probe()
