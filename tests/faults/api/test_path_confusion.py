"""Paths that look like one that is served: other case, escaped slashes, dots, and names that begin the same."""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import moqt_trio as moqt
from moqt_trio.testing import serve_in_memory

SERVED = "live/cam"
LOOK_ALIKES = ["live/camera1", "live/cam/../x", "LIVE/cam", "live%2Fcam", "live/cam%2F..", "live", "live/cam/x", SERVED]
texts = st.lists(
    st.sampled_from(["live", "cam", "LIVE", "camera1", "..", ".", "%2F", "/", "x"]), min_size=1, max_size=6
)
paths = st.sampled_from(LOOK_ALIKES) | texts.map("/".join) | texts.map("".join)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(paths, min_size=1, max_size=8))
def test_a_group_is_fetched_by_its_own_path_alone(asked):
    """A server gives out a broadcast's group for its path, compared part by part, and for no look-alike."""
    trio.run(check, [*LOOK_ALIKES, *asked], clock=trio.testing.MockClock(autojump_threshold=0))


async def check(asked: list[str]) -> None:
    broadcast = moqt.Broadcast()
    broadcast.track("t", max_age=3600).write_nowait(b"x")

    async def handler(request: moqt.SessionRequest) -> None:
        async with request.accept() as session, session.publish(SERVED, broadcast):
            await session.wait_closed()

    with trio.fail_after(600):
        async with serve_in_memory(handler) as server, server.connect("https://localhost/") as session:
            for path in asked:
                try:
                    async with session.fetch(path, "t", 0) as group:
                        granted = await group.read_all() == [b"x"]
                except moqt.MoqtError:
                    granted = False
                assert granted is (moqt.BroadcastPath.parse(path) == moqt.BroadcastPath.parse(SERVED)), path
            assert session.closed is None
