"""Clients that leave as soon as they have a connection, as the slower of two attempts at connecting does."""

from __future__ import annotations

import logging

import pytest
import trio

from tests.faults.web.test_lock_out import handshaking, serving
from tests.transport.recorders import eventually

CLIENTS = 30


@pytest.mark.parametrize("alpn", ["moq-lite-06", "h3"])
async def test_clients_that_leave_as_their_handshake_ends(alpn, caplog):
    """What completes the handshake and what ends the connection are read in one turn: the handler finds that it is
    over, and nothing is logged as a fault."""
    async with serving() as listener:
        for number in range(CLIENTS):
            async with handshaking(listener.port, alpn=alpn) as (quic, sock):
                with trio.fail_after(5):
                    while not quic._handshake_complete:
                        await trio.lowlevel.wait_readable(sock)
                        quic.receive_datagram(sock.recv(65535), ("127.0.0.1", listener.port), trio.current_time())
                datagrams = quic.datagrams_to_send(trio.current_time())
                quic.close()
                for data, _ in (*datagrams, *quic.datagrams_to_send(trio.current_time())):
                    sock.send(data)
                await eventually(lambda number=number: listener.statistics().connections_accepted == number + 1)
        await eventually(lambda: not listener.statistics().connections)
    assert [record.message for record in caplog.records if record.levelno > logging.INFO] == []
