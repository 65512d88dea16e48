"""The machines of a fetch, its reply and a fill, fed with what moq-rs wrote, and what they refuse."""

from __future__ import annotations

import pytest

from moqt_trio.codes import SessionCode, StreamCode
from moqt_trio.errors import LocalProtocolError, RemoteProtocolError
from moqt_trio.frame import Frame
from moqt_trio.limits import Limits
from moqt_trio.protocol.events import RequestCancelled, RequestRefused, SubscribeRequested
from moqt_trio.protocol.ietf.events import FetchAccepted, JoinRequested, PastRange, RangeRequested, ReplyStarted
from moqt_trio.session.context import UnreadFrames
from moqt_trio.session.subscriber.group import AHEAD, GroupBuffer
from moqt_trio.wire.messages import FetchUpdate, SubscribeOk
from tests.protocol.ietf.test_machines import EACH_DRAFT, core, feed


class Source:
    """A stream that frames come from."""

    def broken(self, error):
        raise error

    def finished(self):
        pass

    def closed(self):
        pass


# Written by moq-rs's wheel 0.5.1 on draft 18.
JOINING_FETCH = "160009050203000220ff0201"
FETCH = "16001a070102036f7572036f7574056279746573000000000220ff0201"


def fetched(name: str = "moqt-18", *, start: tuple = (3, 1), end: tuple = (3, None), **options):
    """Returns both cores, and both ends of a fetch."""
    client, server = core(name, is_client=True), core(name, is_client=False)
    requester = client.fetch_range("a/b", "t", start, end, priority=200, **options)
    stream = server.accept_bidi()
    [event] = stream.receive_data(requester.opening, False)
    assert event == RangeRequested("a/b", "t", 200, PastRange(start, end, options.get("descending", False)))
    return client, server, requester, stream.machine


def reply_of(client, data: bytes):
    """Returns the client's machine of a reply's stream, fed with some bytes, and the events."""
    stream = client.accept_uni()
    return stream, stream.receive_data(data, False)


def test_fetches_of_moq_rs():
    """A joining one and one of a whole group."""
    server = core(is_client=True)
    stream = server.accept_bidi()
    assert feed(stream, JOINING_FETCH) == [JoinRequested(3, 0, PastRange(0, None))]
    stream = server.accept_bidi()
    assert feed(stream, FETCH) == [RangeRequested("our/out", "bytes", 0, PastRange((0, 0), (0, None)))]
    assert stream.machine.request_id == 7
    assert feed(stream, "", fin=True) == [RequestCancelled(None)]


@EACH_DRAFT
def test_a_fetch(name):
    """The acceptance on its own stream, the frames on another: each has its group and its index."""
    _, _, requester, responder = fetched(name, start=(3, 1), end=(5, 7))
    assert requester.receive_data(responder.accept((5, 7), end_of_track=True), False) == [FetchAccepted((5, 7), True)]
    sender = responder.reply(descending=False, priority=127)
    data = sender.opening + sender.frames(3, 1, [Frame(b"x", 9), Frame(b"")]) + sender.frames(5, 0, [Frame(b"y")])
    for cut in range(len(data)):
        frames: list[Frame] = []
        sizes: list[int] = []
        again, _, request, other = fetched(name, start=(3, 1), end=(5, 7))
        request.receive_data(other.accept((5, 7), end_of_track=True), False)
        stream, events = reply_of(again, data[:cut])
        events += stream.receive_data(data[cut:], False) if stream.machine is None or not events else []
        assert events == [ReplyStarted(request.request_id)]
        machine = stream.machine
        rest = machine.rest + (data[cut:] if len(machine.rest) + machine.header_bytes < len(data) else b"")
        assert machine.frames.feed_untrusted(rest, frames, sizes) == len(rest)
        assert [(frame.group, frame.object_id, bytes(frame), frame.timestamp) for frame in frames] == [
            (3, 1, b"x", 9),
            (3, 2, b"", None),
            (5, 0, b"y", None),
        ]
        assert sum(sizes) + machine.header_bytes == len(data)
        assert machine.frames.pending_bytes == 0


@EACH_DRAFT
def test_frames_that_are_read_a_few_at_a_time(name):
    """What is left is read by the next call, whatever the cut."""
    client, _, _, responder = fetched(name, start=(0, 0), end=(0, None))
    responder.accept((0, 99), end_of_track=False)
    sender = responder.reply(descending=False, priority=127)
    data = sender.frames(0, 0, [Frame(b"%d" % index) for index in range(100)])
    stream, _ = reply_of(client, sender.opening)
    decoder = stream.machine.frames
    frames: list[Frame] = []
    sizes: list[int] = []
    start = 0
    while start < len(data):
        before = len(frames)
        start = decoder.feed_untrusted(data, frames, sizes, start, 7)
        assert 0 < len(frames) - before <= 7
    assert frames == [b"%d" % index for index in range(100)]
    assert sum(sizes) == len(data)


@EACH_DRAFT
def test_marks(name):
    """A range that is not known any more, in front, between and behind; its bytes are credit as any."""
    client, _, _, responder = fetched(name, start=(0, 0), end=(9, None))
    responder.accept((9, 0), end_of_track=False)
    sender = responder.reply(descending=False, priority=127)
    data = sender.lost(2, 500) + sender.frames(3, 0, [Frame(b"x")]) + sender.lost(4, 0) + sender.lost(9, 1)
    stream, _ = reply_of(client, sender.opening + data)
    frames: list[Frame] = []
    sizes: list[int] = []
    decoder = stream.machine.frames
    assert decoder.feed_untrusted(stream.machine.rest, frames, sizes) == len(data)
    assert frames == [b"x"]
    assert [tuple(item.end) for item in decoder.missing] == [(2, 500), (4, 0), (9, 1)]
    assert sum(sizes) + decoder.spare == len(data)
    assert responder.reply(descending=True, priority=127).lost(2, 500) is None


def test_marks_that_fill_what_may_be_read_at_once():
    """A frame behind as many marks as are read at a time is there for a reader that waits."""
    client, _, _, responder = fetched(start=(0, 0), end=(9, None))
    responder.accept((9, 0), end_of_track=False)
    sender = responder.reply(descending=False, priority=127)
    stream, _ = reply_of(client, sender.opening)
    buffer = GroupBuffer()
    buffer.read_from(Source(), stream.machine.frames, UnreadFrames())
    data = b"".join(sender.lost(1, number) for number in range(AHEAD)) + sender.frames(3, 0, [Frame(b"x")])
    buffer.feed(data, fin=True)
    assert list(buffer.items) == [b"x"]


def test_more_marks_than_are_kept():
    """The newest stay."""
    client, _, _, responder = fetched(start=(0, 0), end=(9, None))
    responder.accept((9, 0), end_of_track=False)
    sender = responder.reply(descending=False, priority=127)
    stream, _ = reply_of(client, sender.opening + b"".join(sender.lost(0, number) for number in range(1000)))
    decoder = stream.machine.frames
    decoder.feed_untrusted(stream.machine.rest, [], [])
    assert [item.end.object for item in decoder.missing] == list(range(744, 1000))


@EACH_DRAFT
def test_an_object_of_another_group(name):
    """The reply to a fetch of one group has none of another: the stream is broken, not the session."""
    client, _, _, responder = fetched(name)
    responder.accept((3, 9), end_of_track=False)
    sender = responder.reply(descending=False, priority=127)
    stream, _ = reply_of(client, sender.opening)
    frames: list[Frame] = []
    with pytest.raises(RemoteProtocolError) as caught:
        stream.machine.frames.feed_untrusted(
            sender.frames(3, 1, [Frame(b"x")]) + sender.frames(4, 0, [Frame(b"y")]), frames, []
        )
    assert (caught.value.scope, caught.value.code) == ("stream", StreamCode.MALFORMED_TRACK)
    assert frames == [b"x"]


@EACH_DRAFT
def test_a_refused_fetch(name):
    """Its code; no reply is expected any more."""
    client, _, requester, responder = fetched(name)
    assert requester.receive_data(responder.refuse_range(), True) == [RequestRefused(StreamCode.NOT_FOUND)]
    requester.release()
    with pytest.raises(RemoteProtocolError) as caught:
        reply_of(client, b"\x05\x00")
    assert (caught.value.scope, caught.value.code) == ("stream", StreamCode.CANCELLED)
    assert responder.accept((0, 0), end_of_track=False) == b""


@EACH_DRAFT
def test_an_update(name):
    """A changed priority, and its answer; more than are answered end the session."""
    _, _, requester, responder = fetched(name)
    assert responder.receive_data(requester.update(7), False) == [FetchUpdate(7)]
    assert responder.answer_updates() == b""
    requester.receive_data(responder.accept((3, 9), end_of_track=False), False)
    assert requester.receive_data(responder.answer_updates(), False) == []
    updates = b"".join(requester.update(7) for _ in range(100))
    with pytest.raises(RemoteProtocolError) as caught:
        responder.receive_data(updates, False)
    assert caught.value.scope == "session"


def test_two_streams_for_one_fetch():
    """The second is refused."""
    client, _, _, responder = fetched()
    responder.accept((3, 9), end_of_track=False)
    opening = responder.reply(descending=False, priority=127).opening
    reply_of(client, opening)
    with pytest.raises(RemoteProtocolError) as caught:
        reply_of(client, opening)
    assert caught.value.scope == "stream"


@pytest.mark.parametrize("wire", ["05", ""])
def test_a_reply_that_is_cut_short(wire):
    """A FIN inside the header breaks the stream alone."""
    stream = core(is_client=True).accept_uni()
    if not wire:
        assert stream.receive_data(b"", True) == []
        return
    with pytest.raises(RemoteProtocolError) as caught:
        feed(stream, wire, fin=True)
    assert caught.value.scope == "stream"


@pytest.mark.parametrize("wire", ["", "0b0003020300"])
def test_what_is_no_reply(wire):
    """A FIN before the answer, and a message that answers something else."""
    _, _, requester, _ = fetched()
    with pytest.raises(RemoteProtocolError) as caught:
        feed(requester, wire, fin=True)
    assert (caught.value.scope, caught.value.code) == ("session", SessionCode.PROTOCOL_VIOLATION)


@pytest.mark.parametrize("name", ["moqt-20", "moqt-22"])
def test_a_fill(name):
    """It is asked for in SUBSCRIBE, and a stream that overtakes the acceptance waits for it."""
    client, server = core(name, is_client=True), core(name, is_client=False)
    requester = client.subscribe("a/b", "t")
    assert (requester.joins, requester.fills) == (True, True)
    stream = server.accept_bidi()
    [event] = stream.receive_data(requester.opening, False)
    assert isinstance(event, SubscribeRequested)
    responder = stream.machine
    assert responder.fill == PastRange(0, None)
    accepted = responder.accept(None, None, (6, 1))
    sender = responder.reply(descending=False, priority=127)
    sender.opened()
    reply, events = reply_of(client, sender.opening + sender.frames(6, 0, [Frame(b"x"), Frame(b"y")]))
    assert (events, reply.machine.parked, client.parked(requester.subscribe_id)) == ([], True, [reply.machine])
    with pytest.raises(RemoteProtocolError):
        reply_of(client, sender.opening)
    assert requester.receive_data(accepted, False) == [SubscribeOk(None, newest=(6, 1))]
    assert reply.receive_data(b"", False) == [ReplyStarted(requester.subscribe_id)]
    frames: list[Frame] = []
    reply.machine.frames.feed_untrusted(reply.machine.rest, frames, [])
    assert frames == [b"x", b"y"]
    assert client.parked(requester.subscribe_id) == []
    # The stream of a fill counts, and the group that it has is the newest.
    assert responder.end(7).hex().startswith("0b0003020100")


def test_a_fill_that_is_given_up():
    """A parked stream that is released leaves nothing behind."""
    client, server = core("moqt-22", is_client=True), core("moqt-22", is_client=False)
    requester = client.subscribe("a/b", "t")
    stream = server.accept_bidi()
    stream.receive_data(requester.opening, False)
    sender = stream.machine.reply(descending=False, priority=127)
    reply, _ = reply_of(client, sender.opening)
    reply.release()
    assert client.parked(requester.subscribe_id) == []


def test_limits_of_requests():
    """A peer may have so many fetches open."""
    server = core(is_client=False, limits=Limits(max_requests=1))
    client = core(is_client=True)
    server.accept_bidi().receive_data(client.fetch("a", "t", 0).opening, False)
    with pytest.raises(RemoteProtocolError) as caught:
        server.accept_bidi().receive_data(client.fetch("a", "t", 0).opening, False)
    assert (caught.value.scope, caught.value.code) == ("stream", StreamCode.NO_CAPACITY)


def test_a_second_answer():
    """A fetch is accepted once."""
    _, _, _, responder = fetched()
    responder.accept((0, 0), end_of_track=False)
    with pytest.raises(LocalProtocolError):
        responder.accept((0, 0), end_of_track=False)
