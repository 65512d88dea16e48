"""Staying connected, on a virtual clock: sessions in memory, with servers that do as the test says."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.nurseries import open_bare_nursery
from moqt_trio.redirection import Target, Trail
from moqt_trio.succession import Succession, is_passing
from moqt_trio.testing import session_pair

A, B, C = (f"https://{name}.example/" for name in "abc")
STEADY = moqt.Backoff(retries=4, first=1.0, factor=2.0, longest=5.0, jitter=0.0)
NO_SERVER = moqt.HandshakeFailed("no server")

Server = Callable[[moqt.Session], Awaitable[None]]


class AppError(Exception):
    """An application's own failure."""


async def stay(session: moqt.Session) -> None:
    """A server that serves for as long as the client likes, and a client that stays until it is cancelled."""
    await trio.sleep_forever()


async def stay_to_the_end(session: moqt.Session) -> None:
    """A client that stays until its session is over, and says how it ended."""
    raise await session.wait_closed()


def asks_to_leave(uri: str = "", after: float = 0.0) -> Server:
    """Returns a server that sends a GOAWAY, and serves on."""

    async def server(session: moqt.Session) -> None:
        await trio.sleep(after)
        await session.goaway(uri)
        await trio.sleep_forever()

    return server


def closes(code: int = 0, after: float = 0.0) -> Server:
    """Returns a server that closes the session."""

    async def server(session: moqt.Session) -> None:
        await trio.sleep(after)
        session.close(code, "enough")
        await trio.sleep_forever()

    return server


class Network:
    """Servers at URLs, and a record of what the client did, with the seconds since the test began.

    Each attempt takes the next step of the URL's plan, the last one again and again: an exception is raised, a function
    serves the session.
    """

    def __init__(self, plans: dict[str, list[Server | Exception]]) -> None:
        self._plans = plans
        self._began = trio.current_time()
        self.attempts: list[tuple[float, str]] = []
        self.closed: list[tuple[float, str]] = []

    def now(self) -> float:
        return round(trio.current_time() - self._began, 3)

    @contextlib.asynccontextmanager
    async def open(self, target: Target):
        self.attempts.append((self.now(), target.url))
        plan = self._plans[target.url]
        step = plan.pop(0) if len(plan) > 1 else plan[0]
        await trio.lowlevel.checkpoint()
        if isinstance(step, Exception):
            raise step
        try:
            async with session_pair() as (client, server), open_bare_nursery() as nursery:
                nursery.start_soon(step, server)
                yield client
                nursery.cancel_scope.cancel()
        finally:
            self.closed.append((self.now(), target.url))


async def connected(network, handler, *, retry=STEADY, policy=lambda redirect: True, max_redirects=3, limits=None):
    """What `stay_connected` does, on this network."""
    trail = Trail(A, policy=policy, max_redirects=max_redirects)
    succession = Succession(network.open, handler, trail=trail, retry=retry, limits=limits or moqt.Limits())
    return await succession.run(Target(A))


class TestReturning:
    async def test_what_the_handler_returned(self, autojump_clock):
        """The call returns what the handler did, and leaves no task."""
        before = trio.lowlevel.current_statistics().tasks_living
        network = Network({A: [stay]})

        async def handler(session: moqt.Session) -> int:
            await trio.sleep(3)
            return 42

        assert await connected(network, handler) == 42
        assert network.closed == [(3.0, A)]
        assert trio.lowlevel.current_statistics().tasks_living == before

    async def test_a_failure_is_bare(self, autojump_clock):
        """A handler's exception comes out as itself, also from a later session, and ends every other handler."""
        cancelled = []

        async def handler(session: moqt.Session) -> None:
            if len(network.attempts) == 2:
                raise AppError("mine")
            try:
                await trio.sleep_forever()
            finally:
                cancelled.append(network.now())

        network = Network({A: [asks_to_leave(B, after=2)], B: [stay]})
        with pytest.raises(AppError, match="mine"):
            await connected(network, handler)
        assert cancelled == [2.0]

    async def test_cancellation(self, autojump_clock):
        """Cancelled from outside, every session is closed at once: the old one, the new one."""
        network = Network({A: [asks_to_leave(B, after=1)], B: [stay]})
        with trio.move_on_after(2):
            await connected(network, stay)
        assert sorted(network.closed) == [(2.0, A), (2.0, B)]

    @pytest.mark.parametrize("when", [0.5, 1.5, 2.5])
    async def test_cancellation_while_retrying(self, autojump_clock, when):
        """Cancelled between or within attempts, the call ends at once."""
        network = Network({A: [closes(), NO_SERVER]})
        with trio.move_on_after(when) as scope:
            await connected(network, stay)
        assert scope.cancelled_caught
        assert network.now() == when

    async def test_a_scope_around_the_call(self, autojump_clock):
        """A handler that was asked to leave and knows that all is done cancels a scope around the call."""
        network = Network({A: [asks_to_leave(after=1), NO_SERVER]})
        with trio.CancelScope() as done:

            async def handler(session: moqt.Session) -> None:
                await session.wait_goaway()
                done.cancel()

            await connected(network, handler)
        assert done.cancelled_caught
        assert network.now() == 1.0


class TestLeaving:
    async def test_make_before_break(self, autojump_clock):
        """The next session runs before the old handler is told to end, and both run side by side meanwhile."""
        log = []

        async def handler(session: moqt.Session) -> str:
            name = "first" if len(network.attempts) == 1 else "second"
            log.append((network.now(), name, "begins"))
            if name == "second":
                await trio.sleep(1)
                return name
            try:
                await session.wait_goaway()
                log.append((network.now(), name, "asked"))
                await trio.sleep(0.5)
                assert session.closed is None
            finally:
                log.append((network.now(), name, "ends"))
            return name

        network = Network({A: [asks_to_leave(B, after=2)], B: [stay]})
        assert await connected(network, handler) == "second"
        assert log == [
            (0.0, "first", "begins"),
            (2.0, "first", "asked"),
            (2.0, "second", "begins"),
            (2.5, "first", "ends"),
        ]
        assert network.closed == [(2.5, A), (3.0, B)]

    async def test_drain_timeout(self, autojump_clock):
        """A handler that does not end by itself is cancelled after `Limits.drain_timeout`, and its session closed."""
        network = Network({A: [asks_to_leave(B, after=2)], B: [stay]})
        with trio.move_on_after(60):
            await connected(network, stay)
        assert network.closed[0] == (2.0 + moqt.Limits().drain_timeout, A)

    async def test_a_handler_that_ends_with_its_tracks(self, autojump_clock):
        """A server that leaves ends its tracks; a handler that returns then is not done, but goes on elsewhere."""
        names = []

        async def handler(session: moqt.Session) -> str:
            async with session.announcements() as announcements:
                await anext(announcements)
            async with session.subscribe("b", "t", max_age=60) as subscription:
                async for group in subscription:
                    names.append(b"".join(await group.read_all()))
            return "done"

        def publishes(payload: bytes, *, leaves: bool) -> Server:
            async def server(session: moqt.Session) -> None:
                broadcast = moqt.Broadcast()
                track = broadcast.track("t", delivery="reliable")
                async with session.publish("b", broadcast):
                    await track.wait_subscribed()
                    if leaves:
                        await session.goaway(B)
                    await track.write(payload)
                    track.finish()
                    await trio.sleep_forever()

            return server

        network = Network({A: [publishes(b"one", leaves=True)], B: [publishes(b"two", leaves=False)]})
        assert await connected(network, handler) == "done"
        assert names == [b"one", b"two"]

    async def test_a_return_at_the_moment_of_the_goaway(self, autojump_clock):
        """A handler that returns in the same step as the GOAWAY arrives has been asked to leave."""

        async def handler(session: moqt.Session) -> str:
            if len(network.attempts) == 2:
                return "second"
            await session._driver.going_away.wait()
            return "first"

        network = Network({A: [asks_to_leave(B)], B: [stay]})
        assert await connected(network, handler) == "second"

    @pytest.mark.parametrize("kind", ["closed", "reset"])
    async def test_cut_off_while_leaving(self, autojump_clock, kind):
        """What a server that leaves does to the old handler's streams and session is no failure."""

        async def server(session: moqt.Session) -> None:
            broadcast = moqt.Broadcast()
            track = broadcast.track("t")
            async with session.publish("b", broadcast):
                await track.wait_subscribed()
                group = track.open_group()
                await group.send(b"x")
                await trio.sleep(1)
                await session.goaway(B)
                await trio.sleep(1)
                if kind == "closed":
                    session.close(moqt.SessionCode.GOAWAY_TIMEOUT)
                else:
                    group.reset(moqt.StreamCode.GOING_AWAY)
                await trio.sleep_forever()

        seen = []

        async def handler(session: moqt.Session) -> str:
            if len(network.attempts) == 2:
                await trio.sleep(3)
                return "done"
            async with session.announcements() as announcements:
                await anext(announcements)
            try:
                async with session.subscribe("b", "t") as subscription:
                    async for group in subscription:
                        async for _frame in group:
                            pass
            except moqt.MoqtError as error:
                seen.append(type(error))
                raise
            return "unreached"

        network = Network({A: [server], B: [stay]})
        assert await connected(network, handler) == "done"
        assert seen == [moqt.SessionClosed if kind == "closed" else moqt.StreamReset]
        assert network.closed == [(2.0, A), (4.0, B)]

    async def test_a_failure_while_leaving(self, autojump_clock):
        """Any other exception of a handler that leaves is raised."""

        async def handler(session: moqt.Session) -> None:
            if len(network.attempts) == 2:
                await trio.sleep_forever()
            await session.wait_goaway()
            await trio.sleep(1)
            raise AppError("not saved")

        network = Network({A: [asks_to_leave(B)], B: [stay]})
        with pytest.raises(AppError, match="not saved"):
            await connected(network, handler)

    async def test_the_old_handler_may_outlast_the_new_one(self, autojump_clock):
        """When the current handler returns, an older one still has what is left of its time."""
        ended = []

        async def handler(session: moqt.Session) -> str:
            if len(network.attempts) == 2:
                return "new"
            await trio.sleep(3)
            ended.append(network.now())
            return "old"

        network = Network({A: [asks_to_leave(B)], B: [stay]})
        assert await connected(network, handler) == "new"
        assert ended == [3.0]

    async def test_refused_redirect(self, autojump_clock):
        """A redirect that is not allowed is raised, nobody connects there, and the handler has its time to end."""
        ended = []

        async def handler(session: moqt.Session) -> None:
            await session.wait_goaway()
            await trio.sleep(1)
            ended.append(network.now())

        network = Network({A: [asks_to_leave(B)]})
        with pytest.raises(moqt.RedirectRefused, match="does not allow"):
            await connected(network, handler, policy=moqt.same_authority)
        assert network.attempts == [(0.0, A)]
        assert ended == [1.0]

    async def test_refused_redirect_and_a_handler_that_stays(self, autojump_clock):
        """A handler that does not mind is cancelled after `Limits.drain_timeout`."""
        network = Network({A: [asks_to_leave(B)]})
        with pytest.raises(moqt.RedirectRefused):
            await connected(network, stay, policy=moqt.same_authority)
        assert network.closed == [(5.0, A)]

    async def test_a_loop(self, autojump_clock):
        """A → B → A → B ends after three redirects, with the way in the error."""
        network = Network({A: [asks_to_leave(B)], B: [asks_to_leave(A)]})
        with pytest.raises(moqt.RedirectRefused, match=f"{A} -> {B} -> {A} -> {B} -> {A}"):
            await connected(network, stay)
        assert [url for _, url in network.attempts] == [A, B, A, B]

    async def test_a_loop_that_takes_its_time(self, autojump_clock):
        """A session that lasts for `Limits.settle_time` starts the count anew."""
        settle = moqt.Limits().settle_time
        network = Network({A: [asks_to_leave(after=settle)]})
        with trio.move_on_after(20.5 * settle):
            await connected(network, stay)
        assert len(network.attempts) == 21
        network = Network({A: [asks_to_leave(after=settle - 0.01)]})
        with pytest.raises(moqt.RedirectRefused):
            await connected(network, stay)
        assert len(network.attempts) == 4

    async def test_a_restart_in_place(self, autojump_clock):
        """A GOAWAY without a URI leads to the same URL, as soon as the server there lets anybody in again."""
        network = Network({A: [asks_to_leave(), moqt.Rejected(503), moqt.Rejected(503), stay]})
        with trio.move_on_after(20):
            await connected(network, stay)
        assert network.attempts == [(0.0, A), (0.0, A), (1.0, A), (3.0, A)]

    async def test_a_place_that_does_not_answer(self, autojump_clock):
        """While the place that a server named does not answer, every other attempt goes to the place before."""
        network = Network({A: [asks_to_leave(B), NO_SERVER, stay], B: [NO_SERVER]})
        with trio.move_on_after(20):
            await connected(network, stay)
        assert network.attempts == [(0.0, A), (0.0, B), (1.0, A), (3.0, B), (7.0, A)]

    async def test_a_place_that_refuses(self, autojump_clock):
        """When the new place refuses for good, that is raised, not tried again."""
        network = Network({A: [asks_to_leave(B)], B: [moqt.Rejected(403, "not here")]})
        with pytest.raises(moqt.Rejected, match="403: not here"):
            await connected(network, stay)
        assert [url for _, url in network.attempts] == [A, B]


class TestLosing:
    @pytest.mark.parametrize(
        "error",
        [NO_SERVER, moqt.ConnectTimeout("none"), moqt.Rejected(503), moqt.SessionClosed(), ValueError("no URL")],
    )
    async def test_the_first_attempt_is_the_only_one(self, autojump_clock, error):
        """What keeps the first session from opening is raised as it is, and nothing is tried again."""
        network = Network({A: [error]})
        with pytest.raises(type(error)) as caught:
            await connected(network, stay)
        assert caught.value is error
        assert network.attempts == [(0.0, A)]

    async def test_backoff(self, autojump_clock):
        """A lost session is followed by attempts at growing intervals up to a bound; then the last error is raised."""
        network = Network({A: [closes(after=0.5), NO_SERVER]})
        with pytest.raises(moqt.HandshakeFailed):
            await connected(network, stay)
        assert [at for at, _ in network.attempts] == [0.0, 1.5, 3.5, 7.5, 12.5]

    async def test_a_server_that_lets_nobody_stay(self, autojump_clock):
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
        """After a redirect a lost session is opened anew where it was (moq-lite-06, section 7.18)."""
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
        """A handler that comes to its end on a session that was lost ends the call, and the retries with it."""

        async def handler(session: moqt.Session) -> str:
            await session.wait_closed()
            await trio.sleep(2)
            return "read everything"

        network = Network({A: [closes(), NO_SERVER]})
        assert await connected(network, handler) == "read everything"
        assert network.now() == 2.0
        assert len(network.attempts) == 2

    async def test_done_after_all_without_retries(self, autojump_clock):
        """That holds where there are none, too."""

        async def handler(session: moqt.Session) -> str:
            await session.wait_closed()
            await trio.sleep(2)
            return "read everything"

        assert await connected(Network({A: [closes()]}), handler, retry=None) == "read everything"

    async def test_done_while_the_next_one_opens(self, autojump_clock):
        """So it does while an attempt is under way: that one is given up."""

        class Slow(Network):
            @contextlib.asynccontextmanager
            async def open(self, target: Target):
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
        """Closed for what would close the next session, too, the client does not come back."""
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
    """No answer, no server, a server's own trouble and a lost connection may pass; a refusal does not."""
    assert is_passing(error) is passing


class TestBackoff:
    def test_without_chance(self):
        """Each delay is the factor times the one before, up to the longest."""
        backoff = moqt.Backoff(first=0.5, factor=3.0, longest=10.0, jitter=0.0)
        assert [backoff.delay(retry) for retry in range(5)] == [0.5, 1.5, 4.5, 10.0, 10.0]
        assert backoff.delay(10**9) == 10.0

    @pytest.mark.parametrize(("chance", "delay"), [(0.0, 4.0), (0.5, 3.0), (1.0, 2.0)])
    def test_chance_takes_its_share_away(self, chance, delay):
        """The delay is between the whole bound and what the jitter leaves of it."""
        backoff = moqt.Backoff(first=4.0, jitter=0.5, random=lambda: chance)
        assert backoff.delay(0) == delay

    def test_default(self):
        """By default there is chance, and the delays stay within their bounds."""
        backoff = moqt.Backoff()
        for retry in range(backoff.retries):
            bound = min(backoff.longest, backoff.first * backoff.factor**retry)
            assert bound * (1 - backoff.jitter) <= backoff.delay(retry) <= bound

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("retries", -1),
            ("first", 0),
            ("first", float("nan")),
            ("longest", 0.1),
            ("factor", 0.5),
            ("factor", 1e6),
            ("jitter", 1.5),
            ("jitter", -0.1),
        ],
    )
    def test_values_out_of_range(self, field, value):
        """A value that makes no sense is refused by name."""
        with pytest.raises(ValueError, match=r"Backoff\."):
            moqt.Backoff(**{field: value})


def test_the_options_of_connect():
    """It takes every option that `connect` takes, with the same default."""
    ours = inspect.signature(moqt.stay_connected).parameters
    theirs = inspect.signature(moqt.connect).parameters
    assert {name: ours[name].default for name in theirs} == {name: each.default for name, each in theirs.items()}
