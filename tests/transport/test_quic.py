"""Raw QUIC on loopback: the conformance suite, connecting, serving and closing."""

from __future__ import annotations

import pytest
import trio
from tests.transport import conformance
from tests.transport.quic_pair import quic_pair


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
async def test_quic_conforms(check):
    """Raw QUIC keeps the rules of every transport."""
    await conformance.run_check(check, quic_pair)
