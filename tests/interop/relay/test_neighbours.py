"""moq-relay dials our server, which its `cluster.connect` lists, and takes it for a neighbour."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from tests.interop.relay.nodes import (
    OURS,
    THEIRS,
    check_contents,
    check_fetch,
    check_late_viewer,
    each_scheme,
    each_version,
    node,
    showing,
    until,
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


@each_scheme
@pytest.mark.parametrize("version", ["moq-lite-06", "moqt-22"])
async def test_late_viewers_and_fetches(version, scheme):
    """A viewer that comes in the middle of a group has it from its start, and past groups are there, both ways."""
    async with node(versions=[version]) as ours, moq_relay(hop_id=THEIRS, connect=[ours.url(scheme)]) as theirs:
        with showing(theirs):
            await ours.wait_session()
            async with (
                ours.connect(version) as here,
                ours.connect(version) as here_too,
                theirs.connect() as there,
                theirs.connect() as there_too,
            ):
                await check_late_viewer(here, there, there_too)
                await check_late_viewer(there, here, here_too)
                await check_fetch(here, there)
                await check_fetch(there, here)


@each_scheme
async def test_it_dials_again(scheme):
    """After our server has restarted, under another hop id, moq-relay comes back, and content passes."""
    async with AsyncExitStack() as stack:
        async with node() as ours:
            port = ours.listener.port
            theirs = await stack.enter_async_context(moq_relay(hop_id=THEIRS, connect=[ours.url(scheme)]))
            await ours.wait_session()
        ours = await stack.enter_async_context(node(OURS + 1, port=port))
        with showing(theirs):
            await until(lambda: ours.origin.sessions(), 20.0)
            async with ours.connect() as here, theirs.connect() as there:
                await check_contents(here, there)
                await check_contents(there, here)
