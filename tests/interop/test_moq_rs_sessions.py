"""What both sides know of a session once it is there: the version and the path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.interop.wheel import PAIRINGS, Pairing, Wheel, each_pairing, needs_wheel

if TYPE_CHECKING:
    import moqt_trio as moqt

pytestmark = needs_wheel

as_client = pytest.mark.parametrize("pairing", [item for item in PAIRINGS if item.role == "client"], ids=str)
as_server = pytest.mark.parametrize("pairing", [item for item in PAIRINGS if item.role == "server"], ids=str)


def carries_path(pairing: Pairing) -> bool:
    """Whether a request can name a path: in its URI, in SETUP, or in CLIENT_SETUP; moq-lite-03 and -04 have neither."""
    return pairing.scheme == "https" or pairing.number not in (3, 4)


@each_pairing
async def test_a_session_speaks_the_version_that_one_side_chose(wheel: Wheel, pairing: Pairing):
    """Whichever side offers one version only, both speak that one, and both live until we close."""
    async with pairing.sessions(wheel) as (ours, _):
        assert ours.version == pairing.version
        async with ours.announcements() as announcements:
            assert announcements.active == ()


@as_client
async def test_the_wheel_reads_the_path_that_we_ask_for(wheel: Wheel, pairing: Pairing):
    """The wheel's server reports our URL's path, except over raw QUIC in versions whose path is not in SETUP: there its
    request is over before it reads the path that CLIENT_SETUP has in moq-lite-01 and -02."""
    async with pairing.sessions(wheel) as (_, theirs):
        assert theirs.path == ("/test" if pairing.scheme == "https" or pairing.number >= 5 else "")


@as_server
async def test_we_read_the_path_that_the_wheel_asks_for(wheel: Wheel, pairing: Pairing):
    """Our server's request has the path of the wheel's URL, over raw QUIC in moq-lite-01 and -02 too; where the version
    cannot carry one it goes to the router's default."""
    asked: list[str] = []

    def note(request: moqt.SessionRequest) -> None:
        asked.append(request.path)

    async with pairing.sessions(wheel, on_request=note):
        pass
    assert asked == ["/test" if carries_path(pairing) else "/default"]
