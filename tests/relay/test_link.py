"""Links between relays over real sockets: they wait, come back, drain, and do not give up."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

import moqt_trio as moqt
from tests.api.interrupting import until
from tests.api.test_reconnecting_network import serving

QUICK = moqt.Backoff(retries=None, initial=0.02, factor=1.5, maximum=0.1)
SCHEMES = pytest.mark.parametrize("scheme", ["https", "moqt"])


def relaying(origin: moqt.Origin):
    """Return a router of a relay."""

    async def relay(request: moqt.SessionRequest) -> None:
        async with request.accept(view=origin.view(request.path)) as session:
            await session.wait_closed()

    return moqt.Router(fallback=relay, default="/")


@asynccontextmanager
async def listening(origin: moqt.Origin, port: int = 0):
    """Run a relay on a port of loopback."""
    async with serving(relaying(origin), port, hop_id=origin.hop_id) as listener:
        yield listener


@asynccontextmanager
async def linked(origin: moqt.Origin, url: str, **options):
    """Run a link for the length of the block."""
    options = {"retry": QUICK, "verify": False} | options
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(origin.link, url, **options))
            yield
            nursery.cancel_scope.cancel()


def paths(origin: moqt.Origin) -> list[str]:
    return [str(route.path) for route in origin.routes()]


async def free_port() -> int:
    async with serving(relaying(moqt.Origin())) as listener:
        return listener.port


@SCHEMES
async def test_content_both_ways(scheme):
    """Each side announces to the other, and reads from it; the cost of the link counts on both sides."""
    far, near = moqt.Origin(), moqt.Origin()
    async with listening(far) as listener, linked(near, f"{scheme}://127.0.0.1:{listener.port}/", cost=10):
        for source, other in ((far, near), (near, far)):
            broadcast = moqt.Broadcast()
            track = broadcast.track("video")
            async with source.publish("live", broadcast), other.connect() as viewer:
                announced = await viewer.wait_announced("live")
                assert announced.cost == 10
                assert announced.hops == (source.hop_id, other.hop_id)
                async with viewer.subscribe("live", "video") as subscription:
                    await track.wait_subscribed()
                    await track.write(b"over the link")
                    assert await (await subscription.receive()).read_all() == [b"over the link"]
            await until(lambda: not far.routes() and not near.routes())


@SCHEMES
async def test_a_relay_that_starts_later_and_again(scheme):
    """The link waits for it, and comes back after every loss."""
    port, near = await free_port(), moqt.Origin()
    async with linked(near, f"{scheme}://127.0.0.1:{port}/"):
        for _ in range(2):
            far = moqt.Origin()
            async with far.publish("live", moqt.Broadcast()), listening(far, port):
                await until(lambda: paths(near) == ["live"])
            await until(lambda: paths(near) == [])


@SCHEMES
async def test_a_relay_that_restarts_gracefully(scheme):
    """It asks to be left, and the session stays: its routes are the last ones. After its end, the next one is found."""
    near, first, second = moqt.Origin(), moqt.Origin(), moqt.Origin()
    port = await free_port()
    broadcast = moqt.Broadcast()
    track = broadcast.track("video")
    async with linked(near, f"{scheme}://127.0.0.1:{port}/"), first.publish("live", broadcast):
        async with listening(first, port) as listener, trio.open_nursery() as nursery, near.connect() as viewer:
            await viewer.wait_announced("live")
            async with viewer.subscribe("live", "video") as subscription:
                await track.wait_subscribed()
                nursery.start_soon(listener.aclose, 1.0)
                await until(lambda: near.routes()[0].cost == 2**62 - 1)
                draining = [session.draining for session in near.sessions() if session.peer is not None]
                assert draining == [True]
                await track.write(b"still")
                assert await (await subscription.receive()).read_all() == [b"still"]
        await until(lambda: not near.sessions())
        async with second.publish("next", moqt.Broadcast()), listening(second, port):
            await until(lambda: paths(near) == ["next"])
            assert [session.draining for session in near.sessions()] == [False]


async def test_a_redirect():
    """A GOAWAY with a URI is followed to the other relay, where the policy allows it."""
    near, first, second = moqt.Origin(), moqt.Origin(), moqt.Origin()
    async with second.publish("there", moqt.Broadcast()), listening(second) as other:

        async def door(request: moqt.SessionRequest) -> None:
            async with request.accept(view=first.view()) as session:
                await session.goaway(f"https://127.0.0.1:{other.port}/")
                await session.wait_closed()

        router = moqt.Router(fallback=door, default="/")
        async with serving(router) as listener:
            url, trusted = f"https://127.0.0.1:{listener.port}/", (listener.fingerprint, other.fingerprint)
            async with linked(near, url, verify=True, fingerprint=trusted, redirect=lambda redirect: True):
                await until(lambda: paths(near) == ["there"])


async def test_a_redirect_that_is_not_allowed(caplog):
    """The link stays where it is, and comes back there."""
    near, came = moqt.Origin(), []

    async def door(request: moqt.SessionRequest) -> None:
        async with request.accept(view=moqt.Origin().view()) as session:
            came.append(session)
            await session.goaway("https://elsewhere.example/")
            await trio.sleep(0.1)

    async with (
        serving(moqt.Router(fallback=door, default="/")) as listener,
        linked(near, f"moqt://127.0.0.1:{listener.port}/"),
    ):
        await until(lambda: len(came) > 1)
    assert "elsewhere.example" in caplog.text


@SCHEMES
async def test_a_refusal_is_tried_again(scheme, caplog):
    """It is logged each time, without the token, and the link is there once the other side takes it."""
    near, far = moqt.Origin(), moqt.Origin()
    came: list[moqt.SessionRequest] = []

    async def door(request: moqt.SessionRequest) -> None:
        came.append(request)
        if len(came) <= 3:
            raise moqt.Unauthorized("not yet")
        async with request.accept(view=far.view()) as session:
            await session.wait_closed()

    with caplog.at_level(logging.WARNING, "moqt_trio"):
        async with (
            far.publish("live", moqt.Broadcast()),
            serving(moqt.Router(fallback=door, default="/")) as listener,
            linked(near, f"{scheme}://127.0.0.1:{listener.port}/?jwt=secret"),
        ):
            await until(lambda: paths(near) == ["live"])
    refused = [record.getMessage() for record in caplog.records if "is refused" in record.getMessage()]
    assert len(refused) == 3
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("role", "here", "there"),
    [("publisher", ["own"], ["own", "theirs"]), ("subscriber", ["own", "theirs"], ["theirs"])],
)
async def test_one_way(role, here, there):
    """A link that only gives takes nothing, and the other way round."""
    near, far = moqt.Origin(), moqt.Origin()
    async with (
        near.publish("own", moqt.Broadcast()),
        far.publish("theirs", moqt.Broadcast()),
        listening(far) as listener,
        linked(near, f"moqt://127.0.0.1:{listener.port}/", role=role),
    ):
        await until(lambda: sorted(paths(near)) == here and sorted(paths(far)) == there)
        # What would come the other way comes before the end of this.
        async with near.publish("more", moqt.Broadcast()), far.publish("others", moqt.Broadcast()):
            more = [*here, "more", *(["others"] if role == "subscriber" else [])]
            await until(lambda: sorted(paths(near)) == sorted(more))
        await until(lambda: (sorted(paths(near)), sorted(paths(far))) == (here, there))


async def test_a_bound_of_attempts():
    """A `retry` that has one ends the link with the last error."""
    port = await free_port()
    few = moqt.Backoff(retries=2, initial=0.01, maximum=0.02)
    with trio.fail_after(30), pytest.raises(moqt.ConnectError):
        await moqt.Origin().link(f"moqt://127.0.0.1:{port}/", verify=False, retry=few)


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("http://localhost/", {}, "http"),
        ("https://localhost/", {"cost": -1}, "cost"),
        ("https://localhost/", {"retry": None}, "retry"),
        ("https://localhost/", {"role": "both ways"}, "both ways"),
    ],
)
async def test_wrong_arguments(url, options, says):
    """They are told before anything is tried."""
    with pytest.raises((ValueError, TypeError), match=says):
        await moqt.Origin().link(url, **options)
