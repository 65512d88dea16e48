"""Control messages about the session: SETUP in its three forms, GOAWAY, the limits of requests.

In the layouts `[rid]` is there up to 16, where a reply says what it answers, and `<d>` only in 17.

Spec: draft-ietf-moq-transport-14 to -19, section 9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import LocalProtocolError
from .messages import (
    ClientSetup,
    Goaway,
    MaxRequestId,
    RequestsBlocked,
    ServerSetup,
    Setup,
)
from .properties import Pairs, read_pairs, write_pairs

if TYPE_CHECKING:
    from ...limits import Limits
    from ..buffer import Reader, Writer
    from .profile import Profile


def read_client_setup(reader: Reader, profile: Profile, limits: Limits) -> ClientSetup:
    """Read `[14: i n, n × i version], i count, pairs`."""
    versions: tuple[int, ...] = ()
    if profile.in_band:
        count = reader.count("max_parameters", limits.max_parameters)
        versions = tuple(reader.varint() for _ in range(count))
    return ClientSetup(_read_counted(reader, profile, limits), versions)


def write_client_setup(writer: Writer, message: ClientSetup, profile: Profile) -> None:
    if profile.in_band:
        writer.varint(len(message.versions))
        for version in message.versions:
            writer.varint(version)
    _write_counted(writer, message.options, profile)


def read_server_setup(reader: Reader, profile: Profile, limits: Limits) -> ServerSetup:
    """Read `[14: i version], i count, pairs`."""
    version = reader.varint() if profile.in_band else None
    return ServerSetup(_read_counted(reader, profile, limits), version)


def write_server_setup(writer: Writer, message: ServerSetup, profile: Profile) -> None:
    if profile.in_band:
        if message.version is None:
            raise LocalProtocolError("SERVER_SETUP of draft 14 names the version")
        writer.varint(message.version)
    _write_counted(writer, message.options, profile)


def _read_counted(reader: Reader, profile: Profile, limits: Limits) -> Pairs:
    return read_pairs(reader, profile, limits, reader.count("max_parameters", limits.max_parameters, item_size=2))


def _write_counted(writer: Writer, options: Pairs, profile: Profile) -> None:
    writer.varint(len(options))
    write_pairs(writer, options, profile)


def read_setup(reader: Reader, profile: Profile, limits: Limits) -> Setup:
    """Read pairs to the end."""
    return Setup(read_pairs(reader, profile, limits))


def write_setup(writer: Writer, message: Setup, profile: Profile) -> None:
    write_pairs(writer, message.options, profile)


def read_goaway(reader: Reader, profile: Profile, limits: Limits) -> Goaway:
    """Read `s uri, [i timeout ms], [i rid]`; peers leave the last one out, and so do request streams."""
    uri = reader.text("max_uri", limits.max_uri)
    if profile.goaway == "uri":
        return Goaway(uri)
    timeout = reader.varint()
    return Goaway(uri, timeout, reader.varint() if profile.goaway == "request" and reader.remaining else None)


def write_goaway(writer: Writer, message: Goaway, profile: Profile) -> None:
    writer.text(message.uri)
    if profile.goaway != "uri":
        writer.varint(message.timeout_ms)
    if message.request_id is not None and profile.goaway == "request":
        writer.varint(message.request_id)


def read_max_request_id(reader: Reader, profile: Profile, limits: Limits) -> MaxRequestId:
    """Read `i limit`."""
    return MaxRequestId(reader.varint())


def read_requests_blocked(reader: Reader, profile: Profile, limits: Limits) -> RequestsBlocked:
    """Read `i limit`."""
    return RequestsBlocked(reader.varint())


def write_limit(writer: Writer, message: MaxRequestId | RequestsBlocked, profile: Profile) -> None:
    writer.varint(message.limit)
