"""Steering: how several processes serve one UDP port, so that each QUIC connection stays with one of them.

Theory of operation. Each process has a socket of its own. The sockets are bound to one address and port
(`SO_REUSEPORT`), and a classic BPF program, which the kernel runs for each datagram, returns the number of the socket
that gets it (`SO_ATTACH_REUSEPORT_CBPF`, Linux). The number is that of the socket in the order of binding. So all of
them stay open for as long as any of them is used, and a process that is started again gets the socket of the one that
was there before.

The program takes the first byte of the destination connection id, modulo the number of sockets. What it reads, and
what the ids are that it finds there:

- Short headers (RFC 9000, section 17.3) have the id from byte 1 on: one that this server chose.
- Long headers (RFC 8999, section 5.1, the same in all versions) have its length in byte 5, and the id from byte 6 on.
  In a client's first packets it is a random one of the client's own: any socket may get it, and the packets that repeat
  it get the same one. Afterwards it is one that the server chose: in its first packet, or in a Retry, whose token can
  be read only by the process that made it.
- A datagram that is too short, also an empty one, goes to the first socket: a program that reads beyond the end
  returns 0.

So each process chooses its ids such that they lead back to it: `IdShare`. A client's address and port do not count, and
it keeps its process when they change. Version Negotiation and stateless resets are answers to one datagram, by the
process that got it. A stateless reset ends a connection, so only the process to which an id leads may send one for it.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import socket
import struct
import sys

import attrs

MOST_SHARES = 256
"""The first byte of an id has as many values."""

_SO_ATTACH_REUSEPORT_CBPF = 51
"""The socket module has no name for it; asm-generic/socket.h has the number."""
_LONG_HEADER = 0x80
"""The bit of a packet's first byte that tells a long header (RFC 9000, section 17.2)."""
_LOAD_BYTE, _JUMP_IF_SET, _JUMP, _MODULO, _RETURN = 0x30, 0x45, 0x05, 0x94, 0x16
"""BPF_LD|BPF_B|BPF_ABS, BPF_JMP|BPF_JSET|BPF_K, BPF_JMP|BPF_JA, BPF_ALU|BPF_MOD|BPF_K and BPF_RET|BPF_A, as
linux/filter.h has them. They use one register, the accumulator; a jump skips as many instructions as it says."""


@attrs.frozen
class IdShare:
    """The connection ids that lead to one of several processes: those whose first byte is `index` modulo `count`.

    Attributes:
        index: Which process, 0 … count-1.
        count: How many there are, 1 … `MOST_SHARES`.
    """

    index: int = 0
    count: int = 1

    def new_id(self, size: int) -> bytes:
        """Return a random id of so many bytes that leads here."""
        first = self.index + self.count * secrets.randbelow(len(range(self.index, 256, self.count)))
        return bytes([first]) + os.urandom(size - 1)

    def owns(self, connection_id: bytes) -> bool:
        """Return whether an id leads here."""
        return connection_id[0] % self.count == self.index


def steer(sock: socket.socket, count: int) -> None:
    """Have the kernel send each datagram to the socket to which its destination connection id leads.

    Args:
        sock: Any of the sockets that are bound to the address and port; all of them are bound.
        count: How many they are.

    Raises:
        OSError: The kernel does not do it.
    """
    if count == 1:
        # Nothing to choose; the kernel takes no program for a socket that no other one has joined.
        return
    program = b"".join(
        # code, instructions that a jump skips when it is taken and when not, operand (struct sock_filter)
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (_LOAD_BYTE, 0, 0, 0),
            (_JUMP_IF_SET, 2, 0, _LONG_HEADER),
            (_LOAD_BYTE, 0, 0, 1),
            (_JUMP, 0, 0, 1),
            (_LOAD_BYTE, 0, 0, 6),
            (_MODULO, 0, 0, count),
            (_RETURN, 0, 0, 0),
        )
    )
    # The kernel reads the program during the call (struct sock_fprog: a length and a pointer).
    memory = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("@HP", len(program) // 8, ctypes.addressof(memory))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, described)


def can_steer() -> bool:
    """Return whether this system can do it."""
    return sys.platform == "linux"
