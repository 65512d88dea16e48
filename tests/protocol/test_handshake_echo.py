"""The echo conversation of the README in the two versions that name tracks by tuples, byte for byte, in both roles.

The bytes are put together by hand from the layouts that the vectors show, and the quirks from what gomoqt is known to
write. One side is this library; the other is the recording.
"""

from __future__ import annotations

import pytest

from moqt_trio.codes import StreamCode
from moqt_trio.limits import Limits
from moqt_trio.protocol.core import SessionCore
from moqt_trio.protocol.events import (
    Announced,
    AnnouncementsEnded,
    AnnouncementsRequested,
    FramesReceived,
    GroupFinished,
    GroupStarted,
    InitialAnnouncementsDone,
    RequestCancelled,
    RequestFinished,
    SessionNegotiated,
    SessionStreamEnded,
    SubscribeRequested,
    TrackAnnounced,
    TrackUnannounced,
    Unannounced,
)
from moqt_trio.protocol.handshake import Negotiation
from moqt_trio.protocol.paths import track_path_local
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.messages import AnnounceRequest, StreamKind, Subscribe, SubscribeDrop, SubscribeOk
from tests.protocol.harness import by_bytes, path_of
from tests.wire.strict import Frame

PREFIX = "02" + "056a6170616e" + "056b796f746f"
TRACK = "03" + "056a6170616e" + "056b796f746f" + "0474657874"
SUFFIX = "01" + "0474657874"
HELLO = "0568656c6c6f"
BROADCAST, NAME = "japan/kyoto", "text"
PATH = path_of(BROADCAST)


def bytes_of(text: str) -> bytes:
    return bytes.fromhex(text)


class Recording:
    """What both sides write in one version. `framed` puts a length in front where the version has one."""

    def __init__(self, name: str) -> None:
        self.dialect = dialects.get(name)
        unframed = name == "moq-transfork-03"
        self.number = "c0000000ff0bad03" if unframed else "c0000000ffffff00"

        def framed(body: str) -> str:
            return body if unframed else f"{len(body) // 2:02x}" + body

        age = "5388" if unframed else ""
        self.hello = bytes_of("00" + framed("01" + self.number + "01" + "01052f6563686f"))
        self.welcome = bytes_of(framed(self.number + "00"))
        self.please = bytes_of("01" + framed(PREFIX))
        self.active = bytes_of(framed("01" + SUFFIX))
        self.active_in_full = bytes_of(framed("01" + TRACK))
        self.ended = bytes_of(framed("00" + SUFFIX))
        self.ended_in_full = bytes_of(framed("00" + TRACK))
        self.live = bytes_of("02" if unframed else "020200")
        self.subscribe = bytes_of("02" + framed("00" + TRACK + "00" + "00" + age + "0000"))
        self.info = bytes_of(framed("00" + "01" + "02" + ("00" if unframed else "")))
        self.gap = bytes_of(framed("02" + ("00" if unframed else "02") + ("34" if unframed else "03")))
        self.group = [bytes_of("00" + framed("00" + f"{sequence:02x}") + HELLO) for sequence in (1, 2, 3)]


@pytest.fixture(params=["gomoqt-develop", "moq-transfork-03"])
def recording(request):
    """Each of the two versions in turn."""
    return Recording(request.param)


@pytest.fixture(params=[0, 1], ids=["whole", "by bytes"])
def cut(request):
    """Cuts what the peer writes, or does not."""
    return by_bytes if request.param else lambda data: [data]


def take(machine, data: bytes, cut, *, fin: bool = False):
    events = [event for piece in cut(data) for event in machine.receive_data(piece, False)]
    return events + machine.receive_data(b"", True) if fin else events


def negotiate(recording: Recording, cut, *, is_client: bool):
    """Returns the machine of the session's stream and the core, after the handshake."""
    offered = dialects.resolve(["moq-lite-02", "moq-transfork-03", "gomoqt-develop"])
    negotiation = Negotiation(
        [recording.dialect] if is_client else offered,
        is_client=is_client,
        protocol="moq-00",
        webtransport=False,
        path="/echo",
    )
    stream = negotiation.handshake
    if is_client:
        assert stream.opening == recording.hello
        assert take(stream, recording.welcome, cut) == [SessionNegotiated(recording.dialect, None, ())]
    else:
        assert take(stream, recording.hello, cut) == [SessionNegotiated(recording.dialect, "/echo", ((1, b"/echo"),))]
        assert stream.accept() == recording.welcome
    return stream, SessionCore(stream.dialect, is_client=is_client, limits=Limits())


@pytest.mark.parametrize("is_client", [True, False], ids=["client", "server"])
def test_echo(recording, cut, is_client):
    """Announcements, subscriptions, groups and their ends: each side writes the recording, and reads the other's."""
    session, core = negotiate(recording, cut, is_client=is_client)
    assert core.setup_stream() is None
    where = track_path_local(BROADCAST, NAME, Limits())

    # Each side requests the other's announcements.
    asked = core.accept_bidi()
    assert take(asked, recording.please, cut) == [AnnouncementsRequested(PATH, AnnounceRequest(BROADCAST))]
    assert asked.kind is StreamKind.ANNOUNCE
    announcements = core.request_announcements(BROADCAST)
    assert announcements.opening == recording.please
    assert asked.machine.accept([(where, (), 0, 0)]) == recording.active + recording.live
    assert take(announcements, recording.active + recording.live, cut) == [
        Announced(PATH, initial=True),
        TrackAnnounced(PATH, NAME),
        InitialAnnouncementsDone(),
    ]

    # Each subscribes to the other's track.
    subscribed = core.accept_bidi()
    age = 5000 if recording.dialect.features.max_age else 0
    (request,) = take(subscribed, recording.subscribe, cut)
    assert request == SubscribeRequested(PATH, Subscribe(0, BROADCAST, NAME, ordered=None, max_age_ms=age))
    subscription = core.subscribe(BROADCAST, NAME, ordered=None, max_age_ms=5000)
    assert subscription.opening == recording.subscribe
    assert subscribed.machine.accept(1) == recording.info
    assert take(subscription, recording.info, cut) == [SubscribeOk(latest_group=1)]

    # Groups travel on streams of their own, and one is missing.
    for sequence in (1, 3):
        data = recording.group[sequence - 1]
        sender = core.group(0, sequence)
        assert sender.opening + sender.frames([Frame(b"hello")]) == data
        received = core.accept_uni()
        assert take(received, data, cut, fin=True) == [
            GroupStarted(0, sequence, 0),
            FramesReceived([Frame(b"hello")]),
            GroupFinished(),
        ]
    assert subscribed.machine.drop(2, 2, StreamCode.OLD) == recording.gap
    assert take(subscription, recording.gap, cut) == [SubscribeDrop(2, 2, StreamCode.OLD)]

    # The end: of the tracks, of the lists, of the session.
    assert subscribed.machine.end(4) == b""
    assert take(subscription, b"", cut, fin=True) == [RequestFinished()]
    assert take(subscribed, b"", cut, fin=True) == [RequestCancelled(None)]
    assert asked.machine.unannounce(where) == recording.ended
    assert take(announcements, recording.ended, cut) == [TrackUnannounced(PATH, NAME), Unannounced(PATH)]
    assert take(announcements, b"", cut, fin=True) == [AnnouncementsEnded()]
    assert take(asked, b"", cut, fin=True) == [RequestCancelled(None)]
    assert take(session, b"", cut, fin=True) == [SessionStreamEnded(None)]


def test_what_the_go_client_writes(cut):
    """gomoqt's echo client announces the whole path below its prefix, asks for nothing first, and counts short.

    It opens its announce stream and its subscription at once, its parameters are not even counted, and zeros are left
    left after the messages whose lists are nil.
    """
    recording = Recording("gomoqt-develop")
    offered = dialects.resolve(["moq-transfork-03", "gomoqt-develop"])
    negotiation = Negotiation(offered, is_client=False, protocol=None, webtransport=True)
    session = negotiation.handshake
    (settled,) = take(session, bytes_of("00" + "09" + "01" + recording.number), cut)
    assert settled == SessionNegotiated(recording.dialect, None, None)
    core = SessionCore(session.dialect, is_client=False)
    announcements = core.request_announcements(BROADCAST)
    assert take(announcements, recording.active_in_full, cut) == [
        Announced(PATH, initial=True),
        TrackAnnounced(PATH, NAME),
    ]
    assert take(announcements, bytes_of("010200"), cut) == [InitialAnnouncementsDone()]
    asked = core.accept_bidi()
    assert take(asked, bytes_of("01" + "0000"), cut) == [AnnouncementsRequested(path_of(""), AnnounceRequest(""))]
    assert asked.machine.accept([]) == recording.live
    subscribed = core.accept_bidi()
    (request,) = take(subscribed, bytes_of("02" + "17" + "00" + TRACK + "00000000"), cut)
    assert request == SubscribeRequested(PATH, Subscribe(0, BROADCAST, NAME, ordered=None))
    assert core.dialect.quirks.accept_before_groups
    assert take(announcements, b"\x00" + recording.ended_in_full + b"\x00", cut) == [
        TrackUnannounced(PATH, NAME),
        Unannounced(PATH),
    ]
