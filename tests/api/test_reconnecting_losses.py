"""Staying connected, on a virtual clock: sessions that are lost, and servers that cannot be reached."""

from __future__ import annotations

import contextlib

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.client.reconnect import is_temporary
from tests.api.reconnecting import (
    NO_SERVER,
    A,
    AppError,
    B,
    Network,
    asks_to_leave,
    closes,
    connected,
    stay,
    stay_to_the_end,
)


class TestLosing:
    @pytest.mark.parametrize(
        "error",
        [NO_SERVER, moqt.ConnectTimeout("none"), moqt.Rejected(503), moqt.SessionClosed(), ValueError("no URL")],
    )
    async def test_the_first_attempt_is_the_only_one(self, autojump_clock, error):
        """The failure to open the first session is raised as it is, without another attempt."""
        network = Network({A: [error]})
        with pytest.raises(type(error)) as caught:
            await connected(network, stay)
        assert caught.value is error
        assert network.attempts == [(0.0, A)]

    async def test_the_first_session_when_asked(self, autojump_clock):
        """With `retry_first` a server that is started after its client is found, after the delays of later sessions."""

        async def handler(session: moqt.Session) -> str:
            return "found"

        network = Network({A: [NO_SERVER, moqt.Rejected(503), moqt.ConnectTimeout("late"), stay]})
        assert await connected(network, handler, retry_first=True) == "found"
        assert [at for at, _ in network.attempts] == [0.0, 1.0, 3.0, 7.0]

    @pytest.mark.parametrize("error", [moqt.Rejected(404), moqt.CertificateInvalid("x"), moqt.VersionUnsupported("x")])
    async def test_the_first_session_is_refused(self, autojump_clock, error):
        """A refusal is raised all the same: the next attempt would get it, too."""
        network = Network({A: [NO_SERVER, error]})
        with pytest.raises(type(error)):
            await connected(network, stay, retry_first=True)
        assert len(network.attempts) == 2

    async def test_the_first_session_never_comes(self, autojump_clock):
        """When the retries are used up, the last failure is raised; without retries the first one is."""
        network = Network({A: [NO_SERVER]})
        with pytest.raises(moqt.HandshakeFailed):
            await connected(network, stay, retry_first=True)
        assert [at for at, _ in network.attempts] == [0.0, 1.0, 3.0, 7.0, 12.0]
        network = Network({A: [NO_SERVER]})
        with pytest.raises(moqt.HandshakeFailed):
            await connected(network, stay, retry=None, retry_first=True)
        assert len(network.attempts) == 1

    @pytest.mark.parametrize("first", [True, False])
    async def test_for_ever(self, autojump_clock, first):
        """Without a bound the attempts go on, for the first session and for later ones."""

        async def handler(session: moqt.Session) -> str | None:
            if len(network.attempts) > 1000:
                return "found"
            await session.wait_closed()
            return None

        plan = [NO_SERVER] * 1000 if first else [closes(), *[NO_SERVER] * 1000]
        network = Network({A: [*plan, stay]})
        retry = moqt.Backoff(retries=None, initial=1.0, maximum=60.0, jitter=0.0)
        assert await connected(network, handler, retry=retry, retry_first=first) == "found"
        assert len(network.attempts) == len(plan) + 1
        assert network.now() > 60 * 990

    async def test_backoff(self, autojump_clock):
        """A lost session is followed by attempts at growing intervals up to a bound; then the last error is raised."""
        network = Network({A: [closes(after=0.5), NO_SERVER]})
        with pytest.raises(moqt.HandshakeFailed):
            await connected(network, stay)
        assert [at for at, _ in network.attempts] == [0.0, 1.5, 3.5, 7.5, 12.5]

    async def test_a_server_that_keeps_no_session(self, autojump_clock):
        """Sessions that open and are lost at once use up the retries, too; the loss is raised."""
        network = Network({A: [closes()]})
        with pytest.raises(moqt.SessionClosed, match="enough"):
            await connected(network, stay_to_the_end)
        assert [at for at, _ in network.attempts] == [0.0, 1.0, 3.0, 7.0, 12.0]

    async def test_a_session_that_worked_starts_the_count_anew(self, autojump_clock):
        """After a session that lasted for `Limits.settle_time` there are as many retries as before, from the first
        delay on."""
        settle = moqt.Limits().settle_time
        network = Network({A: [closes(), NO_SERVER, closes(after=settle), NO_SERVER, stay]})
        with trio.move_on_after(60):
            await connected(network, stay)
        assert [at for at, _ in network.attempts] == [0.0, 1.0, 3.0, 14.0, 16.0]

    async def test_the_last_place_that_worked(self, autojump_clock):
        """After a redirect a lost session is opened again where it was (moq-lite-06, section 7.18)."""
        network = Network({A: [asks_to_leave(B)], B: [closes(after=1), stay]})
        with trio.move_on_after(20):
            await connected(network, stay)
        assert network.attempts == [(0.0, A), (0.0, B), (2.0, B)]

    async def test_no_retries(self, autojump_clock):
        """Without retries a loss ends the call: the handler has its time to read what arrived, then it is raised."""
        network = Network({A: [closes(after=1)]})
        with pytest.raises(moqt.SessionClosed, match="enough"):
            await connected(network, stay, retry=None)
        assert network.now() == 1.0 + moqt.Limits().drain_timeout
        network = Network({A: [closes(after=1)]})
        with pytest.raises(moqt.SessionClosed, match="enough"):
            await connected(network, stay_to_the_end, retry=None)
        assert network.now() == 1.0

    async def test_done_after_all(self, autojump_clock):
        """A handler that returns on a session that was lost ends the call, and the retries with it."""

        async def handler(session: moqt.Session) -> str:
            await session.wait_closed()
            await trio.sleep(2)
            return "read everything"

        network = Network({A: [closes(), NO_SERVER]})
        assert await connected(network, handler) == "read everything"
        assert network.now() == 2.0
        assert len(network.attempts) == 2

    async def test_a_handler_that_only_waits_for_the_end(self, autojump_clock):
        """A handler that returns None after a loss, as with `wait_closed` as its last line, gets the next session."""

        async def handler(session: moqt.Session) -> None:
            await session.wait_closed()

        network = Network({A: [closes(after=0.5), closes(after=0.5), stay]})
        with trio.move_on_after(60) as scope:
            await connected(network, handler)
        assert scope.cancelled_caught
        assert [at for at, _ in network.attempts] == [0.0, 1.5, 4.0]

    async def test_a_handler_that_only_waits_for_the_end_without_retries(self, autojump_clock):
        """Where no attempt is to follow, the loss is raised, and not taken for the end of the work."""

        async def handler(session: moqt.Session) -> None:
            await session.wait_closed()

        with pytest.raises(moqt.SessionClosed, match="enough"):
            await connected(Network({A: [closes()]}), handler, retry=None)

    async def test_a_session_that_the_handler_closed(self, autojump_clock):
        """A handler that closes its session is done, even if it returns None."""

        async def handler(session: moqt.Session) -> None:
            session.close()
            await session.wait_closed()

        network = Network({A: [stay]})
        assert await connected(network, handler) is None
        assert len(network.attempts) == 1

    async def test_done_after_all_without_retries(self, autojump_clock):
        """That holds where there are none, too."""

        async def handler(session: moqt.Session) -> str:
            await session.wait_closed()
            await trio.sleep(2)
            return "read everything"

        assert await connected(Network({A: [closes()]}), handler, retry=None) == "read everything"

    async def test_done_while_the_next_one_opens(self, autojump_clock):
        """So it does during an attempt, which is cancelled."""

        class Slow(Network):
            @contextlib.asynccontextmanager
            async def open(self, target):
                if self.attempts:
                    self.attempts.append((self.now(), target.url))
                    await trio.sleep(10)
                async with super().open(target) as session:
                    yield session

        async def handler(session: moqt.Session) -> str:
            await session.wait_closed()
            await trio.sleep(2)
            return "read everything"

        network = Slow({A: [closes()]})
        assert await connected(network, handler) == "read everything"
        assert network.now() == 2.0
        assert [at for at, _ in network.attempts] == [0.0, 1.0]

    @pytest.mark.parametrize("code", [2, 3, 6, 0x15, 404])
    async def test_final_codes(self, autojump_clock, code):
        """Closed for a reason that would close the next session too, the client does not reconnect."""
        network = Network({A: [closes(code)]})
        with pytest.raises(moqt.SessionClosed) as caught:
            await connected(network, stay_to_the_end)
        assert caught.value.remote_code == code
        assert len(network.attempts) == 1

    @pytest.mark.parametrize("error", [moqt.Rejected(404), moqt.CertificateInvalid("x"), moqt.VersionUnsupported("x")])
    async def test_final_failures(self, autojump_clock, error):
        """A refusal, an untrusted certificate and a missing version are raised on later attempts as well."""
        network = Network({A: [closes(), NO_SERVER, error]})
        with pytest.raises(type(error)):
            await connected(network, stay)
        assert len(network.attempts) == 3

    async def test_the_handlers_own_close(self, autojump_clock):
        """A handler that closes its session is not connected again: what it raises is raised."""

        async def handler(session: moqt.Session) -> None:
            session.close(64, "bye")
            raise await session.wait_closed()

        network = Network({A: [stay]})
        with pytest.raises(moqt.SessionClosed) as caught:
            await connected(network, handler)
        assert caught.value.local_code == 64
        assert len(network.attempts) == 1

    async def test_a_group_of_losses(self, autojump_clock):
        """A handler whose tasks all fail with the loss has lost its session, not failed."""

        async def handler(session: moqt.Session) -> str:
            if len(network.attempts) == 2:
                return "again"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stay_to_the_end, session)
                nursery.start_soon(stay_to_the_end, session)
            return "unreached"

        network = Network({A: [closes(), stay]})
        assert await connected(network, handler) == "again"

    async def test_a_failure_beside_the_loss(self, autojump_clock):
        """A failure of the application's is raised though the session was lost, too."""

        async def handler(session: moqt.Session) -> None:
            await session.wait_closed()
            raise AppError("mine")

        with pytest.raises(AppError, match="mine"):
            await connected(Network({A: [closes(), stay]}), handler)


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (moqt.ConnectTimeout("x"), True),
        (moqt.HandshakeFailed("x"), True),
        (moqt.Rejected(500), True),
        (moqt.Rejected(503), True),
        (moqt.Rejected(429), False),
        (moqt.SessionClosed(reason="idle"), True),
        (moqt.SessionClosed(by_peer=True), True),
        (moqt.SessionClosed(by_peer=True, remote_code=0), True),
        (moqt.SessionClosed(by_peer=True, remote_code=1), True),
        (moqt.SessionClosed(by_peer=True, remote_code=0x10), True),
        (moqt.SessionClosed(by_peer=True, remote_code=2), False),
        (moqt.SessionClosed(by_peer=True, remote_code=403), False),
        (moqt.SessionClosed(by_peer=True, remote_code=503), True),
        (moqt.SessionClosed(local_code=3), False),
        (moqt.CertificateInvalid("x"), False),
        (moqt.VersionUnsupported("x"), False),
        (moqt.RedirectRefused("x", uri=""), False),
        (moqt.LocalProtocolError("x"), False),
    ],
    ids=repr,
)
def test_what_passes(error, passing):
    """No answer, no server, a server error and a lost connection may be temporary; a refusal is not."""
    assert is_temporary(error) is passing
