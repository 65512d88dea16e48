"""Processes that are killed, a client or a server, while others of the server's clients or its successor go on."""

from __future__ import annotations

import signal
from functools import partial

import pytest
import trio

import moqt_trio as moqt
from tests.faults.counting import CLIENT, SERVER, TRACK, Numbers, Side, client_process, happens, server_process
from tests.transport.recorders import eventually

SCHEMES = pytest.mark.parametrize("scheme", ["moqt", "https"])
IDLE = 3.0
"""Seconds of `Limits.idle_timeout`, in place of 30."""
MARGIN = 3.0
"""Seconds for probe timeouts and a busy machine."""
QUICK = moqt.Backoff(retries=None, initial=0.02, maximum=0.1)


class Relay:
    """A server that announces to one client, the watcher, what another one publishes.

    Attributes:
        watching: Set once the watcher is there.
        gone: How the session of the other one ended.
    """

    def __init__(self) -> None:
        self.watching = trio.Event()
        self.gone: moqt.MoqtError | None = None

    async def watch(self, request: moqt.SessionRequest) -> None:
        async with request.accept() as self._watcher:
            self.watching.set()
            await self._watcher.wait_closed()

    async def relay(self, request: moqt.SessionRequest) -> None:
        async with request.accept() as session, session.announcements() as announcements:
            announcement = await anext(announcements)
            track = (broadcast := moqt.Broadcast()).track(TRACK)
            try:
                async with (
                    self._watcher.publish(announcement.path, broadcast),
                    session.subscribe(announcement.path, TRACK) as subscription,
                ):
                    await moqt.forward(subscription, track)
            except moqt.SessionClosed:
                # The list of announcements ends with the session, too.
                with pytest.raises(moqt.SessionClosed) as lost:
                    await anext(announcements)
                self.gone = lost.value


async def read_on(subscription: moqt.Subscription) -> None:
    async for group in subscription:
        await group.read_all()


@SCHEMES
async def test_a_publisher_that_is_killed(scheme):
    """The server notices within the idle timeout, and not at once: anyone may forge what the kernel says of the port.
    Then its announcement is withdrawn from the server's other client, whose session goes on."""
    relay = Relay()
    async with trio.open_nursery() as nursery:
        router = moqt.Router({"/watch": relay.watch, "/relay": relay.relay})
        limits = moqt.Limits(idle_timeout=IDLE)
        listener = await nursery.start(partial(moqt.serve, router, "127.0.0.1", 0, limits=limits))
        url = f"{scheme}://127.0.0.1:{listener.port}"
        async with (
            moqt.connect(f"{url}/watch", fingerprint=listener.fingerprint) as session,
            session.announcements() as announcements,
        ):
            await relay.watching.wait()
            with client_process(f"{url}/relay") as publisher, trio.fail_after(20):
                announced = await anext(announcements)
                assert announced.active
                async with session.subscribe(announced.path, TRACK) as subscription:
                    for _ in range(5):
                        await (await anext(subscription)).read_all()
                    assert listener.statistics().connections == 2
                    began = trio.current_time()
                    publisher.send_signal(signal.SIGKILL)
                    with trio.fail_after(IDLE + MARGIN):
                        withdrawn = await anext(announcements)
                        took = trio.current_time() - began
                    assert (withdrawn.path, withdrawn.active) == (announced.path, False)
                    with pytest.raises(moqt.StreamReset):
                        await read_on(subscription)
            print(f"\nwithdrawn {took:.2f} s after the kill: {relay.gone}")
            assert took > IDLE / 2
            assert isinstance(relay.gone, moqt.SessionClosed)
            assert not relay.gone.by_peer
            await eventually(lambda: listener.statistics().connections == 1)
            assert len(listener.sessions) == 1
            assert session.closed is None
        nursery.cancel_scope.cancel()


class Client:
    """A client that stays connected, and announces a broadcast on each session.

    Args:
        busy: Whether it sends groups; otherwise it sends nothing but keep-alives.

    Attributes:
        ends: When each session ended, and how.
    """

    def __init__(self, *, busy: bool) -> None:
        self.ends: list[tuple[float, moqt.MoqtError]] = []
        self._busy = busy
        self._scope = trio.CancelScope()
        self._left = trio.Event()

    async def stay(self, url: str) -> None:
        """Stay connected until it leaves."""
        with self._scope:
            limits = moqt.Limits(keep_alive=0.5)
            await moqt.stay_connected(url, self.run, verify=False, retry=QUICK, limits=limits)
        self._left.set()

    async def leave(self) -> None:
        """Close the session."""
        self._scope.cancel()
        await self._left.wait()

    async def run(self, session: moqt.Session) -> None:
        async with trio.open_nursery() as nursery:
            if self._busy:
                side = Side(CLIENT, SERVER, Numbers())
                nursery.start_soon(side.numbers.run)
                nursery.start_soon(side.run, session)
            else:
                nursery.start_soon(self._announce, session)
            end = await session.wait_closed()
            self.ends.append((trio.current_time(), end))
            nursery.cancel_scope.cancel()

    async def _announce(self, session: moqt.Session) -> None:
        async with session.publish(CLIENT, moqt.Broadcast()):
            await trio.sleep_forever()


@SCHEMES
@pytest.mark.parametrize("busy", [True, False], ids=["busy", "quiet"])
async def test_a_server_that_is_killed_and_started_again(scheme, busy):
    """A client learns from the new process that the session is over, with its next packet, whether that has groups or
    is a keep-alive, and long before the idle timeout. It connects again, and its announcement is there again."""
    client = Client(busy=busy)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            with server_process() as first:
                port = (await happens(first, "listening"))["port"]
                nursery.start_soon(client.stay, f"{scheme}://127.0.0.1:{port}/a")
                await happens(first, "running" if busy else "announced")
                killed = trio.current_time()
                first.send_signal(signal.SIGKILL)
                assert await trio.to_thread.run_sync(first.wait_ended) == -signal.SIGKILL
            with server_process(port) as second:
                await happens(second, "listening")
                began = trio.current_time()
                await happens(second, "announced")
                back = trio.current_time() - began
                if busy:
                    await happens(second, "running")
                ((ended, end),) = client.ends
                print(
                    f"\nlistening again {began - killed:.2f} s after the kill; "
                    f"{ended - began:.2f} s later the session ended, after {back:.2f} s it was announced again: {end}"
                )
                assert ended > killed
                assert back < MARGIN
                assert isinstance(end, moqt.SessionClosed)
                assert end.by_peer
                assert "stateless reset" in end.reason
                await client.leave()
