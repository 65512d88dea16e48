"""A core of a draft, and the bytes that a machine of it is fed, as hexadecimal digits."""

from __future__ import annotations

from moqt_trio.protocol.ietf.core import IetfCore
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.ietf.drafts import IetfDialect


def core(name: str = "moqt-18", *, is_client: bool, **options) -> IetfCore:
    dialect = dialects.get(name)
    assert isinstance(dialect, IetfDialect)
    return IetfCore(dialect, is_client=is_client, **options)


def feed(machine, wire: str, fin: bool = False) -> list:
    return machine.receive_data(bytes.fromhex(wire), fin)
