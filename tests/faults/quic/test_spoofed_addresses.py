"""Ten thousand handshakes that are begun and not finished, each from an address of its own."""

from __future__ import annotations

import socket

import pytest
import trio
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoPair
from aioquic.tls import Epoch

import moqt_trio as moqt
from tests.faults.quic_hostile import varint
from tests.faults.served import MIB, ServedProcess, served
from tests.machine import seconds

PLACE = 128 * 1024
"""Bytes that a handshake which is not complete may take: its keys, the hello, and the certificates that it was sent."""
VERSION_1 = bytes.fromhex("00000001")


class Initials:
    """First packets of clients that differ in their connection ids only: a real hello, in packets of its own.

    Args:
        alpn: The protocol that they ask for.
    """

    def __init__(self, alpn: str) -> None:
        quic = QuicConnection(configuration=QuicConfiguration(alpn_protocols=[alpn], server_name="localhost"))
        quic.connect(("127.0.0.1", 4433), 0.0)
        hello = bytes(quic._crypto_streams[Epoch.INITIAL].sender._buffer)
        self._source = quic.host_cid
        self._payload = b"\x06" + varint(0) + varint(len(hello)) + hello

    def packet(self, number: int) -> bytes:
        """Return the first packet of the client of this number (RFC 9000, section 17.2.2)."""
        destination = number.to_bytes(8, "big")
        crypto = CryptoPair()
        crypto.setup_initial(cid=destination, is_client=True, version=1)
        ids = bytes([len(destination)]) + destination + bytes([len(self._source)]) + self._source
        # The length counts the packet number of two bytes, and 16 of the tag.
        size = 1200 - (1 + len(VERSION_1) + len(ids) + 1 + 2)
        header = b"\xc1" + VERSION_1 + ids + b"\x00" + (0x4000 | size).to_bytes(2, "big") + b"\x00\x00"
        return crypto.encrypt_packet(header, self._payload.ljust(size - 2 - 16, b"\x00"), 0)


async def half_open_handshakes(server: ServedProcess, alpn: str, count: int) -> tuple[int, int]:
    """Begin so many handshakes, each from an address of its own in 127.0.0.0/8 where nothing is.

    Returns:
        The most that the server held at once, and the bytes by which it grew after the first five hundred.
    """
    initials = Initials(alpn)
    most = filled = 0
    for number in range(count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((f"127.{1 + number // 62_500}.{number // 250 % 250}.{1 + number % 250}", 0))
            sock.sendto(initials.packet(number), ("127.0.0.1", server.port))
        if number % 50 == 49:
            found = await server.glance()
            most = max(most, found.half_open)
            if number == 499:
                filled = found.resident
    return most, (await server.glance()).resident - filled


@pytest.mark.parametrize("alpn", ["moq-lite-06", "h3"])
async def test_ten_thousand_half_open_handshakes(alpn):
    """Half of the places fill, all the others get a Retry that costs no state; a real client has its session within a
    second over each transport, and after the handshakes' time nothing is left."""
    count, limits = 10_000, moqt.Limits()
    assert (limits.max_half_open, limits.handshake_timeout) == (512, 10.0)
    # No place is free again before all have come.
    timeout = seconds(limits.handshake_timeout)
    async with served(handshake_timeout=timeout) as server:
        most, later = await half_open_handshakes(server, alpn, count)
        await server.check_next_client("moqt", "https")
        found = await server.figures()
        grown, cpu = found.peak - server.before.resident, found.cpu - server.before.cpu
        print(
            f"\n{alpn}: at most {most} half open, {found.retried} Retry; the server grew by {grown / MIB:.1f} MiB, "
            f"{later / MIB:.1f} MiB of it after the first five hundred, in {cpu:.1f} s of CPU"
        )
        assert most <= limits.max_half_open // 2
        # A packet that the socket's buffer had no room for is neither.
        assert found.retried + most >= count * 0.99
        assert grown <= limits.max_half_open // 2 * PLACE
        assert later <= MIB
        with trio.fail_after(timeout + 5):
            while (await server.at_rest()).half_open:
                pass
