"""aiomoqt's interop client against a relay of ours: its 14 cases, on each draft that it speaks, over both transports.

The relay is `tests/peers/relay_server.py`, one process. The client is the package's own program, one process for each
case; in most cases it opens a publisher's and a subscriber's connection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from fnmatch import fnmatch

import pytest

from tests.interop.aiomoqt import (
    DRAFTS,
    SCHEMES,
    TRANSPORTS,
    Case,
    Outcome,
    RelayServer,
    needs_aiomoqt,
    relay_server,
    run_case,
)
from tests.interop.processes import shows_output_of

pytestmark = needs_aiomoqt

NAMES = [
    "setup-only",
    "announce-only",
    "publish-namespace-done",
    "subscribe-error",
    "rendezvous-timeout",
    "announce-subscribe",
    "subscribe-before-announce",
    "data-subgroup-basic",
    "subscribe-namespace-lifecycle",
    "namespace-discovery",
    "publish-track-only",
    "publish-track-subscribe",
    "fetch",
    "join",
]

AT_A_TIME = 4
"""Clients that run at a time: they mostly wait."""

_SKIPPED_BY_CLIENT = {
    "14-*-rendezvous-timeout": "ok # SKIP RENDEZVOUS_TIMEOUT is draft-18; negotiated draft-14",
    "16-*-rendezvous-timeout": "ok # SKIP RENDEZVOUS_TIMEOUT is draft-18; negotiated draft-16",
    "14-*-subscribe-namespace-lifecycle": "ok # SKIP NAMESPACE is draft-16; negotiated draft-14",
}
"""What the client says of cases that a draft has no messages for. It connects and negotiates all the same."""


class CaseFailed(AssertionError):
    """The client did not find what its case asks for."""


def _of(table: Mapping[str, str], case: Case) -> str | None:
    """Returns the entry of a case."""
    return next((text for pattern, text in table.items() if fnmatch(str(case), pattern)), None)


def _parameters() -> Iterator[object]:
    for case in (Case(draft, scheme, name) for draft in DRAFTS for scheme in SCHEMES for name in NAMES):
        yield pytest.param(case, id=str(case))


@pytest.fixture(scope="module")
def relay() -> Iterator[RelayServer]:
    """The relay, for all cases."""
    with relay_server() as relay:
        yield relay


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, relay: RelayServer) -> Iterator[dict[Case, Future[Outcome]]]:
    """The outcome of each case that was selected; they run while the tests wait for them in turn."""
    mine = [item for item in request.session.items if getattr(item, "originalname", None) == "test_case"]
    cases = [item.callspec.params["case"] for item in mine if item.path == request.path]
    pool = ThreadPoolExecutor(AT_A_TIME)
    try:
        yield {case: pool.submit(run_case, relay, case) for case in cases}
    finally:
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("case", list(_parameters()))
def test_case(case: Case, outcomes: dict[Case, Future[Outcome]], relay: RelayServer):
    """The client finds what its case asks for, without a tolerance, on the draft and the transport that were meant."""
    with shows_output_of(relay.child):
        outcome = outcomes[case].result()
        if outcome.verdict != (_of(_SKIPPED_BY_CLIENT, case) or "ok"):
            raise CaseFailed(f"{outcome.verdict}: {outcome.message}\n{outcome.output}")
        assert outcome.spoken == {(f"moqt-{case.draft}", TRANSPORTS[case.scheme])}
