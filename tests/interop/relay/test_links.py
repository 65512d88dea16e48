"""`origin.link` to a moq-relay, on every version that it negotiates: content passes both ways."""

from __future__ import annotations

import pytest

from tests.interop.relay.nodes import (
    IETF,
    LITE,
    THEIRS,
    check_contents,
    check_fetch,
    check_late_viewer,
    each_scheme,
    each_version,
    node,
    showing,
)
from tests.interop.relay.program import moq_relay


@each_scheme
@each_version
async def test_from_theirs_to_ours(version, scheme):
    """Our relay is an edge of moq-relay: what is published there is viewed here."""
    async with moq_relay(hop_id=THEIRS) as theirs, node() as ours:
        with showing(theirs):
            async with (
                ours.linked(theirs, version, scheme),
                theirs.connect(version, scheme) as publisher,
                ours.connect() as viewer,
            ):
                await check_contents(publisher, viewer)


@each_scheme
@each_version
async def test_from_ours_to_theirs(version, scheme):
    """moq-relay is an edge of ours: what is published here is viewed there."""
    async with moq_relay(hop_id=THEIRS) as theirs, node() as ours:
        with showing(theirs):
            async with (
                ours.linked(theirs, version, scheme),
                ours.connect() as publisher,
                theirs.connect(version, scheme) as viewer,
            ):
                await check_contents(publisher, viewer)


@each_scheme
@each_version
async def test_a_late_viewer(version, scheme):
    """A viewer that comes in the middle of a group has it from its start, both ways."""
    async with moq_relay(hop_id=THEIRS) as theirs, node() as ours:
        with showing(theirs):
            async with (
                ours.linked(theirs, version, scheme),
                theirs.connect(version, scheme) as there,
                theirs.connect(version, scheme) as there_too,
                ours.connect() as here,
                ours.connect() as here_too,
            ):
                await check_late_viewer(there, here, here_too)
                await check_late_viewer(here, there, there_too)


@each_scheme
@pytest.mark.parametrize("version", [*LITE[:2], *IETF])
async def test_fetch(version, scheme):
    """A group of the past comes from its publisher, through both relays, both ways."""
    async with moq_relay(hop_id=THEIRS) as theirs, node() as ours:
        with showing(theirs):
            async with (
                ours.linked(theirs, version, scheme),
                theirs.connect(version, scheme) as there,
                ours.connect() as here,
            ):
                await check_fetch(there, here)
                await check_fetch(here, there)
