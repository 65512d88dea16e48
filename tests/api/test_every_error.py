"""Each error of the list in the documentation is provoked, on every version that can show it."""

from __future__ import annotations

import re
import socket
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.session.publisher.announce import AnnounceServer
from moqt_trio.testing import session_pair
from moqt_trio.wire import dialect as dialects
from tests.api.test_blame import listening
from tests.http.serving import CERTIFICATE
from tests.workers.clients import LINUX, program

PAGE = Path(__file__).parents[2] / "docs" / "topics" / "errors.md"
SERVED = moqt.version_names()
ALL = moqt.version_names(opt_in=True)
WITH_GOAWAY = tuple(name for name in ALL if dialects.get(name).features.goaway)
NO_ANSWER_YET = ("moq-lite-03", "moq-lite-04")
"""Over raw QUIC these have no message by which a server admits a session."""
SCHEMES = pytest.mark.parametrize("scheme", ["https", "moqt"])
versions = partial(pytest.mark.parametrize, "version")

pytestmark = pytest.mark.filterwarnings("error")


async def accept(request):
    async with request.accept() as session:
        await session.wait_closed()


def connect(listener, scheme, version, **options):
    url = f"{scheme}://localhost:{listener.port}/"
    return moqt.connect(url, versions=[version], **{"fingerprint": CERTIFICATE.fingerprint, **options})


# -- the list itself ---------------------------------------------------------------------------------------


def test_the_list_is_complete():
    """The page has a row for each exception of the library, but for the abstract ones, which it names as bases."""
    page = PAGE.read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    exceptions = {
        name
        for name in moqt.__all__
        if isinstance(getattr(moqt, name), type) and issubclass(getattr(moqt, name), Exception)
    }
    abstract = {"MoqtError", "ProtocolError", "ConnectError"}
    assert exceptions - abstract == {name for name in listed if hasattr(moqt, name)}
    assert all(f"`{name}`" in page for name in abstract)


def test_each_row_has_a_test():
    """And this file names every one of them."""
    listed = re.findall(r"^\| `([\w.]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    tests = Path(__file__).read_text(encoding="utf-8")
    missing = [name for name in listed if not re.search(rf"\b(moqt\.)?{re.escape(name)}\b", tests)]
    assert not missing


# -- while workers run -------------------------------------------------------------------------------------


@LINUX
def test_worker_failed(tmp_path):
    """A worker cannot start: WorkerFailed."""
    with program(tmp_path, fails="start") as child:
        assert child.wait_ended() == 1
        assert child.errors == [f"{moqt.WorkerFailed.__name__}: worker 0 could not start: the disk is gone"]


# -- while a session is opened -----------------------------------------------------------------------------


@versions(SERVED)
@SCHEMES
async def test_connect_timeout(scheme, version):
    """No server answers: ConnectTimeout."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(moqt.ConnectTimeout):
            async with moqt.connect(url, versions=[version], limits=moqt.Limits(connect_timeout=0.1)):
                pass


@versions(SERVED)
@SCHEMES
async def test_handshake_failed(scheme, version):
    """No server listens: HandshakeFailed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    with pytest.raises(moqt.HandshakeFailed):
        async with moqt.connect(f"{scheme}://127.0.0.1:{port}/", versions=[version]):
            pass


@versions(SERVED)
@SCHEMES
async def test_certificate_invalid(scheme, version):
    """A certificate of an unknown authority: CertificateInvalid."""
    async with listening(accept) as listener:
        with pytest.raises(moqt.CertificateInvalid):
            async with connect(listener, scheme, version, fingerprint=None):
                pass


async def test_certificate_unusable(tmp_path):
    """A file that is no certificate: CertificateUnusable."""
    (tmp_path / "authorities.pem").write_text("nothing")
    with pytest.raises(moqt.CertificateUnusable):
        async with moqt.connect("moqt://localhost:1/", cafile=str(tmp_path / "authorities.pem")):
            pass
    with pytest.raises(moqt.CertificateUnusable):
        moqt.Certificate.load(tmp_path / "authorities.pem", tmp_path / "authorities.pem")


@versions(SERVED)
@SCHEMES
async def test_version_unsupported(scheme, version):
    """No shared version: VersionUnsupported."""
    other = next(name for name in ("moq-lite-05", "moq-transfork-03") if name != version)
    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, certificate=CERTIFICATE, versions=[other])
        listener = await nursery.start(serve, accept, "localhost", 0)
        with pytest.raises(moqt.VersionUnsupported):
            async with connect(listener, scheme, version):
                pass
        nursery.cancel_scope.cancel()


@versions(SERVED)
@SCHEMES
async def test_rejected(scheme, version):
    """A path that no route has is refused at once with 404: Rejected, or the end of the session with this code."""

    async def use():
        async with connect(listener, scheme, version) as session, session.announcements() as announcements:
            await announcements.receive()

    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, certificate=CERTIFICATE)
        listener = await nursery.start(serve, moqt.Router({"/elsewhere": accept}), "localhost", 0)
        with trio.fail_after(5):
            if scheme == "moqt" and version in NO_ANSWER_YET:
                with pytest.raises(moqt.SessionClosed, match="refused with status 404") as closed:
                    await use()
                assert closed.value.remote_code == 404
            else:
                with pytest.raises(moqt.Rejected) as rejected:
                    await use()
                assert rejected.value.status == 404
        nursery.cancel_scope.cancel()


@versions(NO_ANSWER_YET)
async def test_a_path_that_is_not_carried(version, caplog):
    """These versions carry no path over raw QUIC: the server's default route serves it; the client's log says so."""
    caplog.set_level("INFO")
    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, certificate=CERTIFICATE)
        router = moqt.Router({"/elsewhere": accept}, default="/elsewhere")
        listener = await nursery.start(serve, router, "localhost", 0)
        url = f"moqt://localhost:{listener.port}/typo?token=secret"
        async with moqt.connect(url, versions=[version], fingerprint=CERTIFICATE.fingerprint):
            pass
        nursery.cancel_scope.cancel()
    assert f"{version} over raw QUIC carries no path" in caplog.text
    assert "/typo" in caplog.text
    assert "secret" not in caplog.text


@versions([name for name in SERVED if name in WITH_GOAWAY])
async def test_redirect_refused(version):
    """A GOAWAY to another host: RedirectRefused."""

    async def redirect(request):
        async with request.accept() as session:
            await session.goaway("https://elsewhere.example/")
            await session.wait_closed()

    async with listening(redirect) as listener:
        with trio.fail_after(10), pytest.raises(moqt.RedirectRefused):
            await moqt.stay_connected(
                listener.urls[1],
                moqt.Session.wait_goaway,
                versions=[version],
                fingerprint=CERTIFICATE.fingerprint,
                limits=moqt.Limits(drain_timeout=0.1),
            )


@versions(SERVED)
@SCHEMES
@pytest.mark.parametrize("when", ["before", "after"])
async def test_unauthorized(scheme, version, when):
    """A handler raises Unauthorized: the client gets 403, or the session ends with UNAUTHORIZED."""

    async def refuse(request):
        if when == "before":
            raise moqt.Unauthorized("room")
        async with request.accept():
            await entered.wait()
            raise moqt.Unauthorized("room")

    async def stay(listener):
        async with connect(listener, scheme, version) as session:
            entered.set()
            raise await session.wait_closed()

    entered = trio.Event()
    async with listening(refuse) as listener:
        with trio.fail_after(5), pytest.raises((moqt.Rejected, moqt.SessionClosed)) as refused:
            await stay(listener)
    error = refused.value
    if when == "before":
        assert (error.status if isinstance(error, moqt.Rejected) else error.remote_code) == 403
    else:
        assert isinstance(error, moqt.SessionClosed)
        assert error.remote_code == moqt.SessionCode.UNAUTHORIZED


# -- while a session runs ----------------------------------------------------------------------------------


@versions(ALL)
async def test_session_closed(version):
    """The peer closes the session: SessionClosed for readers and for new requests."""
    async with session_pair(version) as (client, server), client.announcements() as announcements:
        server.close(77, "bye")
        with pytest.raises(moqt.SessionClosed, match="bye") as closed:
            await announcements.receive()
        assert closed.value.by_peer
        with pytest.raises(moqt.SessionClosed):
            async with client.subscribe("a", "t"):
                pass


@versions(WITH_GOAWAY)
async def test_going_away(version):
    """A request after the peer's GOAWAY: GoingAway."""
    async with session_pair(version) as (client, server):
        await server.goaway()
        await client.wait_goaway()
        with pytest.raises(moqt.GoingAway):
            async with client.announcements():
                pass


@versions(ALL)
async def test_not_found(version, autojump_clock):
    """A broadcast that is not published: NotFound."""
    async with session_pair(version) as (client, _), client.subscribe("nothing", "t") as subscription:
        with pytest.raises(moqt.NotFound):
            await subscription.receive()


@versions(ALL)
async def test_stream_reset(version, autojump_clock):
    """A group that its publisher resets: StreamReset, and the next group arrives."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable")
    async with (
        session_pair(version) as (client, server),
        server.publish("b", broadcast),
        client.subscribe("b", "t") as subscription,
    ):
        await track.wait_subscribed()
        group = track.open_group()
        await group.send(b"x")
        reader = await subscription.receive()
        assert await reader.receive() == b"x"
        group.reset(moqt.StreamCode.CANCELLED)
        with pytest.raises(moqt.StreamReset) as reset:
            await reader.receive()
        assert reset.value.by_peer
        await track.write(b"y")
        assert await (await subscription.receive()).receive() == b"y"


async def read_to_the_end(reader):
    while True:
        await reader.receive()


async def answer_with(version, data):
    """Return what reading a list of announcements raises when its publisher sends these bytes on its stream."""
    broadcast = moqt.Broadcast()
    broadcast.track("t")
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        async with client.announcements() as announcements:
            await announcements.receive()
            [stream] = [
                stream
                for stream in server._context.connection.streams.values()
                if stream.stream_id % 4 == 0 and isinstance(getattr(stream, "handler", None), AnnounceServer)
            ]
            stream.write(data)
            with trio.fail_after(5), pytest.raises(moqt.MoqtError) as caught:
                await read_to_the_end(announcements)
        return caught.value


@versions([name for name in ALL if name not in ("moqt-14", "moqt-15")])
async def test_remote_protocol_error(version):
    """Bytes that do not decode: Malformed, which is a RemoteProtocolError; the session, too, where it is broken."""
    error = await answer_with(version, b"\x3f" * 200)
    if isinstance(error, moqt.SessionClosed):
        assert error.local_code == moqt.SessionCode.PROTOCOL_VIOLATION
    else:
        assert isinstance(error, moqt.Malformed)
        assert isinstance(error, moqt.RemoteProtocolError)


@versions(ALL)
async def test_limit_exceeded(version, autojump_clock):
    """A frame that is too long: LimitExceeded, with the name of the limit, as the cause of the group's reset."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable")
    async with (
        session_pair(version, client_limits=moqt.Limits(max_frame=10)) as (client, server),
        server.publish("b", broadcast),
        client.subscribe("b", "t") as subscription,
    ):
        await track.wait_subscribed()
        await track.write(b"x" * 11)
        with pytest.raises(moqt.StreamReset) as reset:
            await (await subscription.receive()).receive()
        cause = reset.value.__cause__
        assert isinstance(cause, moqt.LimitExceeded)
        assert (cause.limit, cause.value) == ("max_frame", 11)


@versions(ALL)
async def test_local_protocol_error(version):
    """A block that is entered twice: LocalProtocolError, and the session goes on."""
    async with session_pair(version) as (client, _):
        announcements = client.announcements()
        async with announcements:
            pass
        with pytest.raises(moqt.LocalProtocolError):
            async with announcements:
                pass
        assert client.closed is None


# -- Trio and Python ---------------------------------------------------------------------------------------


@versions(ALL)
async def test_errors_of_trio(version, autojump_clock):
    """trio.ClosedResourceError, trio.BusyResourceError, trio.WouldBlock, trio.EndOfChannel and trio.TooSlowError."""
    broadcast = moqt.Broadcast(limits=moqt.Limits(reliable_backlog=1))
    track = broadcast.track("t", delivery="reliable")
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        async with client.subscribe("b", "t") as subscription:
            await track.wait_subscribed()
            with pytest.raises(trio.TooSlowError), trio.fail_after(0.1):
                await subscription.receive()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(subscription.receive)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await subscription.receive()
                await track.write(b"x")
            track.write_nowait(b"x")
            with pytest.raises(trio.WouldBlock):
                track.write_nowait(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await subscription.receive()
        async with client.subscribe("b", "t") as subscription:
            await track.wait_subscribed()
            track.finish()
            with pytest.raises(trio.EndOfChannel):
                await read_to_the_end(subscription)
        with pytest.raises(trio.ClosedResourceError):
            await track.write(b"x")


def test_errors_of_python():
    """ValueError, TypeError and RuntimeError."""
    track = moqt.Broadcast().track("t")
    with pytest.raises(ValueError, match="priority"):
        moqt.Broadcast().track("t", priority=256)
    with pytest.raises(TypeError, match="text"):
        moqt.Broadcast().track(5)
    with pytest.raises(RuntimeError, match="runs on Trio"):
        track.write_nowait(b"x")


async def test_an_address_that_is_taken():
    """A port that another server has: OSError, from `serve`."""
    async with listening(accept) as listener:
        with pytest.raises(OSError, match="in use"):
            await moqt.serve(accept, "127.0.0.1", listener.port, certificate=CERTIFICATE)


@SCHEMES
async def test_several_failures(scheme):
    """Two tasks of the application that fail in a session's block: ExceptionGroup, with both."""

    async def fail(error):
        raise error

    async with listening(accept) as listener:
        with pytest.RaisesGroup(KeyError, LookupError, flatten_subgroups=True):
            async with connect(listener, scheme, "moq-lite-06"), trio.open_nursery() as nursery:
                nursery.start_soon(fail, KeyError())
                nursery.start_soon(fail, LookupError())
