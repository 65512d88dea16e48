"""Probe and goaway streams, both ends."""

from __future__ import annotations

import pytest

from moqt_trio.codes import SessionCode
from moqt_trio.errors import LimitExceeded, LocalProtocolError, Malformed, RemoteProtocolError
from moqt_trio.limits import Limits
from moqt_trio.protocol.events import (
    RequestCancelled,
    RequestFinished,
    RequestRefused,
)
from moqt_trio.protocol.probe import ProbeResponder
from moqt_trio.wire.messages import Goaway, Probe, ProbeLevel, Setup
from tests.protocol.harness import NEW, OLD, core

REPORT = {"moq-lite-03": "04800f4240", **dict.fromkeys(("moq-lite-04", *NEW), "05800f424028")}
UNKNOWN = {"moq-lite-03": "0100", **dict.fromkeys(("moq-lite-04", *NEW), "020000")}
WITH_GOAWAY = ("moq-lite-04", *NEW)
GOAWAY = "05141368747470733a2f2f622e6578616d706c652f78"


# -- probe --------------------------------------------------------------------------------------------------


def publisher(name: str) -> ProbeResponder:
    """Returns a publisher's machine for a stream with only its type."""
    stream = core(name, is_client=False).accept_bidi()
    assert stream.receive_data(b"\x04", False) == [Probe(None)]
    assert isinstance(stream.machine, ProbeResponder)
    return stream.machine


def test_a_probe_opens_with_its_type_alone(name):
    """Without a target only the type is sent, as moq-rs does; a target follows it."""
    assert core(name).probe().opening == b"\x04"
    target = core(name).probe(1_000_000)
    [first, second] = core(name).accept_bidi().receive_data(target.opening, False)
    assert (first, second) == (Probe(None), Probe(1_000_000))


def test_reports(name):
    """Estimates have the bytes of each version, 0 stands for unknown, and moq-lite-03 has no round trip."""
    machine = publisher(name)
    assert machine.report(1_000_000, 40).hex() == REPORT[name]
    assert machine.report(None).hex() == UNKNOWN[name]
    subscriber = core(name).probe()
    events = subscriber.receive_data(bytes.fromhex(REPORT[name] + UNKNOWN[name]), False)
    assert events == [
        Probe(1_000_000, None if name == "moq-lite-03" else 40),
        Probe(None, None),
    ]


def test_targets(name):
    """Each PROBE from the subscriber is a new target."""
    subscriber, machine = core(name).probe(), publisher(name)
    assert machine.receive_data(subscriber.update(5) + subscriber.update(None), False) == [
        Probe(5),
        Probe(None),
    ]


@pytest.mark.parametrize(
    ("cancel", "code"),
    [
        (lambda machine: machine.receive_data(b"", True), None),
        (lambda machine: machine.receive_reset(1), 1),
        (lambda machine: machine.receive_stop(0), 0),
    ],
)
def test_the_peer_may_end_it(name, cancel, code):
    """FIN, reset and stop end the probe, once, and reports after it are b""."""
    machine = publisher(name)
    assert cancel(machine) == [RequestCancelled(code)]
    assert machine.receive_reset(1) == machine.receive_stop(0) == machine.receive_data(b"\xff", True) == []
    assert machine.report(1) == b""


def test_type_and_fin_at_once(name):
    """A stream with only its type and FIN is a request that is cancelled."""
    assert core(name).accept_bidi().receive_data(b"\x04", True) == [Probe(None), RequestCancelled(None)]


def test_the_publisher_may_end_it(name):
    """FIN finishes, a reset refuses; targets after it are b""."""
    subscriber = core(name).probe()
    assert subscriber.receive_stop(0) == []
    assert subscriber.receive_data(b"", True) == [RequestFinished()]
    assert subscriber.receive_reset(1) == []
    assert subscriber.update(1) == b""
    subscriber = core(name).probe()
    assert subscriber.receive_reset(1) == [RequestRefused(1)]


def test_fin_inside_a_message(name):
    """A stream that finishes inside a PROBE is broken, from either side."""
    for machine in (publisher(name), core(name).probe()):
        with pytest.raises(Malformed, match="FIN inside PROBE") as caught:
            machine.receive_data(bytes.fromhex(REPORT[name])[:-1], True)
        assert caught.value.scope == "stream"


@pytest.mark.parametrize("name", NEW)
def test_a_peer_that_answers_no_probe_is_not_asked(name):
    """A probe that the peer's SETUP excludes is the caller's mistake."""
    side = core(name)
    side.accept_uni().receive_data(core(name, is_client=False).setup_stream(), True)
    with pytest.raises(LocalProtocolError, match="answers no probe"):
        side.probe()
    side = core(name)
    reporting = core(name, is_client=False, setup=Setup(ProbeLevel.REPORT))
    side.accept_uni().receive_data(reporting.setup_stream(), True)
    assert side.probe().opening


def test_probes_count_as_requests(name):
    """`max_requests` holds for probes, and their release makes room."""
    side = core(name, limits=Limits(max_requests=1))
    stream = side.accept_bidi()
    stream.receive_data(b"\x04", False)
    with pytest.raises(LimitExceeded, match="max_requests"):
        side.accept_bidi().receive_data(b"\x04", False)
    stream.release()
    assert side.accept_bidi().receive_data(b"\x04", False)


# -- goaway -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_GOAWAY)
def test_goaway(name):
    """A server's GOAWAY has a URI, and the session stores it."""
    sender = core(name, is_client=False).goaway("https://b.example/x")
    assert sender.opening.hex() == GOAWAY
    assert sender.receive_data(b"", True) == sender.receive_reset(0) == sender.receive_stop(0) == []
    client = core(name)
    assert client.goaway_received is None
    stream = client.accept_bidi()
    assert stream.receive_data(sender.opening, False) == [Goaway("https://b.example/x")]
    assert client.goaway_received == "https://b.example/x"
    assert stream.receive_data(b"", True) == []


@pytest.mark.parametrize("name", WITH_GOAWAY)
def test_a_client_may_leave_without_a_place(name):
    """A client's GOAWAY has no URI: the server takes it, and a URI is refused on both sides."""
    server = core(name, is_client=False)
    assert server.accept_bidi().receive_data(core(name).goaway().opening, True) == [Goaway("")]
    assert server.goaway_received == ""
    with pytest.raises(LocalProtocolError, match="elsewhere"):
        core(name).goaway("https://b.example/x")
    with pytest.raises(RemoteProtocolError, match="elsewhere") as caught:
        core(name, is_client=False).accept_bidi().receive_data(bytes.fromhex(GOAWAY), False)
    assert (caught.value.scope, caught.value.code) == ("session", SessionCode.PROTOCOL_VIOLATION)


@pytest.mark.parametrize("same_stream", [True, False])
@pytest.mark.parametrize("name", WITH_GOAWAY)
def test_goaway_comes_once(name, same_stream):
    """A second GOAWAY, on the same stream or another, ends the session; sending one is the caller's mistake."""
    client = core(name)
    stream = client.accept_bidi()
    stream.receive_data(bytes.fromhex("050100"), False)
    again, data = (stream, "0100") if same_stream else (client.accept_bidi(), "050100")
    with pytest.raises(RemoteProtocolError, match="second GOAWAY") as caught:
        again.receive_data(bytes.fromhex(data), False)
    assert (caught.value.scope, caught.value.code) == ("session", SessionCode.PROTOCOL_VIOLATION)
    client.goaway()
    with pytest.raises(LocalProtocolError, match="once"):
        client.goaway()


@pytest.mark.parametrize("name", WITH_GOAWAY)
def test_as_long_a_uri_as_the_limit(name):
    """A URI of `max_uri` bytes is read; one more ends the session."""
    client = core(name, limits=Limits(max_uri=19))
    assert client.accept_bidi().receive_data(bytes.fromhex(GOAWAY), False)
    with pytest.raises(LimitExceeded, match="max_uri") as caught:
        core(name, limits=Limits(max_uri=18)).accept_bidi().receive_data(bytes.fromhex(GOAWAY), False)
    assert caught.value.scope == "session"


@pytest.mark.parametrize("cut", [1, 2])
@pytest.mark.parametrize("name", WITH_GOAWAY)
def test_goaway_that_never_comes(name, cut):
    """FIN before the message breaks the stream; a reset has no event."""
    with pytest.raises(RemoteProtocolError) as caught:
        core(name).accept_bidi().receive_data(bytes.fromhex(GOAWAY)[:cut], True)
    assert caught.value.scope == "stream"
    stream = core(name).accept_bidi()
    stream.receive_data(bytes.fromhex(GOAWAY)[:cut], False)
    assert stream.receive_stop(1) == stream.receive_reset(1) == []
    stream.release()


def test_moq_lite_03_has_no_goaway():
    """Before moq-lite-04 GOAWAY can't be sent, and a peer's is an unknown stream."""
    with pytest.raises(LocalProtocolError, match="no goaway streams"):
        core(OLD[0]).goaway()
    with pytest.raises(RemoteProtocolError, match="unknown type"):
        core(OLD[0]).accept_bidi().receive_data(bytes.fromhex("050100"), False)
