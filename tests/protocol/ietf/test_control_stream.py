"""The control stream that all requests share (14 to 16), fed with what aiomoqt and moq-rs wrote, and with faults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moqt_trio.codes import SessionCode, StreamCode
from moqt_trio.errors import LocalProtocolError, RemoteProtocolError
from moqt_trio.limits import Limits
from moqt_trio.path import BroadcastPath
from moqt_trio.protocol.ietf.control_stream import RequestsStream
from moqt_trio.protocol.ietf.events import RequestBytes, RequestsAllowed, RequestWithdrawn
from moqt_trio.wire.buffer import StreamBuffer
from moqt_trio.wire.ietf import messages as ietf
from moqt_trio.wire.ietf.parameters import Parameters
from moqt_trio.wire.messages import Goaway, Setup
from tests.protocol.ietf.test_machines import core

DRAFTS = ["moqt-14", "moqt-15", "moqt-16"]
EACH_DRAFT = pytest.mark.parametrize("name", DRAFTS)
NAMED = ["moqt-15", "moqt-16"]
"""The drafts whose SETUP is read by the control stream itself: on 14 it is a part of the handshake."""

VECTORS = Path(__file__).parents[2] / "vectors" / "ietf-vectors.json"

SUBSCRIBES = {
    # aiomoqt 0.13.3 on 14 and 16, the first request of a client; moq-rs 0.5.1 on 15, with the id 0 in its place.
    "moqt-14": "03000f000201610162037375620702010200",
    "moqt-15": "03001d00020470656572056b6e6f776e04646174610410012040ff2101022202",
    "moqt-16": "0300140002016101620373756204100110070101020102",
}
INVALID_REQUEST_ID = 0x4
TOO_MANY_REQUESTS = 0x7


class Side:
    """One side of a session: its core, its control stream behind SETUP, and what it wrote."""

    def __init__(self, name: str, *, is_client: bool, allowed: int = 1000, **options) -> None:
        self.core = core(name, is_client=is_client, **options)
        self.codec = self.core._state.codec
        machine = self.core.requests
        assert isinstance(machine, RequestsStream)
        self.machine = machine
        machine.begin_untrusted(((ietf.Option.MAX_REQUEST_ID, allowed),), None, has_uri=True)

    def feed(self, wire: str | bytes, fin: bool = False) -> list:
        return self.machine.receive_data(bytes.fromhex(wire) if isinstance(wire, str) else wire, fin)

    def say(self, *messages) -> list:
        """Feeds messages of the peer's."""
        return self.feed(b"".join(map(self.codec.encode, messages)))

    def ask(self, track: str = "t") -> int:
        """Makes a subscription of ours, and returns its id."""
        requester = self.core.subscribe("a", track)
        request_id = self.machine.open(requester.opening)
        assert request_id == requester.request_id
        return request_id

    def read(self, data: bytes):
        """Returns the message in some bytes, None for none."""
        return self.codec.read_untrusted(StreamBuffer(data), Limits()) if data else None


def refuses(side: Side, *messages, code: int = SessionCode.PROTOCOL_VIOLATION) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        side.say(*messages)
    assert (caught.value.scope, caught.value.code) == ("session", code)


# -- SETUP ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path"),
    [("moqt-15", "/base?x=1"), ("moqt-16", "/p?q=1")],
)
def test_the_setup_of_a_client(name, path):
    """The path and the first limit of requests are in it; the server's answer has its own limit."""
    recorded = next(
        record["hex"]
        for record in json.loads(VECTORS.read_text())
        if (f"moqt-{record['draft']}", record["message"]) == (name, "CLIENT_SETUP")
    )
    server = core(name, is_client=False, path_on_wire=True)
    assert server.requests is not None
    events = server.requests.receive_data(bytes.fromhex(recorded), False)
    assert events == [Setup(path=path), RequestsAllowed()]
    assert server.requests.allowed
    client = core(name, is_client=True)
    assert client.requests is not None
    assert not client.requests.allowed
    assert client.requests.receive_data(server.requests.setup(server.setup), False) == [Setup(), RequestsAllowed()]
    assert client.requests.allowed


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("cut", ["whole", "bytes"])
def test_setups_of_both_sides(name, cut):
    """However they are cut; and only once."""
    client, server = core(name, is_client=True), core(name, is_client=False)
    assert client.requests is not None
    assert server.requests is not None
    for here, there in ((client, server), (server, client)):
        wire = here.requests.setup(here.setup)
        pieces = [wire] if cut == "whole" else [wire[index : index + 1] for index in range(len(wire))]
        events = [event for piece in pieces for event in there.requests.receive_data(piece, False)]
        assert events == [Setup(), RequestsAllowed()]
        with pytest.raises(RemoteProtocolError):
            there.requests.receive_data(wire, False)


@EACH_DRAFT
def test_what_comes_before_setup(name):
    """It ends the session."""
    side = core(name, is_client=False)
    assert side.requests is not None
    with pytest.raises(RemoteProtocolError, match="before SETUP"):
        side.requests.receive_data(bytes.fromhex(SUBSCRIBES[name]), False)


@pytest.mark.parametrize("is_client", [True, False])
def test_a_path_in_a_setup_that_was_read_before(is_client):
    """A server names none, and a client only where no URI has it: else it is INVALID_PATH (0x8)."""
    options = ((ietf.Option.PATH, b"/p"), (ietf.Option.MAX_REQUEST_ID, 100))
    for has_uri in (True, False):
        machine = core("moqt-14", is_client=is_client).requests
        assert machine is not None
        if is_client or has_uri:
            with pytest.raises(RemoteProtocolError) as caught:
                machine.begin_untrusted(options, None, has_uri=has_uri)
            assert (caught.value.scope, caught.value.code) == ("session", 0x8)
        else:
            assert machine.begin_untrusted(options, "/p", has_uri=has_uri) == Setup(path="/p")


def test_streams_by_their_first_byte():
    """CLIENT_SETUP opens the control stream, once; SUBSCRIBE_NAMESPACE has a stream on 16; there are no others."""
    server, client = Side("moqt-16", is_client=False).machine, Side("moqt-16", is_client=True).machine
    assert server.classify_untrusted(0x20, begun=False) == "control"
    assert server.classify_untrusted(0x11, begun=True) == "request"
    assert client.classify_untrusted(0x11, begun=True) == "request"
    for machine, first, begun in ((server, 0x20, True), (client, 0x20, False), (server, 0x03, True)):
        with pytest.raises(RemoteProtocolError):
            machine.classify_untrusted(first, begun=begun)
    with pytest.raises(RemoteProtocolError):
        Side("moqt-15", is_client=False).machine.classify_untrusted(0x11, begun=True)


# -- requests of the peer ------------------------------------------------------------------------------------------


@EACH_DRAFT
def test_a_subscription_of_the_peer(name):
    """Its message opens a virtual stream; an update follows; UNSUBSCRIBE withdraws it, and is ignored afterwards."""
    side = Side(name, is_client=False)
    wire = bytes.fromhex(SUBSCRIBES[name])
    assert side.feed(wire) == [RequestBytes(0, wire, opens=True)]
    update = ietf.RequestUpdate(2, 0, Parameters(priority=3))
    assert side.say(update) == [RequestBytes(0, side.codec.encode(update), update=2)]
    assert side.say(ietf.Unsubscribe(0)) == [RequestWithdrawn(0)]
    assert side.say(ietf.Unsubscribe(0), ietf.FetchCancel(0)) == []
    # Its update has crossed the end, and is refused; one of a request that never was has not.
    late = ietf.RequestUpdate(4, 0)
    assert side.say(late) == [RequestBytes(0, side.codec.encode(late), update=4)]
    refusal = side.read(side.machine.refuse_update(4))
    if name == "moqt-14":
        assert refusal is None
    else:
        assert isinstance(refusal, ietf.RequestError)
        assert (refusal.request_id, refusal.code) == (4, 0x10)
    # On 16 the list of a request may be on its way, on a stream of its own.
    refuses(side, ietf.RequestUpdate(6, 400 if name != "moqt-16" else 1 << 20))


@EACH_DRAFT
def test_ids_that_are_wrong(name):
    """Of the other side, used before, and beyond the limit. On 14 and 15 none may be skipped."""
    wire = bytes.fromhex(SUBSCRIBES[name])

    def subscribe(number: int) -> ietf.Subscribe:
        message = Side(name, is_client=False).read(wire)
        assert isinstance(message, ietf.Subscribe)
        return ietf.Subscribe(number, message.track, message.parameters)

    for numbers in ((1,), (0, 0), (0, 2, 0)):
        side = Side(name, is_client=False)
        *before, last = map(subscribe, numbers)
        side.say(*before)
        refuses(side, last, code=INVALID_REQUEST_ID)
    limits = Limits(max_streams=3, max_announcements=1)
    side = Side(name, is_client=False, limits=limits)
    side.say(*map(subscribe, (0, 2, 4, 6)))
    refuses(side, subscribe(8), code=TOO_MANY_REQUESTS)
    side = Side(name, is_client=False)
    if name == "moqt-16":
        # The request between may have a stream of its own.
        assert len(side.say(subscribe(4), subscribe(0))) == 2
    else:
        refuses(side, subscribe(4), code=INVALID_REQUEST_ID)


@EACH_DRAFT
def test_the_window_of_requests(name):
    """It moves on as requests end, in steps; an update takes an id, and gives it back at once."""
    side = Side(name, is_client=False, limits=Limits(max_streams=4, max_announcements=4))
    assert side.machine.allowance() == b""
    side.feed(SUBSCRIBES[name])
    for number in range(2, 10, 2):
        side.say(ietf.RequestUpdate(number, 0))
    granted = side.read(side.machine.allowance())
    assert granted == ietf.MaxRequestId(16 + 8)
    assert side.machine.allowance() == b""
    side.machine.ended()
    assert side.machine.allowance() == b""


@pytest.mark.parametrize("cut", [1, 2, 5])
@EACH_DRAFT
def test_fin_inside_a_message_or_behind_it(name, cut):
    """The control stream ends with the session, and never before."""
    wire = bytes.fromhex(SUBSCRIBES[name])
    for data in (wire, wire[:-cut], b""):
        side = Side(name, is_client=False)
        with pytest.raises(RemoteProtocolError) as caught:
            side.feed(data, fin=True)
        assert (caught.value.scope, caught.value.code) == ("session", SessionCode.PROTOCOL_VIOLATION)
        assert len(side.machine.partial_events) == (data == wire)


@EACH_DRAFT
def test_byte_by_byte(name):
    """Each message is passed on when it is whole."""
    side = Side(name, is_client=False)
    wire = bytes.fromhex(SUBSCRIBES[name])
    for index in range(len(wire) - 1):
        assert side.feed(wire[index : index + 1]) == []
    assert side.feed(wire[-1:]) == [RequestBytes(0, wire, opens=True)]


@EACH_DRAFT
def test_what_this_side_says_instead_of_a_reset(name):
    """A request that was not answered is refused, one in force is ended, and each only once."""
    side = Side(name, is_client=False)
    side.feed(SUBSCRIBES[name])
    refusal = side.read(side.machine.cancel(0, StreamCode.NOT_FOUND))
    assert isinstance(refusal, ietf.RequestError)
    assert (refusal.request_id, refusal.code) == (0, 0x4 if name == "moqt-14" else 0x10)
    assert side.machine.cancel(0, 0) == b""
    message = Side(name, is_client=False).read(bytes.fromhex(SUBSCRIBES[name]))
    assert isinstance(message, ietf.Subscribe)
    side.say(ietf.Subscribe(2, message.track, message.parameters))
    side.machine.sent(2, side.codec.encode(ietf.SubscribeOk(2, 2)))
    done = side.read(side.machine.cancel(2, StreamCode.TOO_FAR_BEHIND))
    assert done == ietf.PublishDone(2, 0x6, 0)
    side.say(ietf.PublishNamespace(4, (b"a",)))
    side.machine.sent(4, side.codec.encode(ietf.RequestOk(4, answered=ietf.Answered.PUBLISH_NAMESPACE)))
    cancelled = side.read(side.machine.cancel(4, StreamCode.CANCELLED))
    assert isinstance(cancelled, ietf.PublishNamespaceCancel)
    assert (cancelled.request_id, cancelled.namespace) == ((4, None) if name == "moqt-16" else (None, (b"a",)))


@EACH_DRAFT
def test_an_answer_that_is_complete(name):
    """With its end the request is over; a later cancellation of the peer's is ignored."""
    side = Side(name, is_client=False)
    side.feed(SUBSCRIBES[name])
    side.machine.sent(0, side.codec.encode(ietf.PublishDone(0, 2, 0)))
    assert side.machine.finish(0)
    assert len(side.machine) == 0
    assert side.say(ietf.Unsubscribe(0)) == []


@EACH_DRAFT
def test_namespaces_of_the_peer_are_withdrawn(name):
    """By the namespace up to draft 15, by the request on 16; one that is not there is ignored."""
    side = Side(name, is_client=False)
    side.say(ietf.PublishNamespace(0, (b"a", b"b")), ietf.PublishNamespace(2, (b"c",)))
    by_name = name != "moqt-16"

    def done(number: int, *namespace: bytes) -> ietf.PublishNamespaceDone:
        return ietf.PublishNamespaceDone(None if by_name else number, namespace if by_name else None)

    assert side.say(done(2, b"c")) == [RequestWithdrawn(2)]
    assert side.say(done(2, b"c"), done(40, b"never")) == []
    assert side.say(done(0, b"a", b"b")) == [RequestWithdrawn(0)]
    assert len(side.machine) == 0
    assert side.machine._named == {}


@pytest.mark.parametrize("name", ["moqt-14", "moqt-15"])
def test_lists_of_the_peer_are_withdrawn(name):
    """UNSUBSCRIBE_NAMESPACE names the prefix on 14, as aiomoqt does, and the request on 15."""
    side = Side(name, is_client=False)
    side.say(ietf.SubscribeNamespace(0, (b"a",)))
    wire = "140003010161" if name == "moqt-14" else "14000100"
    assert side.feed(wire) == [RequestWithdrawn(0)]
    assert side.feed(wire) == []


def test_a_list_on_the_control_stream_of_16():
    """It has a stream of its own there."""
    side = Side("moqt-16", is_client=False)
    with pytest.raises(RemoteProtocolError):
        side.feed("1100061c0101610000")


# -- requests of this side -----------------------------------------------------------------------------------------


def accepted(name: str, side: Side, request_id: int) -> bytes:
    return side.codec.encode(ietf.SubscribeOk(request_id, 7))


@EACH_DRAFT
def test_replies(name):
    """An acceptance, and PUBLISH_DONE, which ends it; a reply to what was never asked ends the session."""
    side = Side(name, is_client=True)
    first, second = side.ask(), side.ask()
    assert (first, second) == (0, 2)
    wire = accepted(name, side, 2)
    assert side.feed(wire) == [RequestBytes(2, wire)]
    done = ietf.PublishDone(2, 2, 0)
    assert side.say(done) == [RequestBytes(2, side.codec.encode(done), fin=True)]
    assert side.machine.cancel(2, 1) == b""
    refusal = ietf.RequestError(0, 0, answered=ietf.Answered.SUBSCRIBE)
    assert side.say(refusal) == [RequestBytes(0, side.codec.encode(refusal), fin=True)]
    assert side.machine.cancel(0, 1) == b""
    # A second reply, and one that crossed our end, are dropped.
    assert side.say(refusal) == []
    refuses(side, ietf.SubscribeOk(4, 1))


@EACH_DRAFT
def test_a_reply_to_the_peers_own_request(name):
    side = Side(name, is_client=False)
    side.feed(SUBSCRIBES[name])
    refuses(side, ietf.SubscribeOk(0, 1))


@EACH_DRAFT
def test_leaving(name):
    """UNSUBSCRIBE, FETCH_CANCEL, PUBLISH_NAMESPACE_DONE; nothing for a list on 14, which moq-rs does not bear."""
    side = Side(name, is_client=True)
    request_id = side.ask()
    assert side.read(side.machine.cancel(request_id, 1)) == ietf.Unsubscribe(request_id)
    assert side.machine.cancel(request_id, 1) == b""
    assert side.feed(accepted(name, side, request_id)) == []
    fetch = side.core.fetch_range("a", "t", (0, 0), (1, None))
    number = side.machine.open(fetch.opening)
    assert side.read(side.machine.cancel(number, 1)) == ietf.FetchCancel(number)
    number = side.machine.open(side.core.publish_namespace(BroadcastPath.parse("a/b")).opening)
    by_name = name != "moqt-16"
    assert side.read(side.machine.cancel(number, 1)) == ietf.PublishNamespaceDone(
        None if by_name else number, (b"a", b"b") if by_name else None
    )
    if name != "moqt-16":
        listed = side.core.request_announcements("a")
        number = side.machine.open(listed.opening)
        ended = side.machine.cancel(number, 1)
        assert side.read(ended) == (None if name == "moqt-14" else ietf.UnsubscribeNamespace(number))


@pytest.mark.parametrize("name", NAMED)
def test_answers_to_updates(name):
    """They belong to the request that was updated; a peer that answers none costs no memory."""
    side = Side(name, is_client=True)
    requester = side.core.subscribe("a", "t")
    request_id = side.machine.open(requester.opening)
    [reply] = side.feed(accepted(name, side, request_id))
    requester.receive_data(reply.data, reply.fin)
    updates = [requester.update(priority=number) for number in range(1, 101)]
    for update in updates:
        side.machine.sent(request_id, update)
    last = side.read(updates[-1])
    assert isinstance(last, ietf.RequestUpdate)
    assert last.existing_id == request_id
    ok = ietf.RequestOk(last.request_id)
    assert side.say(ok) == [RequestBytes(request_id, side.codec.encode(ok))]
    first = side.read(updates[0])
    assert isinstance(first, ietf.RequestUpdate)
    assert side.say(ietf.RequestOk(first.request_id)) == []
    assert len(side.machine._updates) < len(updates) / 2
    side.machine.cancel(request_id, 1)
    assert side.machine._updates == {}


@EACH_DRAFT
def test_ids_follow_each_other(name):
    """An id is taken when a request is written: one that is not made leaves none out."""
    side = Side(name, is_client=True)
    never, made = side.core.subscribe("a", "never"), side.core.subscribe("a", "made")
    never.release()
    assert never.request_id == -1
    assert side.machine.open(made.opening) == 0
    assert side.ask() == 2


@EACH_DRAFT
def test_the_peers_limit(name):
    """No request beyond it; it only rises."""
    side = Side(name, is_client=True, allowed=4)
    side.ask()
    assert side.machine.allowed
    side.ask()
    assert not side.machine.allowed
    assert side.feed("15000106") == [RequestsAllowed()]
    assert side.machine.allowed
    assert side.feed("1a000104") == []
    for wire in ("15000106", "15000104"):
        with pytest.raises(RemoteProtocolError):
            Side.feed(side, wire)
        side = Side(name, is_client=True, allowed=6)


@EACH_DRAFT
def test_messages_for_other_requests(name):
    """One that ends another kind of request, or a request of the other side, ends the session."""
    side = Side(name, is_client=False)
    side.feed(SUBSCRIBES[name])
    refuses(side, ietf.FetchCancel(0))
    side = Side(name, is_client=False)
    side.feed(SUBSCRIBES[name])
    refuses(side, ietf.PublishDone(0, 2, 0))
    side = Side(name, is_client=True)
    side.ask()
    refuses(side, ietf.Unsubscribe(0))


@EACH_DRAFT
def test_goaway(name):
    """It is on the control stream, once."""
    client, server = Side(name, is_client=True), Side(name, is_client=False)
    wire = server.core.goaway("moqt://elsewhere/").opening
    assert client.feed(wire) == [Goaway("moqt://elsewhere/")]
    with pytest.raises(RemoteProtocolError):
        client.feed(wire)
    with pytest.raises(LocalProtocolError):
        server.core.goaway()
    refuses(server, ietf.Goaway("moqt://not-for-a-server/"))


@EACH_DRAFT
def test_unknown_messages(name):
    side = Side(name, is_client=False)
    with pytest.raises(RemoteProtocolError, match="unknown type"):
        side.feed("3f000100")


@EACH_DRAFT
def test_a_message_without_an_id(name):
    side = Side(name, is_client=False)
    with pytest.raises(RemoteProtocolError):
        side.feed("030000")


@pytest.mark.parametrize("draft", [14, 15, 16])
def test_every_recorded_message(draft):
    """Whatever peers wrote is read in any order without an exception of another kind, by both sides."""
    records = [record for record in json.loads(VECTORS.read_text()) if record["draft"] == draft]
    control = [record["hex"] for record in records if record["stream"] == "control"]
    assert len(control) > 15
    sides = (True, False)
    scopes = {receive_events(Side(f"moqt-{draft}", is_client=side), wire) for wire in control for side in sides}
    assert scopes <= {None, "session"}


def receive_events(side: Side, wire: str) -> str | None:
    """Returns what a message ends, if it ends something."""
    try:
        side.feed(wire)
    except RemoteProtocolError as error:
        return error.scope
    return None
