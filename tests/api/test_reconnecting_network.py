"""Staying connected over real sockets: servers on loopback that redirect their clients, stop, and restart."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio

import moqt_trio as moqt
from tests.api.interrupting import until
from tests.authority import Authority

SCHEMES = pytest.mark.parametrize("scheme", ["https", "moqt"])
QUICK = moqt.Backoff(retries=50, initial=0.02, factor=1.5, maximum=0.1)


async def hold(request: moqt.SessionRequest) -> None:
    async with request.accept() as session:
        await session.wait_closed()


class Door:
    """Redirects every session, and records how each of them ended."""

    def __init__(self, place: str = "") -> None:
        self.place = place
        self.ended: list[moqt.MoqtError] = []

    async def __call__(self, request: moqt.SessionRequest) -> None:
        async with request.accept() as session:
            await session.goaway(self.place)
            self.ended.append(await session.wait_closed())


class Hall:
    """Keeps every session, and records its requests."""

    def __init__(self) -> None:
        self.requests: list[moqt.SessionRequest] = []

    async def __call__(self, request: moqt.SessionRequest) -> None:
        self.requests.append(request)
        await hold(request)


@contextlib.asynccontextmanager
async def serving(handler, port=0, **options):
    """Run a listener for the length of the block."""
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(moqt.serve, handler, "127.0.0.1", port, **options))
        yield listener
        nursery.cancel_scope.cancel()


def url_of(listener: moqt.Listener, scheme: str, path: str = "/") -> str:
    return f"{scheme}://127.0.0.1:{listener.port}{path}"


def anywhere(redirect: moqt.Redirect) -> bool:
    return True


def go_to(hall: Hall) -> Callable[[moqt.Session], Awaitable[moqt.Session]]:
    """Return a handler that leaves when it is asked, until it is in the hall."""

    async def handler(session: moqt.Session) -> moqt.Session:
        if not hall.requests:
            await session.wait_goaway()
        return session

    return handler


@SCHEMES
async def test_another_path(scheme):
    """A server may change the path; the query is kept, and the old session is closed with NO_ERROR."""
    door, hall = Door(), Hall()
    async with serving(moqt.Router({"/door": door, "/hall": hall})) as listener:
        door.place = url_of(listener, scheme, "/hall")
        with trio.fail_after(5):
            session = await moqt.stay_connected(
                url_of(listener, scheme, "/door?jwt=abc"), go_to(hall), fingerprint=listener.fingerprint
            )
    assert session.peer == ("127.0.0.1", listener.port)
    assert [(request.path, request.query) for request in hall.requests] == [("/hall", "jwt=abc")]
    assert [(type(error), error.remote_code) for error in door.ended] == [(moqt.SessionClosed, 0)]


@SCHEMES
async def test_another_server(scheme):
    """With a policy that allows it the client moves to another server, where the same fingerprint is asked for and no
    query is sent; a broadcast is published there as it is, and a subscriber there gets what is written from then on."""
    broadcast = moqt.Broadcast()
    text = broadcast.track("text", delivery="reliable")
    received = []
    door, queries = Door(), []

    async def subscriber(request: moqt.SessionRequest) -> None:
        queries.append(request.query)
        async with request.accept() as session:
            async with session.announcements() as announcements:
                announcement = await anext(announcements)
            async with session.subscribe(announcement.path, "text", max_age=60) as subscription:
                async for group in subscription:
                    received.append(await group.read_all())

    async def publish(session: moqt.Session) -> str:
        async with session.publish("alice", broadcast):
            if session.peer[1] == first.port:
                await session.wait_goaway()
                return "sent away"
            await text.wait_subscribed()
            await text.write(b"hello")
            text.finish()
            return "done"

    async with serving(door) as first, serving(subscriber) as second:
        assert first.fingerprint == second.fingerprint
        door.place = url_of(second, scheme)
        with trio.fail_after(5):
            outcome = await moqt.stay_connected(
                url_of(first, scheme, "/?jwt=abc"), publish, redirect=anywhere, fingerprint=first.fingerprint
            )
    assert outcome == "done"
    assert queries == [""]
    assert received == [[b"hello"]]


@SCHEMES
async def test_another_server_by_default(scheme):
    """By default another port is another authority, and no connection is opened there."""
    hall = Hall()
    async with serving(hall) as second, serving(Door(url_of(second, scheme))) as first:
        with trio.fail_after(5), pytest.raises(moqt.RedirectRefused, match=f"127.0.0.1:{second.port}"):
            await moqt.stay_connected(url_of(first, scheme), go_to(hall), fingerprint=first.fingerprint)
    assert hall.requests == []


async def test_another_transport():
    """From raw QUIC to WebTransport is a redirect to another authority; with a policy that allows it, it works."""
    door, hall = Door(), Hall()
    async with serving(moqt.Router({"/door": door, "/hall": hall})) as listener:
        door.place = url_of(listener, "https", "/hall")
        start = partial(
            moqt.stay_connected, url_of(listener, "moqt", "/door"), go_to(hall), fingerprint=listener.fingerprint
        )
        with trio.fail_after(5):
            with pytest.raises(moqt.RedirectRefused):
                await start()
            session = await start(redirect=anywhere)
    assert session.transport == "webtransport"


class TestTrust:
    @SCHEMES
    async def test_a_fingerprint_goes_along(self, scheme):
        """On another authority only the pinned certificate is trusted, too."""
        hall = Hall()
        other = moqt.development_certificate(["127.0.0.1"])
        async with (
            serving(hall, certificate=other) as second,
            serving(Door(url_of(second, scheme))) as first,
        ):
            start = partial(moqt.stay_connected, url_of(first, scheme), go_to(hall), redirect=anywhere)
            with trio.fail_after(5):
                with pytest.raises(moqt.CertificateInvalid):
                    await start(fingerprint=first.fingerprint)
                await start(fingerprint=[first.fingerprint, second.fingerprint])

    async def test_trust_in_anybody_does_not(self):
        """`verify=False` applies to the authority that the caller named, after a redirect too, and to no other."""
        door, hall = Door(), Hall()
        async with serving(moqt.Router({"/door": door, "/hall": hall})) as first, serving(hold) as second:
            start = partial(
                moqt.stay_connected,
                url_of(first, "moqt", "/door"),
                go_to(hall),
                redirect=anywhere,
                verify=False,
            )
            with trio.fail_after(5):
                door.place = url_of(first, "moqt", "/hall")
                await start()
                hall.requests.clear()
                door.place = url_of(second, "moqt")
                with pytest.raises(moqt.CertificateInvalid):
                    await start()

    async def test_a_clients_certificate_does_not(self, tmp_path):
        """It is shown to the authority that the caller named, after a redirect too, and to no other."""
        authority = Authority()
        cafile = authority.save(tmp_path)
        door, hall, elsewhere = Door(), Hall(), Hall()
        async with (
            serving(moqt.Router({"/door": door, "/hall": hall}), client_cafile=cafile) as first,
            serving(elsewhere, client_cafile=cafile) as second,
        ):
            pinned, shown = (first.fingerprint, second.fingerprint), authority.issue("client")
            options = {"redirect": anywhere, "fingerprint": pinned, "client_certificate": shown}
            with trio.fail_after(5):
                for place, found in ((url_of(first, "moqt", "/hall"), hall), (url_of(second, "moqt"), elsewhere)):
                    door.place = place
                    await moqt.stay_connected(url_of(first, "moqt", "/door"), go_to(found), **options)
        assert [request.certificate is None for request in hall.requests] == [False]
        assert [request.certificate for request in elsewhere.requests] == [None]


@SCHEMES
async def test_a_restart(scheme):
    """Over a shutdown in good order the old handler ends in its own time, meanwhile the client asks again and again,
    and finds the next server on the same port."""
    log = []

    async def handler(session: moqt.Session) -> None:
        log.append("opened")
        opened.set()
        if log.count("opened") == 2:
            return
        await session.wait_goaway()
        log.append("asked")
        await trio.sleep(0.1)
        assert session.closed is None
        log.append("left")

    async with trio.open_nursery() as nursery:
        opened = trio.Event()
        first = await nursery.start(partial(moqt.serve, hold, "127.0.0.1", 0))
        url = url_of(first, scheme)
        nursery.start_soon(partial(moqt.stay_connected, url, handler, retry=QUICK, fingerprint=first.fingerprint))
        with trio.fail_after(10):
            await opened.wait()
            await first.aclose(grace=5)
            assert log == ["opened", "asked", "left"]
            await nursery.start(partial(moqt.serve, hold, "127.0.0.1", first.port))
            opened = trio.Event()
            await opened.wait()
        nursery.cancel_scope.cancel()
    assert log == ["opened", "asked", "left", "opened"]


@SCHEMES
async def test_a_crash(scheme):
    """A server that ends without a GOAWAY is found again when it is back."""
    sessions = []

    async def handler(session: moqt.Session) -> str:
        sessions.append(session)
        opened.set()
        if len(sessions) == 2:
            return "back"
        await trio.sleep_forever()
        return "unreached"

    results = []

    async def client(url: str, fingerprint: str) -> None:
        limits = moqt.Limits(drain_timeout=0.1)
        results.append(await moqt.stay_connected(url, handler, retry=QUICK, fingerprint=fingerprint, limits=limits))

    opened = trio.Event()
    async with trio.open_nursery() as nursery:
        with trio.fail_after(10):
            async with serving(hold) as first:
                nursery.start_soon(client, url_of(first, scheme), first.fingerprint)
                await opened.wait()
            async with serving(hold, port=first.port):
                await until(lambda: bool(results))
    assert results == ["back"]
    assert sessions[0].closed is not None


class TestFirst:
    @SCHEMES
    async def test_refused(self, scheme):
        """The failure of the first session is raised at once."""
        async with serving(moqt.Router({"/here": hold})) as listener:
            with trio.fail_after(2), pytest.raises(moqt.Rejected, match="404"):
                await moqt.stay_connected(
                    url_of(listener, scheme, "/there"), go_to(Hall()), fingerprint=listener.fingerprint
                )

    @pytest.mark.parametrize(
        ("url", "options", "match"),
        [
            ("http://localhost/", {}, "https://"),
            ("moqt://localhost/", {"versions": ["moq-lite-99"]}, "moq-lite-99"),
            ("moqt://localhost/", {"fingerprint": "ab"}, "fingerprint"),
            ("moqt://localhost/", {"redirect_networks": ["everywhere"]}, "everywhere"),
            ("moqt://localhost/", {"max_redirects": -1}, "max_redirects"),
        ],
    )
    async def test_mistakes(self, url, options, match):
        """An invalid value is refused before anything is sent."""
        with pytest.raises(ValueError, match=match):
            await moqt.stay_connected(url, go_to(Hall()), **options)


@SCHEMES
async def test_no_task_is_left(scheme):
    """After the call as many tasks run as before, also when it was cancelled in the middle of a redirect."""
    async with serving(hold) as second, serving(Door(url_of(second, scheme))) as first:
        before = trio.lowlevel.current_statistics().tasks_living

        async def both(session: moqt.Session) -> None:
            if session.peer[1] == second.port:
                scope.cancel()
            await trio.sleep_forever()

        with trio.fail_after(5), trio.CancelScope() as scope:
            await moqt.stay_connected(url_of(first, scheme), both, redirect=anywhere, fingerprint=first.fingerprint)
        assert scope.cancelled_caught
        # Each of the servers' handlers has a few tasks of its own, which end with the session.
        await until(lambda: trio.lowlevel.current_statistics().tasks_living <= before)
