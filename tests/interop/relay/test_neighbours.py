"""moq-relay dials our server, which its `cluster.connect` lists, and takes it for a neighbour."""

from __future__ import annotations

from tests.interop.relay.nodes import (
    THEIRS,
    check_contents,
    each_scheme,
    each_version,
    node,
    showing,
)
from tests.interop.relay.program import moq_relay


@each_scheme
@each_version
async def test_contents_both_ways(version, scheme):
    """What is published at either is viewed at the other."""
    async with node(versions=[version]) as ours, moq_relay(hop_id=THEIRS, connect=[ours.url(scheme)]) as theirs:
        with showing(theirs):
            session = await ours.wait_session()
            assert session.version == version
            assert session.transport == {"https": "webtransport", "moqt": "quic"}[scheme]
            async with ours.connect(version) as here, theirs.connect() as there:
                await check_contents(here, there)
                await check_contents(there, here)
            assert session.closed is None
