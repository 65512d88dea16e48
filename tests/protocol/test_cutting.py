"""Cutting a stream into chunks makes no difference: whole, byte by byte, at random, truncated, with bytes after it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moqt_trio.limits import Limits
from moqt_trio.protocol.events import RequestCancelled
from moqt_trio.wire.messages import (
    AnnounceEnd,
    AnnounceOk,
    AnnounceStart,
    AnnounceUpdate,
    Goaway,
    Group,
    Message,
    Probe,
    ProbeLevel,
    Setup,
    StreamKind,
    SubscribeDrop,
    SubscribeEnd,
    SubscribeOk,
    SubscribeUpdate,
    TrackInfo,
)
from tests.protocol.harness import NAMES, NEW, by_bytes, core, outcome, version
from tests.wire.strict import Frame

if TYPE_CHECKING:
    from moqt_trio.protocol.core import SessionCore
    from moqt_trio.protocol.machine import StreamMachine


@attrs.frozen
class Script:
    """A stream's bytes, and the machine that reads them."""

    name: str
    version: str
    make: Callable[[], StreamMachine]
    data: bytes

    def __str__(self) -> str:
        return f"{self.name}-{self.version}"


def _fresh(name: str) -> SessionCore:
    return core(name, hop_id=11, path_on_wire=True, limits=Limits(max_frame=100_000))


def _bidi(name: str) -> StreamMachine:
    return _fresh(name).accept_bidi()


def _uni(name: str) -> StreamMachine:
    side = _fresh(name)
    side.subscribe("a", "t")
    return side.accept_uni()


def _scripts_of(name: str) -> list[Script]:
    dialect = version(name)
    peer = core(name, hop_id=77, is_client=False, setup=Setup(ProbeLevel.REPORT))

    def encoded(*messages: Message) -> bytes:
        return b"".join(map(dialect.encode, messages))

    def frames(*timestamps: int) -> bytes:
        payloads = (b"", b"x" * 63, b"y" * 64, b"z" * 20_000)
        frames = [Frame(p, t) for p, t in zip(payloads, timestamps, strict=False)]
        return dialect.frame_encoder().encode(frames)

    group = dialect.stream_type(StreamKind.GROUP) + encoded(Group(0, 70_000)) + frames(5000, 4000, 4000, 9000)
    subscribe = peer.subscribe("demo/cam", "events", priority=3, max_age_ms=70_000, start_group=3, end_group=80)
    updates = encoded(SubscribeUpdate(1), SubscribeUpdate(255, False, 100_000, 1, 2))
    announce = encoded(AnnounceStart("a/b", (3, 4)), AnnounceStart("c" * 100), AnnounceStart("loop", (11,)))
    replies = encoded(SubscribeOk(7), SubscribeDrop(1, 20_000, 3))
    if name == "moq-lite-06":
        announce += encoded(AnnounceUpdate(1, (9,), 1, 70_000), AnnounceEnd(2), AnnounceEnd(0))
    else:
        announce += encoded(AnnounceEnd(suffix="loop"), AnnounceEnd(suffix="a/b"))
    if name in NEW:
        announce = encoded(AnnounceOk(77, 2)) + announce
        replies += encoded(SubscribeEnd(90))
    found = [
        ("group", lambda: _uni(name), group),
        ("announce request", lambda: _bidi(name), peer.request_announcements("live/x").opening),
        ("announce replies", lambda: _fresh(name).request_announcements("p"), announce),
        ("subscribe", lambda: _bidi(name), subscribe.opening + updates),
        ("subscribe replies", lambda: _fresh(name).subscribe("a", "t"), replies),
        ("fetch", lambda: _bidi(name), peer.fetch("a/b", "t", 70_000).opening),
        ("fetch reply", lambda: _fresh(name).fetch("a", "t", 0), frames(5000, 4000, 4000, 9000)),
        ("probe", lambda: _bidi(name), peer.probe(70_000).opening + encoded(Probe(5))),
        ("probe replies", lambda: _fresh(name).probe(), encoded(Probe(1_000_000, 40), Probe(None, None))),
        ("unknown bidi", lambda: _bidi(name), b"\x7f\xff\x00\x00"),
        ("unknown uni", lambda: _uni(name), b"\xbf\xff\xff\xff\x00"),
    ]
    if name != "moq-lite-03":
        opening = dialect.stream_type(StreamKind.GOAWAY) + encoded(Goaway("https://b.example/x"))
        found.append(("goaway", lambda: _bidi(name), opening))
    if name in NEW:
        info = encoded(TrackInfo(127, False, 5000, 1_000_000))
        found += [
            ("setup", lambda: _uni(name), peer.setup_stream() or b""),
            ("track", lambda: _bidi(name), peer.request_track_info("a/b", "t").opening),
            ("track reply", lambda: _fresh(name).request_track_info("a", "t"), info),
        ]
    return [Script(title, name, make, data) for title, make, data in found]


SCRIPTS = [script for name in NAMES for script in _scripts_of(name)]
over_scripts = pytest.mark.parametrize("script", SCRIPTS, ids=str)


@over_scripts
def test_byte_by_byte_is_the_same_as_whole(script):
    """Every machine has the same events for one byte at a time as for the whole stream, and at least one."""
    whole = outcome(script.make, [script.data])
    assert outcome(script.make, by_bytes(script.data)) == whole
    assert whole[0] or whole[1]
    assert (whole[1] is None) is not script.name.startswith("unknown")


@over_scripts
def test_fin_with_the_last_bytes_is_the_same_as_fin_after_them(script):
    """FIN may come with the last chunk or alone."""
    events, error = outcome(script.make, [script.data])
    machine = script.make()
    if error is None:
        assert machine.receive_data(script.data, True) == events
    else:
        with pytest.raises(error[0]):
            machine.receive_data(script.data, True)


@over_scripts
def test_random_cuts_are_the_same_as_whole(script):
    """Any cut, empty chunks included, gives the same events."""
    randomly = random.Random(str(script))
    whole = outcome(script.make, [script.data])
    for _ in range(5):
        cuts = sorted(randomly.randrange(len(script.data) + 1) for _ in range(randomly.randrange(1, 8)))
        pieces = [script.data[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
        assert outcome(script.make, pieces) == whole


@over_scripts
def test_truncated_streams_have_only_documented_errors(script):
    """A stream that finishes too early ends in events or in one error, the same for every cut."""
    data = script.data[:120]
    for size in range(len(data)):
        expected = outcome(script.make, [data[:size]])
        assert outcome(script.make, by_bytes(data[:size])) == expected
        if expected[1] is not None and script.name != "setup":
            assert expected[1][2] == "stream"


@pytest.mark.parametrize("script", [s for s in SCRIPTS if not s.name.startswith("unknown")], ids=str)
def test_a_reset_at_any_point_is_normal(script):
    """Reset and stop after any number of bytes raise nothing, and only the first of them can have an event."""
    for size in range(0, len(script.data[:100]) + 1):
        machine = script.make()
        machine.receive_data(script.data[:size], False)
        events = [*machine.receive_reset(1), *machine.receive_stop(2), *machine.receive_reset(3)]
        assert len(events) <= 1
        assert not events or not isinstance(events[0], RequestCancelled) or events[0].code == 1
        assert machine.receive_data(script.data[size:], True) == []
        machine.release()


@given(script=st.sampled_from(SCRIPTS), data=st.data())
def test_mutated_streams_have_only_documented_errors(script, data):
    """Bytes changed, inserted or left out make events or one `RemoteProtocolError`, never anything else."""
    raw = bytearray(script.data[:200])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(raw) - 1, 0)))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    whole = outcome(script.make, [bytes(raw)])
    pieces = outcome(script.make, by_bytes(bytes(raw)))
    assert pieces[1] == whole[1]
    if whole[1] is None:
        assert pieces[0] == whole[0]
