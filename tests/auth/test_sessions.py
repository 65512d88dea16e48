"""Sessions of a relay whose clients an authority admits: over raw QUIC, over WebTransport, and in memory."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.auth import AuthClient, AuthRequest, AuthServer, Claims, TokenAuth, TokenKey
from moqt_trio.testing import serve_in_memory
from tests.auth.serving import WAIT, Scripted, http, relaying
from tests.machine import seconds
from tests.transport.recorders import eventually

KEY = TokenKey.generate("ES256")
SCHEMES = ["moqt", "https"]
Admit = Callable[[moqt.SessionRequest], Awaitable[moqt.Grant]]


@asynccontextmanager
async def serving(admit: Admit, origin: moqt.Origin) -> AsyncIterator[moqt.Listener]:
    """Run a relay on the loopback interface."""

    async def handle(request: moqt.SessionRequest) -> None:
        grant = await admit(request)
        async with request.accept(view=origin.view(request.path, grant=grant)) as session:
            await session.wait_closed()

    with trio.fail_after(WAIT):
        async with trio.open_nursery() as nursery:
            serve = partial(moqt.serve, moqt.Router(fallback=handle), "localhost", 0, hop_id=origin.hop_id)
            listener = await nursery.start(serve)
            yield listener
            await listener.aclose(0)


def dial(listener: moqt.Listener, scheme: str, path: str = "/live", **options):
    url = f"{scheme}://localhost:{listener.port}{path}"
    return moqt.connect(url, fingerprint=listener.fingerprint, **options)


def whole_seconds(after: float) -> int:
    """Return a time in whole seconds of Unix, as tokens have it, at least so long from now."""
    return math.ceil(time.time() + after)


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_token(scheme):
    """Over a network: the token of the URL says what may be published, and the session closes when it expires."""
    origin = moqt.Origin()
    expires = whole_seconds(1.0)
    token = KEY.sign(Claims(root="live", publish=["alice/**"], subscribe=["bob"], expires=expires))
    broadcast = moqt.Broadcast()
    async with serving(TokenAuth(KEY).admit, origin) as listener:
        async with (
            origin.publish("live/bob", broadcast),
            origin.publish("live/carol", broadcast),
            dial(listener, scheme, f"/live?jwt={token}") as session,
            session.publish("alice/cam", broadcast),
            session.publish("mallory", broadcast),
            session.announcements() as announcements,
        ):
            await announcements.wait_initial()
            assert [item.path for item in announcements.active] == ["bob"]
            await eventually(lambda: len(origin._sharing.routes) == 3)
            assert "live/alice/cam" in list(origin._sharing.routes)
            closed = await session.wait_closed()
        assert isinstance(closed, moqt.SessionClosed)
        assert (closed.remote_code, closed.reason) == (moqt.SessionCode.UNAUTHORIZED, "the grant has expired")
        assert expires <= time.time() < expires + seconds(2)
        assert list(map(str, origin._sharing.routes)) == []
        with pytest.raises(moqt.Rejected) as caught:
            async with dial(listener, scheme, f"/live?jwt={token}"):
                pass
        assert caught.value.status == 401


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("path", "token", "status", "line"),
    [
        ("/live", None, 401, "it shows no token"),
        ("/live", TokenKey.generate("ES256").sign(Claims(publish=["**"])), 401, "signature is not that of the key"),
        ("/other", KEY.sign(Claims(root="live", publish=["**"])), 403, "'live' and the path '/other' do not overlap"),
    ],
    ids=["no token", "a wrong key", "a foreign root"],
)
async def test_refusals(scheme, path, token, status, line, caplog):
    """The client has the status and no reason; the server's log has the line, and no token."""
    with caplog.at_level(logging.DEBUG):
        async with serving(TokenAuth(KEY).admit, moqt.Origin()) as listener:
            with pytest.raises(moqt.Rejected) as caught:
                async with dial(listener, scheme, path if token is None else f"{path}?jwt={token}"):
                    pass
    assert (caught.value.status, caught.value.reason) == (status, "")
    assert line in caplog.text
    assert token is None or token.split(".")[2] not in caplog.text


@pytest.mark.parametrize("version", ["moqt-14", "moqt-18"])
async def test_a_token_in_setup(version):
    """Over raw QUIC in the IETF's drafts, before the session is accepted."""
    token = KEY.sign(Claims(root="live", subscribe=["**"]))
    shown = [moqt.Token(token.encode())]
    async with serving(TokenAuth(KEY).admit, moqt.Origin()) as listener:
        async with dial(listener, "moqt", versions=[version], tokens=shown) as session, session.announcements():
            assert session.closed is None
        with pytest.raises(moqt.Rejected) as caught:
            async with dial(listener, "moqt", versions=[version], tokens=[moqt.Token(b"nonsense")]):
                pass
        assert caught.value.status == 401


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_what_an_auth_server_is_asked(scheme):
    """All that the contract has, and at the end how the session ended and what it moved."""
    app = Scripted(lambda _: (200, {"subscribe": ["**"], "publish": ["**"]}))
    async with (
        http(app) as url,
        AuthClient(url, node="relay-1") as auth,
        serving(auth.admit, moqt.Origin()) as listener,
    ):
        path = "/live/a%20b?jwt=secret&b=1"
        async with dial(listener, scheme, path, versions=["moq-lite-06"], role="publisher") as session:
            await session.aclose()
        end = await app.wait_asked("connect", "end")
    connect = app.asked[0]
    assert (connect.node, connect.transport, connect.path, connect.query) == (
        "relay-1",
        "quic",
        "/live/a%20b",
        "jwt=secret&b=1",
    )
    assert len(connect.id) == 32
    assert connect.remote.rpartition(":")[0] in ("127.0.0.1", "[::1]")
    assert connect.local.endswith(f":{listener.port}")
    assert connect.alpn == "moq-lite-06"
    assert connect.server_name == ("localhost" if scheme == "https" else None)
    # Over WebTransport the role comes after the session was accepted.
    assert connect.role == ("publisher" if scheme == "moqt" else "both")
    assert (end.id, end.query) == (connect.id, connect.query)
    assert end.end.reason == "disconnected"
    assert 0 < end.end.duration < WAIT
    assert end.end.bytes_sent > 1000
    assert end.end.bytes_received > 1000


# -- while a session runs --------------------------------------------------------------------------------------


def grants(*documents: dict[str, object]) -> Callable[[AuthRequest], tuple[int, object]]:
    """Answer with each of these in turn, and with the last one from then on; a number is a status."""
    left = list(documents)

    def answer(request: AuthRequest) -> tuple[int, object]:
        document = left.pop(0) if len(left) > 1 else left[0]
        return (document, b"") if isinstance(document, int) else (200, document)

    return answer


def granting(**changes: object) -> dict[str, object]:
    return {"publish": ["a"], "subscribe": ["a"], "expires": whole_seconds(3600), "revalidate": 0.05} | changes


@pytest.mark.parametrize(
    ("again", "reason", "text"),
    [
        (granting(publish=[]), "narrowed", "the grant allows less than before"),
        (granting(subscribe=["b/**"]), "narrowed", "the grant allows less than before"),
        (granting(root="elsewhere"), "narrowed", "the grant allows less than before"),
        (401, "refused", "the grant was revoked"),
        (403, "refused", "the grant was revoked"),
        ({}, "refused", "the grant was revoked"),
        ({"subscribe": 5}, "invalid", "the grant was revoked"),
        (granting(expires=None), "invalid", "the grant was revoked"),
        (granting(expires=5), "invalid", "the grant was revoked"),
        (granting(mounts={"a": "b"}), "invalid", "the grant was revoked"),
    ],
)
async def test_a_grant_that_is_revoked(again, reason, text):
    """The session closes with UNAUTHORIZED, and the server is told which way it ended."""
    app = Scripted(grants(granting(), granting(), again))
    async with http(app) as url, relaying(moqt.Origin(), url) as server, server.connect("/") as session:
        closed = await session.wait_closed()
        assert (closed.remote_code, closed.reason) == (moqt.SessionCode.UNAUTHORIZED, text)
        end = await app.wait_asked("connect", "revalidate", "revalidate", "end")
        assert end.end.reason == reason
        assert len({asked.id for asked in app.asked}) == 1


async def test_a_wider_grant():
    """It is taken: what was announced before becomes a route, and what is there visible, in the same session."""
    origin = moqt.Origin()
    wider = trio.Event()

    def answer(request: AuthRequest) -> tuple[int, object]:
        return 200, granting(publish=["*"], subscribe=["*"]) if wider.is_set() else granting()

    app, broadcast = Scripted(answer), moqt.Broadcast()
    async with (
        http(app) as url,
        relaying(origin, url) as server,
        origin.publish("c", broadcast),
        server.connect("/") as session,
        session.publish("b", broadcast),
        session.publish("a", broadcast),
        session.announcements() as announcements,
    ):
        await announcements.wait_initial()
        assert announcements.active == ()
        await eventually(lambda: "a" in list(origin._sharing.routes))
        assert "b" not in list(origin._sharing.routes)
        wider.set()
        assert (await announcements.receive()).path == "c"
        await eventually(lambda: "b" in list(origin._sharing.routes))
        await app.wait_asked("revalidate", "revalidate")
        assert session.closed is None
    assert (await app.wait_asked("end")).end.reason in ("disconnected", "closed")


async def test_an_outage():
    """A session that runs goes on, and is asked for again; a new one is refused with 502. Then all is as before."""
    broken = trio.Event()
    app = Scripted(lambda request: (503, b"") if broken.is_set() else (200, granting()))
    async with http(app) as url, relaying(moqt.Origin(), url) as server, server.connect("/") as session:
        await app.wait_asked("revalidate", "revalidate")
        broken.set()
        await app.wait_asked("revalidate", "revalidate", "revalidate")
        with pytest.raises(moqt.Rejected) as caught:
            async with server.connect("/"):
                pass
        assert caught.value.status == 502
        assert session.closed is None
        broken = trio.Event()
        await app.wait_asked("revalidate", "revalidate", "revalidate")
        async with server.connect("/"):
            pass
        assert session.closed is None


@pytest.mark.parametrize("status", [503, 0], ids=["an error", "no answer"])
async def test_an_outage_that_lasts(status):
    """The session stands until its grant expires, also while a request waits for its answer."""
    expires = whole_seconds(1)
    answers = grants(granting(expires=expires), status)
    app = Scripted(answers)
    async with http(app) as url, relaying(moqt.Origin(), url) as server, server.connect("/") as session:
        closed = await session.wait_closed()
        assert (closed.remote_code, closed.reason) == (moqt.SessionCode.UNAUTHORIZED, "the grant has expired")
        assert expires <= time.time() < expires + seconds(2)
        assert (await app.wait_asked("end")).end.reason == "expired"


async def test_a_lease_besides_the_view():
    """A handler that leases the grant itself changes nothing: the server is asked once, and told once."""
    app = Scripted(lambda _: (200, {"subscribe": ["**"]}))
    async with http(app) as url, relaying(moqt.Origin(), url, leased=True) as server:
        async with server.connect("/"):
            await app.wait_asked("connect")
        await app.wait_asked("connect", "end")
        async with server.connect("/"):
            pass
        await app.wait_asked("connect", "end", "connect", "end")


@pytest.mark.parametrize("answers", [False, True])
async def test_a_server_that_hangs_at_the_end(answers, caplog):
    """The end of a session waits for the server for a bounded time, and says so in the log."""

    async def on_end(request: AuthRequest) -> None:
        if not answers:
            await trio.sleep_forever()
        raise RuntimeError("mine")

    async def admit(request: AuthRequest) -> moqt.Grant:
        return moqt.Grant(subscribe=["**"])

    async with http(AuthServer(admit, on_end=on_end)) as url, relaying(moqt.Origin(), url) as server:
        began = time.perf_counter()
        async with server.connect("/"):
            pass
        await eventually(lambda: not server.sessions)
        assert time.perf_counter() - began < seconds(4)
    wanted = "answers the end of" if answers else "was not told of the end of"
    assert wanted in caplog.text


async def test_the_reason_of_an_end():
    """A handler that leaves its block has closed the session itself."""
    app = Scripted(lambda _: (200, {"subscribe": ["**"]}))
    origin, leave = moqt.Origin(), trio.Event()
    async with http(app) as url, AuthClient(url) as auth:

        async def handle(request: moqt.SessionRequest) -> None:
            grant = await auth.admit(request)
            async with request.accept(view=origin.view(grant=grant)):
                await leave.wait()

        async with serve_in_memory(handle) as server, server.connect("/") as session:
            leave.set()
            await session.wait_closed()
            assert (await app.wait_asked("connect", "end")).end.reason == "closed"
