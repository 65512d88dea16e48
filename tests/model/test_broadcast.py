"""A broadcast: a collection of tracks."""

from __future__ import annotations

import attrs
import pytest
import trio

from moqt_trio.limits import Limits
from moqt_trio.model.broadcast import Broadcast


def test_tracks_are_found_by_name():
    """A broadcast hands out a live, read-only view of its tracks, and iterates over them."""
    broadcast = Broadcast()
    view = broadcast.tracks
    chat = broadcast.track("chat", priority=10)
    video = broadcast.track("video", delivery="reliable", max_age=0, timescale=90_000)
    assert view == {"chat": chat, "video": video}
    assert list(broadcast) == [chat, video]
    assert (chat.priority, chat.delivery, chat.max_age, chat.timescale) == (10, "live", 5.0, 1000)
    assert (video.priority, video.delivery, video.max_age, video.timescale) == (127, "reliable", 0, 90_000)
    with pytest.raises(TypeError):
        view["other"] = chat
    assert repr(broadcast) == "<Broadcast of 2 tracks: 'chat', 'video'>"


def test_a_name_is_taken_until_its_track_ends():
    """A second track of one name is refused until the first has ended, and replaces it afterwards."""
    broadcast = Broadcast()
    first = broadcast.track("chat")
    with pytest.raises(ValueError, match="'chat'"):
        broadcast.track("chat")
    first.finish()
    second = broadcast.track("chat")
    assert broadcast.tracks["chat"] is second is not first


async def test_limits_reach_the_tracks():
    """The bounds given to a broadcast are those of its tracks."""
    track = Broadcast(limits=attrs.evolve(Limits(), max_frame=3)).track("chat")
    track.write_nowait(b"abc")
    with pytest.raises(ValueError, match="at most 3 bytes, not 4"):
        track.write_nowait(b"abcd")


async def test_finish_ends_every_track():
    """Finishing a broadcast ends all its tracks; nothing can be written afterwards."""
    broadcast = Broadcast()
    tracks = [broadcast.track(name) for name in ("a", "b")]
    broadcast.finish()
    assert all(track.ended for track in tracks)
    with pytest.raises(trio.ClosedResourceError):
        tracks[0].write_nowait(b"")
