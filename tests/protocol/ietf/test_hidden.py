"""The extension for hidden namespaces: the option of SETUP, the parameter of the request, and who is told.

The bytes are those of moq-rs's wheel 0.5.1 on draft 18, but for a value that its request does not have.
"""

from __future__ import annotations

import pytest

from moqt_trio.codes import SessionCode
from moqt_trio.errors import LocalProtocolError, RemoteProtocolError
from moqt_trio.protocol.events import Announced, AnnouncementsRequested, InitialAnnouncementsDone
from tests.protocol.ietf.cores import core, feed

# MOQT_IMPLEMENTATION, HOP_ID, SOLICIT and HIDDEN, the last as 2 more than the type before it.
SETUP = "af00001c070b6d6f712d6c6974652d7273c40b4dfe01ef48613ede4e06010201"
WITHOUT = "af00001a070b6d6f712d6c6974652d7273c40b4dfe01ef48613ede4e0601"
SUBSCRIBE_NAMESPACE = "500007000001c40b5e01"
LISTED = [(path, (), 0, 0) for path in ("a", ".b", "c/.d")]


def asked(wire: str, *, shows: bool = False):
    """Return the paths that a peer is told, and the machine that tells it."""
    side = core(is_client=False)
    if shows:
        side.show_hidden()
    stream = side.accept_bidi()
    [event] = feed(stream, wire)
    assert isinstance(event, AnnouncementsRequested)
    reply = stream.machine.accept(LISTED)
    found = core(is_client=True).request_announcements("").receive_data(reply, False)
    assert isinstance(found[0], InitialAnnouncementsDone)
    return [str(item.path) for item in found[1:] if isinstance(item, Announced)]


def test_the_parameter_asks_for_them():
    """1 asks; 0, and a request without it, does not."""
    assert asked(SUBSCRIBE_NAMESPACE) == ["a", ".b", "c/.d"]
    assert asked("500007000001c40b5e00") == ["a"]
    assert asked("500003000000") == ["a"]


def test_a_session_that_shows_them():
    """They are told without being asked for."""
    assert asked("500003000000", shows=True) == ["a", ".b", "c/.d"]


@pytest.mark.parametrize("value", ["02", "3f"])
def test_another_value(value):
    """There are two values; another one ends the session."""
    stream = core(is_client=False).accept_bidi()
    with pytest.raises(RemoteProtocolError) as caught:
        feed(stream, f"500007000001c40b5e{value}")
    assert (caught.value.code, caught.value.scope) == (SessionCode.PROTOCOL_VIOLATION, "session")


def test_twice():
    """The parameter is there once at most."""
    stream = core(is_client=False).accept_bidi()
    with pytest.raises(RemoteProtocolError):
        feed(stream, "500009000002c40b5e010001")


def test_only_a_peer_that_knows_it_is_asked():
    """Without the option in the peer's SETUP, the request is refused here: the parameter would end the session."""
    client = core(is_client=True)
    with pytest.raises(LocalProtocolError, match="cannot be asked for hidden paths"):
        client.request_announcements("", hidden=True)
    feed(client.accept_uni(), WITHOUT)
    assert not client.asks_hidden
    with pytest.raises(LocalProtocolError, match="cannot be asked for hidden paths"):
        client.request_announcements("", hidden=True)
    client = core(is_client=True)
    feed(client.accept_uni(), SETUP)
    assert client.asks_hidden
    assert client.request_announcements("", hidden=True).opening.hex() == SUBSCRIBE_NAMESPACE
    assert "c40b5e" not in client.request_announcements("").opening.hex()
