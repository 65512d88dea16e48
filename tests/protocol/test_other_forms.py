"""What the machines do for versions that are still to come: declared features, on a version made for the test.

The codec of moq-lite-04 stands in for the layouts; only ANNOUNCE_INIT, which no version here has, gets one.
"""

from __future__ import annotations

import attrs
import pytest

from moqt_trio.codes import SessionCode
from moqt_trio.errors import RemoteProtocolError
from moqt_trio.limits import Limits
from moqt_trio.protocol.core import SessionCore
from moqt_trio.protocol.events import Announced, InitialAnnouncementsDone
from moqt_trio.wire.lite import versions as lite
from moqt_trio.wire.messages import AnnounceInit, Expect, Goaway, StreamKind
from tests.protocol.harness import path_of, version


class _InitDialect(lite.TableDialect):
    """moq-lite-04 whose replies open with `{count, count × (length, suffix)}`, all of one byte."""

    def __init__(self, kinds=()) -> None:
        base = version("moq-lite-04")
        self.__dict__.update(base.__dict__)
        self.features = attrs.evolve(
            base.features,
            announce_first="init",
            sender_hop="none",
            subscribe_end=False,
            subscribe_drop=False,
            unknown_stream_closes=True,
        )
        self._kinds = dict(kinds)

    def stream_kind_untrusted(self, number, *, bidirectional):
        return self._kinds.get(number) or super().stream_kind_untrusted(number, bidirectional=bidirectional)

    def encode(self, message):
        if isinstance(message, AnnounceInit):
            body = b"".join(bytes([len(suffix)]) + suffix.encode() for suffix in message.suffixes)
            return bytes([len(message.suffixes)]) + body
        return super().encode(message)

    def read_untrusted(self, expect, buffer, limits):
        if expect is not Expect.ANNOUNCE_FIRST_REPLY:
            return super().read_untrusted(expect, buffer, limits)
        return AnnounceInit(tuple(buffer.take(buffer.take(1)[0]).decode() for _ in range(buffer.take(1)[0])))


def sides(kinds=()):
    """Returns a client's and a server's core of that version."""
    dialect = _InitDialect(kinds)
    return SessionCore(dialect, is_client=True), SessionCore(dialect, is_client=False)


@pytest.mark.parametrize("paths", [(), ("a",), ("a", "b/c")])
def test_announce_init(paths):
    """Where a batch opens the replies, it is the initial set, and the set is done after it."""
    client, server = sides()
    subscriber = client.request_announcements("")
    stream = server.accept_bidi()
    stream.receive_data(subscriber.opening, False)
    data = stream.machine.accept([(path, (3,), 0, 0) for path in paths])
    events = subscriber.receive_data(data, False)
    assert events == [*(Announced(path_of(path), initial=True) for path in paths), InitialAnnouncementsDone()]
    assert subscriber.receive_data(stream.machine.announce("later", (3,)), False) == [Announced(path_of("later"), (3,))]


def test_what_a_version_lacks_on_the_subscribe_stream_is_nothing():
    """Without SUBSCRIBE_END and SUBSCRIBE_DROP the calls are allowed and write nothing."""
    client, server = sides()
    stream = server.accept_bidi()
    stream.receive_data(client.subscribe("a", "t").opening, False)
    assert stream.machine.accept(None)
    assert stream.machine.drop(0, 1) == b""
    assert stream.machine.end(2) == b""


@pytest.mark.parametrize("bidi", [True, False])
def test_unknown_streams_may_close_the_session(bidi):
    """With `unknown_stream_closes` a stream of unknown type is a violation of the session."""
    _, server = sides()
    stream = server.accept_bidi() if bidi else server.accept_uni()
    with pytest.raises(RemoteProtocolError, match="unknown type") as caught:
        stream.receive_data(b"\x3f", False)
    assert (caught.value.scope, caught.value.code) == ("session", SessionCode.PROTOCOL_VIOLATION)


@pytest.mark.parametrize("bidi", [True, False])
def test_a_kind_without_a_machine_is_unknown(bidi):
    """A version may know a kind of stream that the session does not handle there."""
    _, server = sides({9: StreamKind.SESSION})
    stream = server.accept_bidi() if bidi else server.accept_uni()
    with pytest.raises(RemoteProtocolError, match="unknown type"):
        stream.receive_data(b"\x09", False)


class _WrongReplies(_InitDialect):
    def read_untrusted(self, expect, buffer, limits):
        buffer.take_all()
        return Goaway()


@pytest.mark.parametrize("make", [lambda side: side.request_announcements(""), lambda side: side.subscribe("a", "t")])
def test_a_message_that_is_no_reply_breaks_the_stream(make):
    """A message that a version allows there and the machine does not expect is an error, not a crash."""
    side = SessionCore(_WrongReplies(), is_client=True, limits=Limits())
    with pytest.raises(RemoteProtocolError, match="Goaway as a reply") as caught:
        make(side).receive_data(b"\x00", False)
    assert caught.value.scope == "stream"
