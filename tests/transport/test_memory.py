"""The memory transport: the conformance suite, and what a link does to it."""

from __future__ import annotations

import pytest
import trio
from tests.transport import conformance

from moqt_trio.errors import SessionClosed
from moqt_trio.limits import Limits
from moqt_trio.transport.memory import LossyLink, open_memory_pair


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
async def test_memory_conforms(check):
    """The memory transport keeps the rules of every transport."""
    await conformance.run_check(check, lambda limits: open_memory_pair(limits))
