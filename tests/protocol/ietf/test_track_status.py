"""TRACK_STATUS: against what aiomoqt 0.13 wrote, and what the drafts demand."""

from __future__ import annotations

import pytest

from moqt_trio.codes import StreamCode
from moqt_trio.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from moqt_trio.limits import Limits
from moqt_trio.path import BroadcastPath
from moqt_trio.protocol.events import RequestCancelled, RequestRefused, TrackInfoRequested
from moqt_trio.protocol.ietf.events import TrackStatusReceived
from moqt_trio.wire.messages import StreamKind, TrackInfo
from tests.protocol.ietf.cores import core

# Written by aiomoqt 0.13.3 as client, and its relay's answer, on 18, 20 and 22.
TRACK_STATUS = "0d000b0002016101620373756200"
ANSWER = "07000401090403"


def asked(name: str = "moqt-18", **options):
    stream = core(name, is_client=False, **options).accept_bidi()
    assert stream.receive_data(bytes.fromhex(TRACK_STATUS), False) == [
        TrackInfoRequested(BroadcastPath.parse("a/b"), "sub")
    ]
    assert stream.kind is StreamKind.TRACK
    return stream.machine


@pytest.mark.parametrize("name", ["moqt-18", "moqt-20", "moqt-22"])
def test_aiomoqt(name):
    """Its request is read, this side writes the same, and its answer is read: no properties, so the drafts' own."""
    machine = asked(name)
    assert machine.reply(TrackInfo(127, False, 300, 1000), (4, 3)).hex().startswith("07000d" + "01" + "090403")
    requester = core(name, is_client=True).request_track_info("a/b", "sub")
    assert requester.opening.hex() == TRACK_STATUS
    assert requester.receive_data(bytes.fromhex(ANSWER), True) == [
        TrackStatusReceived((4, 3), TrackInfo(127, True, 2**53 - 1, 1_000_000))
    ]


def test_properties_on_the_wire():
    """MAX_CACHE_DURATION, TIMESCALE and DEFAULT_PUBLISHER_PRIORITY, whose numbers are differences."""
    machine = asked()
    answer = machine.reply(TrackInfo(200, False, 300, 1000))
    assert answer.hex() == "070009" + "00" + "04" + "812c" + "04" + "83e8" + "06" + "37"
    with pytest.raises(LocalProtocolError):
        machine.reply(TrackInfo())


def test_draft_17_has_no_properties_there():
    stream = core("moqt-17", is_client=False).accept_bidi()
    stream.receive_data(bytes.fromhex("0d000c000002016101620373756200"), False)
    assert stream.machine.reply(TrackInfo(), (1, 0)).hex() == "07000401090100"
    requester = core("moqt-17", is_client=True).request_track_info("a/b", "sub")
    assert requester.receive_data(bytes.fromhex("07000100"), True) == [TrackStatusReceived(None, None)]


def test_a_refusal():
    machine = asked()
    refusal = machine.refusal(StreamCode.NOT_FOUND)
    assert refusal.hex() == "050003100000"
    requester = core(is_client=True).request_track_info("a/b", "sub")
    assert requester.receive_data(refusal, True) == [RequestRefused(StreamCode.NOT_FOUND)]
    assert requester.receive_reset(1) == []


@pytest.mark.parametrize("how", ["reset", "stop", "fin"])
def test_a_requester_that_leaves(how):
    """A FIN is the end of the request, which has no more; the others cancel it."""
    machine = asked()
    if how == "fin":
        assert machine.receive_data(b"", True) == []
        assert machine.reply(TrackInfo())
    else:
        assert (machine.receive_reset(1) if how == "reset" else machine.receive_stop(1)) == [RequestCancelled(1)]
        assert machine.reply(TrackInfo()) == b""


@pytest.mark.parametrize("wire", [TRACK_STATUS, ANSWER])
def test_a_second_message(wire):
    """It ends the session, at either end."""
    with pytest.raises(RemoteProtocolError) as caught:
        asked().receive_data(bytes.fromhex(wire), False)
    assert caught.value.scope == "session"
    requester = core(is_client=True).request_track_info("a/b", "sub")
    requester.receive_data(bytes.fromhex(ANSWER), False)
    with pytest.raises(RemoteProtocolError):
        requester.receive_data(bytes.fromhex(ANSWER), False)


def test_an_answer_that_does_not_come():
    with pytest.raises(RemoteProtocolError, match="FIN before"):
        core(is_client=True).request_track_info("a/b", "sub").receive_data(b"", True)
    assert core(is_client=True).request_track_info("a/b", "sub").receive_reset(1) == [RequestRefused(1)]


def test_requests_are_bounded():
    server = core(is_client=False, limits=Limits(max_requests=1))
    server.accept_bidi().receive_data(bytes.fromhex(TRACK_STATUS), False)
    with pytest.raises(LimitExceeded) as caught:
        server.accept_bidi().receive_data(bytes.fromhex(TRACK_STATUS), False)
    assert caught.value.scope == "stream"
