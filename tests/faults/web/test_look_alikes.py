"""Routes and origins that look like one that is served: each is compared as it is written, over both transports."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import partial

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

import moqt_trio as moqt
from moqt_trio.server.admission import Admission
from moqt_trio.session.run import run_session
from moqt_trio.testing import serve_in_memory
from moqt_trio.transport.quic.settings import ClientSettings
from moqt_trio.wire import dialect as dialects
from tests.faults.state_wire import ALL, IN_BAND, LITE_03, LITE_04, protocol_of
from tests.http.serving import CERTIFICATE
from tests.transport.quic_pair import connect_quic

ROUTE = "/echo"
OTHERS = [
    "/",
    "/echo1",
    "/ech",
    "/echo/",
    "/echo/x",
    "//echo",
    "///echo",
    "/ECHO",
    "/Echo",
    "/%65cho",
    "/echo%2f..",
    "/echo%2F",
    "/echo%00",
    "/echo%3Ftoken=1",
    "/x/../echo",
    "/./echo",
    "/echo/.",
    "/echo;x=1",
    "/écho",
    "/echo ",
]
WITHOUT_PATH = (LITE_03, LITE_04)
"""The versions in which a client over raw QUIC cannot say what it wants."""
pieces = st.lists(
    st.sampled_from(["/", "echo", "ECHO", "1", "%65", "%2f", "%2F", "..", ".", "?", "é", "\0", "\r\n", "%", "//"]),
    max_size=6,
).map("".join)


async def hold(request: moqt.SessionRequest) -> None:
    async with request.accept() as session:
        await session.wait_closed()


# -- routes ---------------------------------------------------------------------------------------------------


@settings(max_examples=500, deadline=None, derandomize=True)
@given(pieces | st.sampled_from([ROUTE, *OTHERS]))
def test_a_route_is_its_own_path_alone(path):
    """A router finds a handler for the path that it was given and for no other text. Only what a URL cannot carry has
    two spellings: as it is and percent-coded, which may be in either case."""
    router = moqt.Router({ROUTE: hold, "/é": hold})
    upper = re.sub("%[0-9a-f]{2}", lambda found: found[0].upper(), path, flags=re.IGNORECASE)
    assert (router.find(path) is hold) is (upper in (ROUTE, "/é", "/%C3%A9")), path


@pytest.mark.parametrize("scheme", ["https", "moqt"])
@pytest.mark.parametrize("version", ALL)
async def test_urls(version, scheme, autojump_clock):
    """A session whose URL only looks like a route's is refused with 404, over both transports and in every version that
    carries a path; the route's own URL is served, whatever its query."""
    if scheme == "moqt" and version in WITHOUT_PATH:
        pytest.skip(f"{version} carries no path over raw QUIC")
    seen = []

    async def handler(request: moqt.SessionRequest) -> None:
        seen.append(request.path)
        await hold(request)

    async with serve_in_memory(moqt.Router({ROUTE: handler}), versions=[version]) as server:

        async def ask(path: str) -> None:
            async with server.connect(f"{scheme}://localhost{path}", versions=[version]) as session:
                # Where nothing says that a session was admitted, it ends at once.
                with trio.move_on_after(1):
                    raise await session.wait_closed()

        for path in OTHERS:
            if scheme == "moqt" and version in IN_BAND and path.startswith("//"):
                # Known peers write no slash or two: there is one in front, however many they write.
                await ask(path)
                assert seen.pop() == ROUTE
                continue
            with pytest.raises((moqt.Rejected, moqt.SessionClosed)) as refused:
                await ask(path)
            error = refused.value
            assert 404 in (getattr(error, "status", None), getattr(error, "remote_code", None)), path
        assert seen == []
        for path in (ROUTE, f"{ROUTE}?token=/x/../y"):
            await ask(path)
        assert seen == [ROUTE, ROUTE]


@pytest.mark.parametrize("version", [version for version in ALL if version not in WITHOUT_PATH])
async def test_paths_that_no_url_has(version):
    """Over raw QUIC a path is any text: one without its slash, empty, or with bytes that no URL has reaches no route
    but its own. In the versions with a handshake, whose peers write it so, a path may lack its slash."""
    seen = []

    async def handler(request: moqt.SessionRequest) -> None:
        seen.append(request.path)
        await hold(request)

    limits = moqt.Limits()
    settings = ClientSettings(alpns=(protocol_of(version),), server_name="localhost", limits=limits, verify=False)
    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, certificate=CERTIFICATE, versions=[version])
        listener = await nursery.start(serve, moqt.Router({ROUTE: handler}), "localhost", 0)
        texts = ["ech", "?", "?/echo", "/echo\0", "/echo\r\n", "/\u202eohce", "https://localhost/echo", "/echo#x"]
        if version not in IN_BAND:
            texts.append("echo")
        for path in texts:
            with trio.fail_after(10):
                async with connect_quic("localhost", listener.port, settings) as connection:
                    with suppress(moqt.SessionClosed):
                        # A refusal may come before the server's answer in the handshake.
                        async with run_session(connection, [dialects.get(version)], limits=limits, path=path):
                            await connection.wait_closed()
                    assert (await connection.wait_closed()).remote_code == 404, path
        assert seen == []
        assert listener.statistics().sessions_rejected == len(texts)
        async with (
            moqt.connect(
                f"moqt://localhost:{listener.port}{ROUTE}", versions=[version], fingerprint=CERTIFICATE.fingerprint
            ) as session,
            session.announcements(),
        ):
            assert session.closed is None
        nursery.cancel_scope.cancel()
    assert seen == [ROUTE]


# -- origins --------------------------------------------------------------------------------------------------

LISTED = "https://good.example"
LOOK_ALIKES = [
    "https://good.example.",
    "https://good.example.evil.example",
    "https://evilgood.example",
    "https://good.example:443",
    "https://good.example:4430",
    "https://good.example:",
    "https://good.example/",
    "https://good.example@evil.example",
    "https://user@good.example",
    "http://good.example",
    "good.example",
    "https:good.example",
    "https://good%2Eexample",
    "https://gооd.example",
    "https://good.example, https://evil.example",
    "https://good.example https://evil.example",
    " https://good.example",
    "https://good.example\0",
    "null",
    "*",
    "",
    "HTTPS://GOOD.EXAMPLE",
]


@settings(max_examples=500, deadline=None, derandomize=True)
@given(
    st.sampled_from(LOOK_ALIKES)
    | st.lists(
        st.sampled_from(["https://", "http://", "good", ".", "example", "evil", ":443", ":80", "/", "@", "GOOD", " "]),
        max_size=7,
    ).map("".join)
)
def test_an_origin_is_itself_alone(origin):
    """A listed page may connect, in any case and with its scheme's own port, and no page whose origin looks like it."""
    admitted = Admission(origins=[LISTED]).refusal("server.example", origin) is None
    assert admitted is (origin.lower() in (LISTED, f"{LISTED}:443")), origin
