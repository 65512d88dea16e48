"""The SETUP stream: sent once, read once, and never with a parameter that a side may not send."""

from __future__ import annotations

import pytest

from moqt_trio.codes import SessionCode
from moqt_trio.errors import LocalProtocolError, RemoteProtocolError
from moqt_trio.wire.messages import ProbeLevel, Role, Setup
from tests.protocol.harness import NEW, OLD, core

EMPTY = bytes.fromhex("010100")  # accepted by and seen from moq-rs, on both versions
FULL = bytes.fromhex("011f03010101020f2f726f6f6d2f313f6a77743d746f6b0508c012fde2a60c0a02")


def violation(error: RemoteProtocolError) -> bool:
    return error.scope == "session" and error.code == SessionCode.PROTOCOL_VIOLATION


@pytest.mark.parametrize("name", OLD)
def test_old_versions_send_no_setup(name):
    """moq-lite-03 and -04 have no SETUP stream, so there is nothing to send."""
    assert core(name).setup_stream() is None


@pytest.mark.parametrize("name", NEW)
def test_an_empty_setup_is_still_sent(name):
    """A side without parameters sends the empty SETUP that moq-rs waits for."""
    assert core(name).setup_stream() == EMPTY


@pytest.mark.parametrize("name", NEW)
def test_the_hop_id_of_the_session_is_in_setup(name):
    """The hop id goes out in SETUP, unless the setup names another one."""
    side = core(name, hop_id=5345699471034882, setup=Setup(ProbeLevel.REPORT, "/room/1?jwt=tok"), path_on_wire=True)
    assert side.setup_stream() == FULL
    assert core(name, hop_id=3, setup=Setup(hop_id=4)).setup.hop_id == 4


@pytest.mark.parametrize(
    ("kwargs", "problem"),
    [
        ({"is_client": False, "setup": Setup(path="/x"), "path_on_wire": True}, "path or a role"),
        ({"is_client": False, "setup": Setup(role=Role.PUBLISHER)}, "path or a role"),
        ({"is_client": True, "setup": Setup(path="/x")}, "URI"),
    ],
)
def test_a_setup_that_may_not_be_sent_is_refused_here(kwargs, problem):
    """A server's path or role, and a path where the URI has it, never leave this side."""
    with pytest.raises(LocalProtocolError, match=problem):
        core("moq-lite-06", **kwargs)


@pytest.mark.parametrize("name", NEW)
def test_setup_tells_what_the_peer_can_do(name):
    """The server learns the client's probe level, path and hop id."""
    server = core(name, is_client=False, path_on_wire=True)
    stream = server.accept_uni()
    assert server.peer_setup is None
    expected = Setup(ProbeLevel.REPORT, "/room/1?jwt=tok", hop_id=5345699471034882)
    assert stream.receive_data(FULL, False) == [expected]
    assert server.peer_setup == expected
    assert stream.receive_data(b"", True) == []


@pytest.mark.parametrize("name", NEW)
def test_a_second_setup_stream_ends_the_session(name):
    """Two SETUP streams are a violation, whether or not the first one is complete."""
    side = core(name)
    side.accept_uni().receive_data(EMPTY[:1], False)
    with pytest.raises(RemoteProtocolError, match="second") as caught:
        side.accept_uni().receive_data(EMPTY, True)
    assert violation(caught.value)


@pytest.mark.parametrize(
    ("is_client", "path_on_wire", "data"),
    [
        (True, False, "010401030101"),  # a role, to a client
        (True, True, "0105010202" + b"/x".hex()),  # a path, to a client
        (False, False, "0105010202" + b"/x".hex()),  # a path over WebTransport
        (False, True, "01010000"),  # a byte after the message
        (False, True, "010101"),  # a parameter that is cut off
    ],
)
@pytest.mark.parametrize("name", NEW)
def test_a_setup_that_may_not_be_received_ends_the_session(name, is_client, path_on_wire, data):
    """A parameter that a side may not send, and bytes that do not decode, are a violation of the session."""
    side = core(name, is_client=is_client, path_on_wire=path_on_wire)
    with pytest.raises(RemoteProtocolError) as caught:
        side.accept_uni().receive_data(bytes.fromhex(data), True)
    assert violation(caught.value)


@pytest.mark.parametrize("data", ["01", "0104", "010401"])
@pytest.mark.parametrize("name", NEW)
def test_fin_before_the_end_of_setup(name, data):
    """A SETUP stream that finishes without its message is a violation of the session."""
    with pytest.raises(RemoteProtocolError):
        core(name).accept_uni().receive_data(bytes.fromhex(data), True)


@pytest.mark.parametrize("sent", [EMPTY[:2], EMPTY])
@pytest.mark.parametrize("name", NEW)
def test_reset_and_stop_of_setup_say_nothing(name, sent):
    """A reset at any point is normal, and after it no event comes."""
    stream = core(name).accept_uni()
    stream.receive_data(sent, False)
    assert stream.receive_stop(0) == []
    assert stream.receive_reset(1) == []
    assert stream.receive_data(b"\xff", True) == []


@pytest.mark.parametrize("name", OLD)
def test_old_versions_know_no_setup_stream(name):
    """Unidirectional type 1 is an unknown type before moq-lite-05: only that stream is refused."""
    with pytest.raises(RemoteProtocolError, match="unknown type") as caught:
        core(name).accept_uni().receive_data(EMPTY, True)
    assert caught.value.scope == "stream"
