"""A peer that does not send what is due: the start of the session, a stream's type, an answer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.session.handshake import negotiate
from moqt_trio.session.run import wait_peer_setup
from moqt_trio.transport.memory import open_memory_pair
from moqt_trio.wire import dialect as dialects
from tests.faults.raw_peer import code_of_reset, code_of_stop
from tests.faults.state_peer import answer_subscription, hostile, still_serves
from tests.faults.state_wire import (
    ALL,
    CANCELLED,
    CONTROL_TIMEOUT,
    DEVELOP,
    IN_BAND,
    LITE_01,
    LITE_02,
    LITE_03,
    LITE_04,
    WITH_SETUP,
    Wire,
    protocol_of,
)
from tests.transport.awaiting import accept_bidi, accept_uni
from tests.transport.quic_pair import client_settings, connect_quic, serving
from tests.transport.recorders import eventually
from tests.transport.webtransport import serving as webtransport

if TYPE_CHECKING:
    from moqt_trio.transport.webtransport.server import WebTransportRequest

each_version = pytest.mark.parametrize("version", ALL)
each_version_with_setup = pytest.mark.parametrize("version", WITH_SETUP)
each_in_band_version = pytest.mark.parametrize("version", IN_BAND)
each_version_with_fetch = pytest.mark.parametrize("version", [name for name in ALL if name not in (LITE_01, LITE_02)])

SHORT = moqt.Limits(setup_timeout=0.2)


async def no_handler(request: moqt.SessionRequest) -> None:
    """Never called."""
    raise AssertionError("a session began")


# -- how the session starts -----------------------------------------------------------------------------------


@each_version_with_setup
@pytest.mark.parametrize("peer_is_client", [True, False], ids=["client", "server"])
async def test_a_setup_that_never_comes(version, peer_is_client, autojump_clock):
    """A task that waits for the peer's SETUP waits for `Limits.setup_timeout`; half a SETUP is none."""
    async with hostile(version, setup=False, peer_is_client=peer_is_client) as (peer, session, wire):
        stream = await peer.open_uni()
        stream.write(wire.setup[:2])
        began = trio.current_time()
        with pytest.raises(moqt.LocalProtocolError, match="no SETUP in time"):
            await wait_peer_setup(session)
        assert trio.current_time() - began == pytest.approx(session.limits.setup_timeout)


@pytest.mark.parametrize("version", [name for name in ALL if name not in (LITE_03, LITE_04)])
@pytest.mark.parametrize("half", [False, True], ids=["nothing", "half"])
async def test_a_client_that_does_not_say_who_it_is(version, half):
    """A server closes with CONTROL_MESSAGE_TIMEOUT when SETUP, or the handshake, does not come; no handler runs."""
    wire = Wire(version)
    async with trio.open_nursery() as nursery:
        router = moqt.Router({"/a": no_handler}, default="/a")
        listener = await nursery.start(partial(moqt.serve, router, "localhost", 0, versions=[version], limits=SHORT))
        settings = client_settings(alpns=(protocol_of(version),), fingerprints=(), verify=False)
        async with connect_quic("localhost", listener.port, settings) as peer:
            if half and version in IN_BAND:
                (await peer.open_bidi()).write(wire.hello[:5])
            elif half:
                (await peer.open_uni()).write(wire.setup[:2])
            with trio.fail_after(5):
                error = await peer.wait_closed()
            assert (error.remote_code, error.by_peer) == (0x11, True)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("version", [name for name in ALL if name not in (LITE_03, LITE_04)])
async def test_a_server_that_does_not_answer(version):
    """A client that gets no SETUP, or no answer to its handshake, raises ConnectTimeout after `setup_timeout`."""
    async with serving(alpns=(protocol_of(version),)) as listener:
        url = f"moqt://localhost:{listener.port}/a"
        with trio.fail_after(5), pytest.raises(moqt.ConnectTimeout, match=r"0\.2 s"):
            async with moqt.connect(url, versions=[version], verify=False, limits=SHORT):
                raise AssertionError("a session began")


@each_version_with_setup
async def test_a_webtransport_server_that_sends_no_setup(version):
    """The CONNECT was answered, and yet no session begins; the server gets CONTROL_MESSAGE_TIMEOUT."""

    async def accept(request: WebTransportRequest) -> None:
        session = request.accept(version)
        theirs.append(await session.wait_closed())

    theirs: list[moqt.MoqtError] = []
    async with webtransport.serving(accept) as served:
        url = f"https://localhost:{served.port}/a"
        with trio.fail_after(5):
            with pytest.raises(moqt.ConnectTimeout, match=r"the server sent no SETUP within 0\.2 s"):
                async with moqt.connect(url, versions=[version], verify=False, limits=SHORT):
                    raise AssertionError("a session began")
            await eventually(lambda: theirs)
    assert theirs[0].remote_code == 0x11


@each_version_with_setup
@pytest.mark.parametrize(("code", "status"), [(0x2, 403), (401, 401), (404, 404), (503, 503)])
async def test_a_webtransport_server_that_refuses_after_its_answer(version, code, status):
    """A server that has to read the client's SETUP first refuses by closing the session, and no session begins."""

    async def accept(request: WebTransportRequest) -> None:
        session = request.accept(version)
        # The client's SETUP is there.
        await accept_uni(session)
        await session.aclose(code, "no token")

    async with webtransport.serving(accept) as served:
        url = f"https://localhost:{served.port}/a"
        with trio.fail_after(5), pytest.raises(moqt.Rejected) as caught:
            async with moqt.connect(url, versions=[version], verify=False, limits=SHORT):
                raise AssertionError("a session began")
    assert (caught.value.status, caught.value.reason) == (status, "no token")


@each_version_with_setup
async def test_a_webtransport_server_that_ends_before_its_setup(version):
    """Another code is the end of the session, and no refusal."""

    async def accept(request: WebTransportRequest) -> None:
        session = request.accept(version)
        await accept_uni(session)
        await session.aclose(0x1, "broken")

    async with webtransport.serving(accept) as served:
        url = f"https://localhost:{served.port}/a"
        with trio.fail_after(5), pytest.raises(moqt.SessionClosed) as caught:
            async with moqt.connect(url, versions=[version], verify=False, limits=SHORT):
                raise AssertionError("a session began")
    assert caught.value.remote_code == 0x1


@pytest.mark.parametrize("version", [LITE_03, LITE_04])
async def test_versions_in_which_nothing_is_due_at_the_start(version):
    """moq-lite-03 and -04 have neither SETUP nor handshake: the session begins without the server."""
    async with serving(alpns=(version,)) as listener:
        url = f"moqt://localhost:{listener.port}/a"
        with trio.fail_after(5):
            async with moqt.connect(url, versions=[version], verify=False) as session:
                assert session.version == version


@each_in_band_version
@pytest.mark.parametrize("we_are_client", [True, False], ids=["client", "server"])
async def test_a_handshake_that_never_ends(version, we_are_client, autojump_clock):
    """One byte of the handshake each second does not move the deadline of `Limits.setup_timeout`."""
    wire, dialect, limits = Wire(version), dialects.get(version), moqt.Limits()
    async with open_memory_pair(protocol=protocol_of(version)) as pair, trio.open_nursery() as nursery:
        ours, peer = pair if we_are_client else reversed(pair)

        async def trickle() -> None:
            stream = await (accept_bidi(peer) if we_are_client else peer.open_bidi())
            for number in (wire.welcome if we_are_client else wire.hello)[:8]:
                stream.write(bytes([number]))
                await trio.sleep(1)

        nursery.start_soon(trickle)
        began = trio.current_time()
        with pytest.raises(moqt.ConnectTimeout):
            await negotiate(ours, [dialect], limits=limits, path="/a")
        assert trio.current_time() - began == pytest.approx(limits.setup_timeout)
        error = await peer.wait_closed()
        assert (error.remote_code, error.by_peer) == (0x11, True)
        nursery.cancel_scope.cancel()


# -- what a stream is -----------------------------------------------------------------------------------------


@each_version
async def test_streams_that_never_say_what_they_are(version, autojump_clock):
    """A stream whose type does not come is refused within twice `Limits.setup_timeout`; the session goes on.

    In develop a type is one byte, so only a stream that begins with an empty frame has none.
    """
    code = 0 if version == DEVELOP else CONTROL_TIMEOUT
    async with hostile(version, limits=moqt.Limits(max_streams=5)) as (peer, session, wire):
        began = trio.current_time()
        for _ in range(2):
            bidi, uni = await peer.open_bidi(), await peer.open_uni()
            for stream in (bidi, uni):
                if version == DEVELOP:
                    session._context.connection._receive_data(stream.stream_id, b"", False)
                else:
                    stream.write(b"\x40")
            assert await code_of_stop(bidi) == await code_of_stop(uni) == await code_of_reset(bidi) == code
        waited = trio.current_time() - began
        assert session.limits.setup_timeout * 2 <= waited <= session.limits.setup_timeout * 4 + 1
        await still_serves(peer, wire)
        assert session.closed is None


# -- what it answers ------------------------------------------------------------------------------------------


def timed_out(version: str, of_develop: int) -> int:
    """The code for an answer that did not come: each kind of stream has its own in gomoqt."""
    return of_develop if version == DEVELOP else CONTROL_TIMEOUT


@pytest.mark.parametrize("version", [*IN_BAND, LITE_04, LITE_03])
@pytest.mark.parametrize("wait", ["receive", "wait_accepted"])
async def test_a_subscription_that_is_never_answered(version, wait, autojump_clock):
    """Where SUBSCRIBE_OK (INFO) is due at once, its absence is a StreamReset after `Limits.reply_timeout`."""
    async with hostile(version) as (peer, session, wire), session.subscribe("b", "t") as subscription:
        stream = await answer_subscription(peer, wire, accept=False)
        began = trio.current_time()
        for _ in range(2):
            with trio.fail_after(60), pytest.raises(moqt.StreamReset) as caught:
                await getattr(subscription, wait)()
            assert (caught.value.code, caught.value.by_peer) == (CONTROL_TIMEOUT, False)
        assert trio.current_time() - began == pytest.approx(session.limits.reply_timeout)
        assert await code_of_reset(stream) == await code_of_stop(stream) == timed_out(version, 5)
        await still_serves(peer, wire)
        assert session.closed is None


@each_version
async def test_a_subscription_that_waits_for_its_first_group(version, autojump_clock):
    """Once accepted, the library sets no limit on the time for the first group; from moq-lite-05 on for the answer."""
    async with hostile(version) as (peer, session, wire), session.subscribe("b", "t") as subscription:
        await answer_subscription(peer, wire, accept=version not in WITH_SETUP)
        with trio.move_on_after(10 * session.limits.reply_timeout) as deadline:
            await subscription.receive()
        assert deadline.cancelled_caught
        stream = await peer.open_uni()
        stream.write(wire.group(0, 1, b"x"), fin=True)
        assert await (await subscription.receive()).read_all() == [b"x"]
        assert session.closed is None


@pytest.mark.parametrize("version", [*IN_BAND, LITE_04, LITE_03])
async def test_groups_that_come_instead_of_an_answer(version, autojump_clock):
    """A group counts as an acceptance: a subscription that gets one does not time out."""
    async with hostile(version) as (peer, session, wire), session.subscribe("b", "t") as subscription:
        await answer_subscription(peer, wire, accept=False)
        stream = await peer.open_uni()
        stream.write(wire.group(0, 1, b"x"), fin=True)
        assert await (await subscription.receive()).read_all() == [b"x"]
        with trio.move_on_after(10 * session.limits.reply_timeout) as deadline:
            await subscription.receive()
        assert deadline.cancelled_caught


@pytest.mark.parametrize("version", [*IN_BAND, LITE_04, LITE_03])
async def test_asking_late_whether_it_was_accepted(version, autojump_clock):
    """`wait_accepted` long after the acceptance, and after the end, does not make a reader wait forever."""
    async with hostile(version) as (peer, session, wire), session.subscribe("b", "t") as subscription:
        stream = await answer_subscription(peer, wire)
        group = await peer.open_uni()
        group.write(wire.group(0, 1, b"x"), fin=True)
        assert await (await subscription.receive()).read_all() == [b"x"]
        await trio.sleep(2 * session.limits.reply_timeout)
        stream.finish()
        await trio.testing.wait_all_tasks_blocked()
        await subscription.wait_accepted()
        with trio.fail_after(10), pytest.raises(trio.EndOfChannel):
            await subscription.receive()


@each_version_with_setup
async def test_properties_that_never_come(version, autojump_clock):
    """A track's properties are None after `Limits.reply_timeout`; the subscription itself goes on."""
    async with hostile(version) as (peer, session, wire), session.subscribe("b", "t") as subscription:
        info = await accept_bidi(peer)
        began = trio.current_time()
        assert await subscription.track_properties() is None
        assert trio.current_time() - began == pytest.approx(session.limits.reply_timeout)
        assert await code_of_stop(info) == await code_of_reset(info) == CONTROL_TIMEOUT
        stream = await peer.open_uni()
        stream.write(wire.group(0, 1, b"x"), fin=True)
        assert await (await subscription.receive()).read_all() == [b"x"]


@each_version_with_fetch
async def test_a_fetch_that_is_never_answered(version, autojump_clock):
    """No reply within `Limits.reply_timeout` is a StreamReset, and the stream is reset."""
    async with hostile(version) as (peer, session, wire), session.fetch("b", "t", 1) as reader:
        stream = await accept_bidi(peer)
        began = trio.current_time()
        with pytest.raises(moqt.StreamReset) as caught:
            await reader.receive()
        assert (caught.value.code, caught.value.by_peer) == (CONTROL_TIMEOUT, False)
        assert trio.current_time() - began == pytest.approx(session.limits.reply_timeout)
        assert await code_of_reset(stream) == await code_of_stop(stream) == timed_out(version, 0)
        await still_serves(peer, wire)
        assert session.closed is None


@each_version
async def test_a_request_that_is_never_complete(version, autojump_clock):
    """Half a request occupies its stream and nothing else: others are served, and its reset frees it."""
    async with hostile(version) as (peer, session, wire):
        halves = []
        for opening in (wire.ask("some/where"), wire.subscribe(7)):
            stream = await peer.open_bidi()
            stream.write(opening[:-1])
            halves.append(stream)
        await trio.sleep(60)
        await still_serves(peer, wire)
        assert session.statistics().subscriptions_served == 0
        kept = len(session._context.connection.streams)
        for stream in halves:
            stream.reset(CANCELLED)
            stream.stop(CANCELLED)
        await trio.sleep(1)
        assert len(session._context.connection.streams) == kept - 2
        assert session._context.core._state.requests.taken == 0
        assert session.closed is None
