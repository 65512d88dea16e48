"""Servers that lost their connections: a stateless reset ends the client's session at once (RFC 9000, section 10.3)."""

from __future__ import annotations

import os
from functools import partial

import pytest
import trio

from moqt_trio.limits import Limits
from moqt_trio.transport.quic.stateless_reset import StatelessResets, key_of_listener, reset_token
from tests.faults.raw_udp import answers, connected
from tests.faults.udp_proxy import udp_proxy
from tests.transport.awaiting import accept_bidi
from tests.transport.quic_pair import client_settings, connect_quic, serve_quic, server_settings, serving

KEY = bytes(range(32))
UNKNOWN = b"\x40" + b"unknown!"


@pytest.mark.parametrize(("keys", "ends"), [((KEY, KEY), True), ((KEY, bytes(32)), False)])
async def test_a_server_that_was_restarted(keys, ends):
    """A client whose server begins anew on its port learns so at its next packet, if the key is the same."""
    async with trio.open_nursery() as nursery:

        async def serve(port: int, key: bytes) -> tuple[int, trio.CancelScope]:
            settings = server_settings(reset_key=key)
            scope = trio.CancelScope()

            async def run(task_status):
                with scope:
                    await serve_quic(echo, "127.0.0.1", port, settings, task_status=task_status)

            return (await nursery.start(run)).port, scope

        async def echo(connection):
            stream = await accept_bidi(connection)
            while data := await stream.receive_some():
                stream.write(data)

        port, first = await serve(0, keys[0])
        async with (
            udp_proxy(port) as proxy,
            connect_quic("127.0.0.1", proxy.port, client_settings()) as client,
        ):
            stream = await client.open_bidi()
            stream.write(b"x")
            assert await stream.receive_some() == b"x"
            # The server ends without a packet, as a process does that is killed.
            proxy.forward = lambda data, from_client: []
            first.cancel()
            while True:
                try:
                    await serve(port, keys[1])
                except OSError:
                    await trio.sleep(0.01)
                else:
                    break
            proxy.forward = lambda data, _: [(0.0, data)]
            stream.write(b"y")
            with trio.move_on_after(2) as waited:
                error = await client.wait_closed()
            assert waited.cancelled_caught is not ends
            if ends:
                assert error.by_peer
                assert "stateless reset" in error.reason
            else:
                assert client.closed is None
        nursery.cancel_scope.cancel()


async def test_forged_resets():
    """Resets with any token but that of the id in use end nothing, however many arrive."""
    arrived = []

    async def handler(connection):
        stream = await accept_bidi(connection)
        while data := await stream.receive_some():
            arrived.append(data)
            stream.write(data)

    async with (
        serving(handler, reset_key=KEY) as listener,
        udp_proxy(listener.port) as proxy,
        connect_quic("127.0.0.1", proxy.port, client_settings()) as client,
    ):
        own = key_of_listener(KEY, listener.addresses)

        def forge(data: bytes, from_client: bool) -> list[tuple[float, bytes]]:
            if from_client:
                return [(0.0, data)]
            noise = os.urandom(26)
            tokens = [os.urandom(16), bytes(16), reset_token(KEY, UNKNOWN[1:]), reset_token(own, UNKNOWN[1:])]
            return [*((0.0, b"\x40" + noise + token) for token in tokens), (0.0, data)]

        proxy.forward = forge
        stream = await client.open_bidi()
        for _ in range(20):
            stream.write(b"x")
            with trio.fail_after(2):
                assert await stream.receive_some() == b"x"
        assert client.closed is None
    assert proxy.forwarded[False] > 80


async def test_what_is_answered():
    """A reset is smaller than its cause, looks like a packet, and ends with the token of the id that was asked."""
    async with serving(reset_key=KEY) as listener:
        token = reset_token(key_of_listener(KEY, listener.addresses), UNKNOWN[1:])
        with connected(listener.port) as sock:
            for size, expected in ((9, None), (21, None), (22, 21), (42, 41), (43, 42), (1200, 42)):
                found = await answers(sock, UNKNOWN + bytes(size - len(UNKNOWN)), within=0.05)
                assert [len(reset) for reset in found] == ([] if expected is None else [expected])
                assert all(reset[0] & 0xC0 == 0x40 and reset[-16:] == token for reset in found)
            # A long header says that the peer has no token yet.
            assert (
                await answers(sock, b"\xe0" + (1).to_bytes(4, "big") + b"\x08unknown!\x00" + bytes(100), within=0.05)
                == []
            )


async def test_resets_are_limited():
    """Past `max_resets_per_second` packets of unknown connections are dropped."""
    async with serving(limits=Limits(max_resets_per_second=3)) as listener:
        with connected(listener.port) as sock:
            for _ in range(20):
                sock.send(UNKNOWN + bytes(40))
            # At most two seconds begin.
            assert 3 <= len(await answers(sock, UNKNOWN + bytes(40), within=0.05)) <= 6


def test_the_limit_is_for_each_second():
    """The next second begins anew."""
    resets = StatelessResets(KEY, 2)
    answer = partial(resets.answer, UNKNOWN + bytes(40), UNKNOWN[1:])
    assert [answer(now) is not None for now in (5.0, 5.5, 5.9, 6.0, 6.1, 6.2)] == [True, True, False, True, True, False]


def test_listeners_do_not_share_tokens():
    """With one key, the tokens of a listener at one address are none at another."""
    assert key_of_listener(KEY, [("::", 1)]) == key_of_listener(KEY, [("::", 1)])
    keys = {key_of_listener(KEY, [address]) for address in (("::", 1), ("::", 2), ("::1", 1))}
    assert len(keys) == 3


def test_a_key_that_is_too_short():
    """A key that could be guessed is refused."""
    with pytest.raises(ValueError, match="at least 32 bytes"):
        server_settings(reset_key=b"secret")
