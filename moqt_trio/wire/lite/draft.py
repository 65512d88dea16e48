"""moq-lite-06-wip: what moq-lite-06 was on the way to its final text, offered only when it is named.

It has the announcements by id of the final text with one cost, and everything else as moq-lite-05 has it. Its
peers are those that were built from the working tree before the final text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from ..dialect import register
from ..messages import AnnounceEnd, AnnounceRequest, AnnounceStart, AnnounceUpdate, Expect
from ..tables import TableDialect
from . import announce as announce
from . import versions as lite

if TYPE_CHECKING:
    from ...limits import Limits
    from ..buffer import Reader, Writer


def _read_start(reader: Reader, limits: Limits) -> AnnounceStart:
    """Reads `s suffix, hops, i cost`."""
    return AnnounceStart(announce.read_path(reader, limits), announce.read_hops(reader, limits), reader.varint())


def _write_start(writer: Writer, message: AnnounceStart) -> None:
    """Writes `s suffix, hops, i cost`."""
    announce.refuse_restart(message)
    writer.text(message.suffix)
    announce.write_hops(writer, message.hops)
    writer.varint(message.warm_cost)


def _read_restart(reader: Reader, limits: Limits) -> AnnounceUpdate:
    """Reads `i announce_id, hops, i cost`."""
    return AnnounceUpdate(reader.varint(), announce.read_hops(reader, limits), reader.varint())


def _write_restart(writer: Writer, message: AnnounceUpdate) -> None:
    """Writes `i announce_id, hops, i cost`."""
    writer.varint(message.announce_id)
    announce.write_hops(writer, message.hops)
    writer.varint(message.warm_cost)


MOQ_LITE_06_WIP = register(
    TableDialect(
        "moq-lite-06-wip",
        features=attrs.evolve(lite.FEATURES_05, announce_ids=True, exclude_hop=False),
        bidirectional=lite.BIDIRECTIONAL_05,
        unidirectional=lite.UNIDIRECTIONAL_05,
        reads={
            **lite.READS_05,
            Expect.ANNOUNCE_REQUEST: announce.read_request,
            Expect.ANNOUNCE_REPLY: {0: _read_start, 1: announce.read_end, 2: _read_restart},
        },
        writes={
            **lite.WRITES_05,
            AnnounceRequest: announce.write_request,
            AnnounceStart: (0, _write_start),
            AnnounceEnd: (1, announce.write_end),
            AnnounceUpdate: (2, _write_restart),
        },
        opt_in=True,
    )
)
