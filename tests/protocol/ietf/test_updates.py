"""Updates of subscriptions and their answers: what is written, what is refused, and how many may wait."""

from __future__ import annotations

import attrs
import pytest

from moqt_trio.codes import StreamCode
from moqt_trio.errors import LocalProtocolError, RemoteProtocolError
from moqt_trio.protocol.events import RequestRefused, SubscribeRequested
from moqt_trio.protocol.ietf.events import FillRequested, PastRange, UpdateAnswered, UpdateRefused
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.messages import SubscribeUpdate
from tests.protocol.ietf.cores import core

DRAFTS = ["moqt-17", "moqt-18", "moqt-19", "moqt-20", "moqt-21", "moqt-22"]
EACH_DRAFT = pytest.mark.parametrize("name", DRAFTS)
PLAIN = SubscribeUpdate(0, False, 0, None, None, 0, None)


def subscribed(name: str, **wanted):
    """Returns both ends of a subscription that was accepted."""
    client, server = core(name, is_client=True), core(name, is_client=False)
    requester = client.subscribe("a", "t", **wanted)
    stream = server.accept_bidi()
    [event] = stream.receive_data(requester.opening, False)
    assert isinstance(event, SubscribeRequested)
    requester.receive_data(stream.machine.accept(None), False)
    return requester, stream.machine, event.request, client


@EACH_DRAFT
def test_forward(name):
    """It is left out where it is 1; 0 and 1 later are written as they change, and the answer of 1 has the place."""
    requester, responder, request, _ = subscribed(name, forward=False)
    assert not request.forward
    assert responder.receive_data(requester.update(forward=True), False) == [PLAIN]
    responder.resumed((6, 2))
    assert requester.receive_data(responder.answer_updates(), False) == [UpdateAnswered((6, 2))]
    events = responder.receive_data(requester.update(forward=False), False)
    assert events == [attrs.evolve(PLAIN, forward=False)]
    assert requester.receive_data(responder.answer_updates(), False) == [UpdateAnswered(None)]
    assert subscribed(name)[2].forward


def test_forward_on_the_wire():
    """Draft 18: FORWARD (0x10) with one byte, in a REQUEST_UPDATE that has nothing else; its OK has LARGEST_OBJECT."""
    requester, responder, _, _ = subscribed("moqt-18")
    assert requester.update(forward=False).hex() == "020004" + "02" + "01" + "1000"
    responder.receive_data(bytes.fromhex("0200040201" + "1000"), False)
    assert responder.answer_updates().hex() == "07000100"
    responder.receive_data(bytes.fromhex("0200040401" + "1001"), False)
    responder.resumed((6, 2))
    assert responder.answer_updates().hex() == "070004" + "01" + "090602"


@pytest.mark.parametrize("name", ["moqt-20", "moqt-22"])
def test_a_fill(name):
    """FILL_PARAMETERS of an update ask for something of the past, on a stream with the update's id; not in a pause."""
    _, responder, *_ = subscribed(name, forward=False)
    # One inner parameter, the filter of the group that is the newest: both drafts write it in the same bytes.
    inner = "01" + "210101"
    events = responder.receive_data(bytes.fromhex(f"02000a040210011304{inner}"), False)
    assert events == [FillRequested(4, PastRange(0, None), 0), PLAIN]
    sender = responder.reply(descending=False, priority=127, request_id=4)
    assert sender.opening.hex() == "0504"
    sender.opened()
    assert responder.end(0).hex() == "0b0003" + "02" + "01" + "00"
    _, responder, *_ = subscribed(name, forward=False)
    [event] = responder.receive_data(bytes.fromhex(f"02000804012304{inner}"), False)
    assert event == attrs.evolve(PLAIN, forward=False)


@EACH_DRAFT
def test_the_other_parameters(name):
    """A range, a timeout and a priority travel in one update; what stays is not written."""
    requester, responder, _, _ = subscribed(name)
    data = requester.update(start_group=4, end_group=9, delivery_timeout_ms=300, priority=3)
    [event] = responder.receive_data(data, False)
    assert event == attrs.evolve(PLAIN, start_group=4, end_group=9, delivery_timeout_ms=300, priority=3, restart=True)
    assert requester.update(priority=3) == b""
    [event] = responder.receive_data(requester.update(priority=4), False)
    assert event == attrs.evolve(PLAIN, start_group=4, end_group=9, delivery_timeout_ms=300, priority=4)


@pytest.mark.parametrize(("name", "most"), [("moqt-18", 32), ("moqt-22", 32), ("moqt-19", 2)])
def test_how_many_wait(name, most):
    """So many are written, as the peer's SETUP has it from 19 on; the last change is written with the next answer."""
    requester, responder, _, client = subscribed(name)
    if most == 2:
        # MAX_REQUEST_UPDATES (8) = 2
        assert client.accept_uni().receive_data(bytes.fromhex("af0000020802"), False)
    for number in range(1, most + 1):
        responder.receive_data(requester.update(priority=number), False)
    assert requester.update(priority=200) == b""
    assert requester.update(priority=201) == b""
    answers = responder.answer_updates()
    assert len(answers) == 4 * most
    assert requester.receive_data(answers[:4], False) == [UpdateAnswered(None)]
    due = requester.take_update()
    [event] = responder.receive_data(due, False)
    assert event.priority == 201
    requester.receive_data(answers[4:], False)
    assert requester.take_update() == b""


def test_what_setup_says():
    """From 19 on it has how many updates may wait, as this side bounds them in any case."""
    for name, expected in (("moqt-18", False), ("moqt-19", True), ("moqt-22", True)):
        opening = core(name, is_client=False).setup_stream()
        assert opening is not None
        assert (b"moqt_trio\x01\x20" in opening) is expected


@pytest.mark.parametrize("name", ["moqt-19", "moqt-20", "moqt-21", "moqt-22"])
def test_an_update_that_is_refused(name):
    """A range filter that SETUP did not allow: REQUEST_ERROR, then PUBLISH_DONE with UPDATE_FAILED, at both ends."""
    requester, responder, _, _ = subscribed(name)
    requester.update(priority=9)
    assert responder.receive_data(bytes.fromhex("0200060201" + "25020005"), False) == [UpdateRefused()]
    ending = responder.refusal(StreamCode.INTERNAL_ERROR)
    assert ending[:6].hex() == "050018030015"
    assert ending[-6:].hex() == "0b0003080000"
    assert requester.receive_data(ending, True) == [
        UpdateAnswered(None),
        RequestRefused(StreamCode.INTERNAL_ERROR),
    ]


def test_an_update_that_a_peer_refuses():
    """The subscription ends with the code of the refusal: moq-rs refuses all but a priority."""
    requester, *_ = subscribed("moqt-18")
    requester.update(forward=False)
    events = requester.receive_data(bytes.fromhex("0500039000" + "00" + "0b0003080000").replace(b"\x90", b"\x10"), True)
    assert events == [UpdateAnswered(None), RequestRefused(StreamCode.NOT_FOUND)]


@pytest.mark.parametrize("name", ["moq-lite-06", "moq-lite-03", "moq-transfork-03"])
@pytest.mark.parametrize("wanted", [{"forward": False}, {"delivery_timeout_ms": 1}, {"rendezvous_ms": 1}])
def test_the_versions_without(name, wanted):
    """They say so."""
    from moqt_trio.protocol.core import SessionCore

    side = SessionCore(dialects.get(name), is_client=True)
    with pytest.raises(LocalProtocolError, match=name):
        side.subscribe("a", "t", **wanted)
    if "rendezvous_ms" not in wanted:
        with pytest.raises(LocalProtocolError, match=name):
            side.subscribe("a", "t").update(**wanted)


def test_a_forward_that_is_neither():
    _, responder, _, _ = subscribed("moqt-18")
    with pytest.raises(RemoteProtocolError) as caught:
        responder.receive_data(bytes.fromhex("0200040201" + "1002"), False)
    assert caught.value.scope == "session"
