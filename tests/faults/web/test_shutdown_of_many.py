"""The echo server as a process with 200 sessions, 100 over each transport: a signal comes while it echoes on all."""

from __future__ import annotations

import re
import signal

import pytest
import trio

from tests.faults.talking import GRACE, MARGIN, Talker, echo_server, wait_ended
from tests.machine import seconds

SESSIONS = 100
"""Sessions over each transport."""
AT_ONCE = 20
"""Sessions that are opened at once: a busy machine takes a while for a handshake."""
PAUSE = 1.0
"""Seconds from an echo to the next message of a session."""
ENDED = re.compile(r"ended after [0-9.]+ s: (.*)")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("obedient", [True, False], ids=["leaving", "staying"])
async def test_a_signal(number, obedient):
    """Each client is asked to leave before its session ends, and each session ends with code 0: at once where the
    client leaves, and after the grace where it does not. The exit code is 0, and nothing is logged as a fault."""
    with echo_server("--log-level", "info") as server, trio.fail_after(120):
        talkers = [
            Talker(server, obedient=obedient, scheme=scheme, pause=PAUSE)
            for _ in range(SESSIONS)
            for scheme in ("https", "moqt")
        ]
        async with trio.open_nursery() as nursery:
            for first in range(0, len(talkers), AT_ONCE):
                group = talkers[first : first + AT_ONCE]
                for talker in group:
                    nursery.start_soon(talker.run)
                for talker in group:
                    await talker.started.wait()
            before = [talker.echoed for talker in talkers]
            began = trio.current_time()
            server.process.send_signal(number)
            code = await wait_ended(server, GRACE + 2 * MARGIN)
            took = trio.current_time() - began
        print(
            f"\n{len(talkers)} sessions, {sum(before)} echoes before the signal and "
            f"{sum(talker.echoed for talker in talkers) - sum(before)} after it; ended {took:.2f} s after it"
        )
        assert code == 0
        least, most = (0.0, seconds(GRACE)) if obedient else (GRACE, GRACE + 2 * MARGIN)
        assert least <= took < most
        assert all(talker.asked.is_set() for talker in talkers)
        own, peers = "this side", "the peer"
        if not obedient:
            own, peers = peers, own
            assert all(talker.echoed > count for talker, count in zip(talkers, before, strict=True))
        assert {str(talker.end) for talker in talkers} == {f"the session was closed by {own} with code 0x0 (NO_ERROR)"}
        errors = server.process.errors
        ends = [found[1] for line in errors if (found := ENDED.search(line))]
        assert ends == [f"the session was closed by {peers} with code 0x0 (NO_ERROR)"] * len(talkers)
        assert [line for line in errors if " INFO " not in line] == []
