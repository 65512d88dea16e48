"""What announcements say of the way: hop ids and costs, through a link and to a neighbour that dials."""

from __future__ import annotations

import pytest

import moqt_trio as moqt
from tests.interop.relay.nodes import OURS, PATH, THEIRS, each_scheme, node, showing, until
from tests.interop.relay.program import moq_relay

PUBLISHER = 77
NAMED = ["moq-lite-06", "moq-lite-05", "moq-lite-04"]
PRICED = ["moq-lite-06"]
LINK, OWN = 10, 5
UNPRICED = 1
"""What a session costs whose sides declare nothing."""


def cost_of(version: str) -> int:
    """What a broadcast costs a viewer: the publisher's own cost, its session with the first relay, and the link."""
    return OWN + UNPRICED + LINK if version in PRICED else 0


@each_scheme
@pytest.mark.parametrize("version", NAMED)
async def test_through_a_link(version, scheme):
    """A chain has the publisher and both relays, in order; the price of the link is added once, both ways."""
    async with moq_relay(hop_id=THEIRS) as theirs, node() as ours:
        with showing(theirs):
            async with ours.linked(theirs, version, scheme, cost=LINK):
                for at, to, chain in ((theirs, ours, (THEIRS, OURS)), (ours, theirs, (OURS, THEIRS))):
                    async with (
                        at.connect(version, hop_id=PUBLISHER) as publisher,
                        to.connect(version) as viewer,
                        publisher.publish(PATH, moqt.Broadcast(), cost=OWN if version in PRICED else 0),
                    ):
                        seen = await viewer.wait_announced(PATH)
                        assert seen.hops == (PUBLISHER, *chain)
                        assert (seen.cost, seen.cold_cost) == (cost_of(version),) * 2
                        # It does not come back to where it is from.
                        assert len(ours.origin.routes()) == 1
                    await until(lambda: not ours.origin.routes())


@each_scheme
@pytest.mark.parametrize("version", NAMED)
async def test_to_a_neighbour_that_dials(version, scheme):
    """The same where moq-relay has the price in its list."""
    async with (
        node(versions=[version]) as ours,
        moq_relay(hop_id=THEIRS, connect=[ours.url(scheme, f"?cost={LINK}")]) as theirs,
    ):
        with showing(theirs):
            await ours.wait_session()
            for at, to, chain in ((theirs, ours, (THEIRS, OURS)), (ours, theirs, (OURS, THEIRS))):
                async with (
                    at.connect(version, hop_id=PUBLISHER) as publisher,
                    to.connect(version) as viewer,
                    publisher.publish(PATH, moqt.Broadcast(), cost=OWN if version in PRICED else 0),
                ):
                    seen = await viewer.wait_announced(PATH)
                    assert seen.hops == (PUBLISHER, *chain)
                    assert (seen.cost, seen.cold_cost) == (cost_of(version),) * 2
                    assert len(ours.origin.routes()) == 1
                await until(lambda: not ours.origin.routes())
