"""The properties of a track in SUBSCRIBE_OK: those of peers, those that are kept, and one that has to be known."""

from __future__ import annotations

import pytest

from moqt_trio.errors import LimitExceeded, RemoteProtocolError
from moqt_trio.limits import Limits
from moqt_trio.protocol.ietf.core import IetfCore
from moqt_trio.protocol.ietf.track_properties import properties_of_track, track_info
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.ietf.profile import PROFILES
from moqt_trio.wire.messages import TrackInfo

LIMITS = Limits()
UNKNOWN_AGE = 2**53 - 1
EACH_DRAFT = pytest.mark.parametrize("draft", range(17, 23))


def core(draft, *, is_client):
    return IetfCore(dialects.get(f"moqt-{draft}"), is_client=is_client)


def accepted(draft, wire):
    """Returns what SUBSCRIBE_OK says of a track to a subscriber."""
    requester = core(draft, is_client=True).subscribe("a", "t")
    [event] = requester.receive_data(bytes.fromhex(wire), False)
    return event.info


def test_what_moq_rs_says():
    """Microseconds, the default priority, newest group first, and no age."""
    info = accepted(18, "04000e010109070208cf42400680801402")
    assert info == TrackInfo(priority=127, ordered=False, max_age_ms=UNKNOWN_AGE, timescale=1_000_000)


def test_what_aiomoqt_says():
    """Nothing: then timestamps are microseconds, and the priority is the default one."""
    info = accepted(18, "04000400010800")
    assert info == TrackInfo(priority=127, ordered=True, max_age_ms=UNKNOWN_AGE, timescale=1_000_000)


@EACH_DRAFT
def test_what_this_side_says(draft):
    """It comes out as it went in, unknown properties included."""
    client, server = core(draft, is_client=True), core(draft, is_client=False)
    requester = client.subscribe("a", "t")
    stream = server.accept_bidi()
    stream.receive_data(requester.opening, False)
    info = TrackInfo(200, True, 4000, 90_000, properties=((0x2, 7), (0xB, b""), (0x7FFE0, 1), (0x7FFE1, b"abc")))
    stream.machine.info = info
    [event] = requester.receive_data(stream.machine.accept(None), False)
    assert event.info == info


def test_drafts_without_a_place_for_them():
    for draft in (14, 15):
        assert properties_of_track(TrackInfo(), PROFILES[draft]) == ()
    assert properties_of_track(TrackInfo(9, max_age_ms=5, timescale=7), PROFILES[16]) == ((4, 5), (8, 7), (0xE, 246))


@pytest.mark.parametrize("draft", range(16, 23))
@pytest.mark.parametrize("inside", [False, True], ids=["plain", "immutable"])
def test_a_mandatory_property(draft, inside):
    """One that is unknown ends the request from 18 on, and not the session; before it is one of many."""
    profile = PROFILES[draft]
    pairs = ((0x4000, 1),)
    if inside:
        writer = profile.writer()
        writer.varint(0x4000)
        writer.varint(1)
        pairs = ((0xB, writer.getvalue()),)
    if draft < 18:
        assert track_info(pairs, profile, LIMITS).properties == pairs
        return
    with pytest.raises(RemoteProtocolError, match="0x4000") as caught:
        track_info(pairs, profile, LIMITS)
    assert (caught.value.scope, caught.value.code) == ("stream", 0x33)
    for kind in (0x3FFE, 0x8000):
        assert track_info(((kind, 1),), profile, LIMITS).properties == ((kind, 1),)


def test_values_within_immutable_properties():
    """They count, but for those that are written beside them."""
    profile = PROFILES[18]
    assert track_info(((0xB, bytes.fromhex("0407")),), profile, LIMITS).max_age_ms == 7
    assert track_info(((0xB, bytes.fromhex("0407")), (0x4, 8)), profile, LIMITS).max_age_ms == 8


@pytest.mark.parametrize("value", ["04", "0407ff", "0580"])
def test_immutable_properties_that_do_not_decode(value):
    """They end the request."""
    with pytest.raises(RemoteProtocolError) as caught:
        track_info(((0xB, bytes.fromhex(value)),), PROFILES[18], LIMITS)
    assert caught.value.scope == "stream"


def test_odd_values():
    """A priority beyond 255 is the lowest, a timescale of 0 is none, and an age without a bound is the highest."""
    info = track_info(((0x4, 2**64 - 1), (0x8, 0), (0xE, 300)), PROFILES[18], LIMITS)
    assert (info.priority, info.max_age_ms, info.timescale) == (0, UNKNOWN_AGE, 1_000_000)


def test_more_properties_than_are_read():
    many = bytes.fromhex("0000") * (LIMITS.max_parameters + 1)
    body = b"\x01\x00" + many
    with pytest.raises(LimitExceeded):
        accepted(18, (b"\x04" + len(body).to_bytes(2, "big") + body).hex())
