"""How an input reaches a machine: in random pieces, and with some end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moqt_trio.errors import RemoteProtocolError

if TYPE_CHECKING:
    import random

    from moqt_trio.protocol.machine import StreamMachine


def pieces(data: bytes, chance: random.Random) -> list[bytes]:
    """Cut some bytes at random."""
    found: list[bytes] = []
    while data:
        size = chance.randint(1, len(data))
        found.append(data[:size])
        data = data[size:]
    return found


def feed(machine: StreamMachine, data: bytes, chance: random.Random) -> str:
    """Feed a stream to its machine in random pieces, and end it in some way."""
    try:
        for piece in pieces(data, chance):
            machine.receive_data(piece, False)
        match chance.randrange(4):
            case 0:
                machine.receive_data(b"", True)
            case 1:
                machine.receive_reset(chance.randrange(2**32))
            case 2:
                machine.receive_stop(chance.randrange(2**32))
        return "accepted"
    except RemoteProtocolError as error:
        return f"{type(error).__name__} ({error.scope})"
    finally:
        machine.release()
