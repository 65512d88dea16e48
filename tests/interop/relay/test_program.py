"""The moq-relay that the tests of this directory run."""

from __future__ import annotations

import pytest

from tests.interop.processes import other_program
from tests.interop.relay.program import MOQ_RELAY, REASON, moq_relay

if MOQ_RELAY is None:
    pytest.skip(REASON, allow_module_level=True)


def test_its_version():
    """It is of the series that these tests are written for."""
    assert MOQ_RELAY is not None
    with other_program(MOQ_RELAY, "--version") as child:
        line = child.wait_line(lambda line: "0.17." in line)
    assert line.startswith("moq-relay 0.17.")


async def test_it_ends_when_it_is_asked_to():
    """Without sessions it ends at once, and cleanly."""
    async with moq_relay(hop_id=7) as relay:
        async with relay.connect() as session:
            assert session.version == "moq-lite-06"
        relay.ask_to_end()
        assert await relay.wait_ended() == 0
