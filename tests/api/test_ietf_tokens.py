"""Authorization tokens on the IETF drafts: a client shows them in SETUP, and a server sees them."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.errors import RemoteProtocolError
from moqt_trio.testing import serve_in_memory
from moqt_trio.wire.messages import Setup
from tests.protocol.ietf.cores import core

DRAFTS = ["moqt-14", "moqt-15", "moqt-16", "moqt-17", "moqt-18", "moqt-19", "moqt-20", "moqt-21", "moqt-22"]
EACH_DRAFT = pytest.mark.parametrize("version", DRAFTS)
TOKENS = [moqt.Token(b"secret"), moqt.Token(b"\x00\xff", 7)]


# -- the messages ------------------------------------------------------------------------------------------------


def test_on_the_wire():
    """AUTHORIZATION_TOKEN (3) with alias type USE_VALUE (3) and the token's type, as aiomoqt 0.13 writes it."""
    client = core(is_client=True, setup=Setup(tokens=(moqt.Token(b"tok"),)))
    # HIDDEN, 0x40b5c: 0x40b55 more than MOQT_IMPLEMENTATION, with the value 1.
    hidden = "c40b5501"
    expected = "af000016" + "03050300" + b"tok".hex() + "0409" + b"moqt_trio".hex() + hidden
    assert client.setup_stream().hex() == expected


@pytest.mark.parametrize(
    ("value", "found"),
    [("0300746f6b", moqt.Token(b"tok")), ("01050974", moqt.Token(b"t", 9)), ("0300", moqt.Token(b""))],
    ids=["USE_VALUE", "REGISTER, which counts as USE_VALUE", "empty"],
)
def test_tokens_of_setup(value, found):
    option = "03" + f"{len(value) // 2:02x}" + value
    [setup] = (
        core(is_client=False).accept_uni().receive_data(bytes.fromhex(f"af0000{len(option) // 2:02x}{option}"), False)
    )
    assert setup.tokens == (found,)
    assert "b'" not in repr(setup)


@pytest.mark.parametrize(
    ("value", "code"), [("0005", 0x3), ("0205", 0x3), ("09", 0x6), ("", 0x6)], ids=["DELETE", "USE_ALIAS", "9", "none"]
)
def test_tokens_that_setup_may_not_have(value, code):
    """They end the session."""
    option = "03" + f"{len(value) // 2:02x}" + value
    with pytest.raises(RemoteProtocolError) as caught:
        core(is_client=False).accept_uni().receive_data(bytes.fromhex(f"af0000{len(option) // 2:02x}{option}"), False)
    assert (caught.value.scope, caught.value.code) == ("session", code)


@pytest.mark.parametrize(
    ("value", "code"),
    [("0300746f6b", None), ("01050974", 0x13), ("0205", 0x17), ("0005", 0x17), ("09", 0x6)],
    ids=["USE_VALUE", "REGISTER", "USE_ALIAS", "DELETE", "9"],
)
def test_tokens_of_requests(value, code):
    """Without a cache only a value may be used; the others end the session with the drafts' codes."""
    body = "00" + "010161" + "0174" + "01" + "03" + f"{len(value) // 2:02x}" + value
    wire = bytes.fromhex(f"0300{len(body) // 2:02x}{body}")
    stream = core(is_client=False).accept_bidi()
    if code is None:
        assert len(stream.receive_data(wire, False)) == 1
        return
    with pytest.raises(RemoteProtocolError) as caught:
        stream.receive_data(wire, False)
    assert (caught.value.scope, caught.value.code) == ("session", code)


# -- sessions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["moqt", "https"])
@EACH_DRAFT
async def test_what_a_server_sees(version, scheme):
    """Over raw QUIC before it accepts, over WebTransport on the session; a client that shows nothing is refused."""
    refused = trio.Event()

    async def handler(request: moqt.SessionRequest) -> None:
        if scheme == "moqt" and request.tokens != tuple(TOKENS):
            refused.set()
            raise moqt.Unauthorized(request.path)
        async with request.accept() as session:
            await session.track_status("a", "t")
            assert session.peer_tokens == tuple(TOKENS)
            await session.wait_closed()

    broadcast = moqt.Broadcast()
    broadcast.track("t")
    with trio.fail_after(10):
        async with serve_in_memory(handler, versions=[version]) as server:
            url = f"{scheme}://localhost/"
            async with (
                server.connect(url, versions=[version], tokens=TOKENS) as session,
                session.publish("a", broadcast),
            ):
                await trio.testing.wait_all_tasks_blocked()
                assert session.peer_tokens == ()
            if scheme == "moqt":
                with pytest.raises(moqt.Rejected):
                    async with server.connect(url, versions=[version]):
                        pass
                assert refused.is_set()


async def test_a_version_without_tokens():
    """It leaves them out."""

    async def handler(request: moqt.SessionRequest) -> None:
        assert request.tokens == ()
        async with request.accept() as session:
            await session.wait_closed()

    with trio.fail_after(10):
        async with (
            serve_in_memory(handler) as server,
            server.connect("moqt://localhost/", versions=["moq-lite-06"], tokens=TOKENS),
        ):
            pass


@pytest.mark.parametrize("tokens", [b"secret", [b"secret"], "secret", 3])
async def test_tokens_that_are_none(tokens):
    """They are refused at once."""

    async def handler(session: moqt.Session) -> None: ...

    with pytest.raises(TypeError, match="Token"):
        await moqt.connect("moqt://localhost/", tokens=tokens).__aenter__()
    with pytest.raises(TypeError, match="Token"):
        await moqt.stay_connected("moqt://localhost/", handler, tokens=tokens)
