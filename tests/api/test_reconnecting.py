"""Staying connected, on a virtual clock: the effects of a GOAWAY and of a handler's end."""

from __future__ import annotations

import inspect

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from tests.api.reconnecting import (
    NO_SERVER,
    A,
    AppError,
    B,
    Network,
    Server,
    asks_to_leave,
    closes,
    connected,
    stay,
)


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

    async def test_a_failure_is_raised_without_a_group(self, autojump_clock):
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
        """A handler that is done after a GOAWAY cancels a scope around the call."""
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
        """The next session runs before the old handler is cancelled, and both run side by side meanwhile."""
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
        """A server that shuts down ends its tracks; a handler that returns then is called again on the next session."""
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
        """A handler that returns in the same step as the GOAWAY arrives counts as one that returned after it."""

        async def handler(session: moqt.Session) -> str:
            if len(network.attempts) == 2:
                return "second"
            await session._context.going_away.wait()
            return "first"

        network = Network({A: [asks_to_leave(B)], B: [stay]})
        assert await connected(network, handler) == "second"

    @pytest.mark.parametrize("kind", ["closed", "reset"])
    async def test_a_lost_session_after_goaway(self, autojump_clock, kind):
        """The end of the old handler's streams and session by a server that shuts down is no failure."""

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

    async def test_a_failure_after_goaway(self, autojump_clock):
        """Any other exception of a handler after a GOAWAY is raised."""

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
        """A redirect that is not allowed is raised, no connection is opened, and the handler has its time to end."""
        ended = []

        async def handler(session: moqt.Session) -> None:
            await session.wait_goaway()
            await trio.sleep(1)
            ended.append(network.now())

        network = Network({A: [asks_to_leave(B)]})
        with pytest.raises(moqt.RedirectRefused, match="does not allow"):
            await connected(network, handler, policy=moqt.allow_same_authority)
        assert network.attempts == [(0.0, A)]
        assert ended == [1.0]

    async def test_refused_redirect_and_a_handler_that_stays(self, autojump_clock):
        """A handler that ignores it is cancelled after `Limits.drain_timeout`."""
        network = Network({A: [asks_to_leave(B)]})
        with pytest.raises(moqt.RedirectRefused):
            await connected(network, stay, policy=moqt.allow_same_authority)
        assert network.closed == [(5.0, A)]

    async def test_a_loop(self, autojump_clock):
        """A → B → A → B ends after three redirects, with the chain in the error."""
        network = Network({A: [asks_to_leave(B)], B: [asks_to_leave(A)]})
        with pytest.raises(moqt.RedirectRefused, match=f"{A} -> {B} -> {A} -> {B} -> {A}"):
            await connected(network, stay)
        assert [url for _, url in network.attempts] == [A, B, A, B]

    async def test_a_loop_that_takes_its_time(self, autojump_clock):
        """A session that lasts for `Limits.settle_time` resets the count."""
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
        """A GOAWAY without a URI leads to the same URL, as soon as the server there accepts sessions again."""
        network = Network({A: [asks_to_leave(), moqt.Rejected(503), moqt.Rejected(503), stay]})
        with trio.move_on_after(20):
            await connected(network, stay)
        assert network.attempts == [(0.0, A), (0.0, A), (1.0, A), (3.0, A)]

    async def test_a_place_that_does_not_answer(self, autojump_clock):
        """While the redirect target does not answer, every other attempt goes to the previous URL."""
        network = Network({A: [asks_to_leave(B), NO_SERVER, stay], B: [NO_SERVER]})
        with trio.move_on_after(20):
            await connected(network, stay)
        assert network.attempts == [(0.0, A), (0.0, B), (1.0, A), (3.0, B), (7.0, A)]

    async def test_a_place_that_refuses(self, autojump_clock):
        """When the redirect target refuses with a 4xx status, that is raised without another attempt."""
        network = Network({A: [asks_to_leave(B)], B: [moqt.Rejected(403, "not here")]})
        with pytest.raises(moqt.Rejected, match="403: not here"):
            await connected(network, stay)
        assert [url for _, url in network.attempts] == [A, B]


def test_the_options_of_connect():
    """It takes every option that `connect` takes, with the same default."""
    ours = inspect.signature(moqt.stay_connected).parameters
    theirs = inspect.signature(moqt.connect).parameters
    assert {name: ours[name].default for name in theirs} == {name: each.default for name, each in theirs.items()}
