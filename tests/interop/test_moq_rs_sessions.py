"""What both sides know of an open session: the version and the path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.interop.moq_rs import PAIRINGS, MoqRs, Pairing, each_pairing, needs_moq_rs

if TYPE_CHECKING:
    import moqt_trio as moqt

pytestmark = needs_moq_rs

as_client = pytest.mark.parametrize("pairing", [item for item in PAIRINGS if item.role == "client"], ids=str)
as_server = pytest.mark.parametrize("pairing", [item for item in PAIRINGS if item.role == "server"], ids=str)


def carries_path(pairing: Pairing) -> bool:
    """Whether a request can name a path: in its URI, in SETUP, or in CLIENT_SETUP; moq-lite-03 and -04 have neither."""
    return pairing.scheme == "https" or pairing.number not in (3, 4)


@each_pairing
async def test_a_session_speaks_the_version_that_one_side_chose(moq_rs: MoqRs, pairing: Pairing):
    """Whichever side offers one version only, both speak that one, and the session stays open until we close it."""
    async with pairing.sessions(moq_rs) as (ours, _):
        assert ours.version == pairing.version
        async with ours.announcements() as announcements:
            assert announcements.active == ()


@as_client
async def test_moq_rs_reads_the_path_that_we_ask_for(moq_rs: MoqRs, pairing: Pairing):
    """moq-rs's server reports our URL's path, except over raw QUIC in versions whose path is not in SETUP: there its
    request is over before it reads the path that CLIENT_SETUP has in moq-lite-01 and -02."""
    async with pairing.sessions(moq_rs) as (_, theirs):
        assert theirs.path == ("/test" if pairing.scheme == "https" or pairing.number >= 5 else "")


@as_server
async def test_we_read_the_path_that_moq_rs_asks_for(moq_rs: MoqRs, pairing: Pairing):
    """Our server's request has the path of moq-rs's URL, over raw QUIC in moq-lite-01 and -02 too; where the version
    cannot carry one it goes to the router's default."""
    asked: list[str] = []

    def note(request: moqt.SessionRequest) -> None:
        asked.append(request.path)

    async with pairing.sessions(moq_rs, on_request=note):
        pass
    assert asked == ["/test" if carries_path(pairing) else "/default"]
