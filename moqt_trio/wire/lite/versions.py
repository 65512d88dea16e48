"""The moq-lite versions from 03 on: which layout each one uses for each message, and what its streams are called.

A version is a table. The layouts are in `announce.py`, `subscribe.py` and `session.py` beside this file, and in
`wire/frames.py`; `wire/tables.py` puts those bodies into messages.

A field that a version lacks is left out when it is a preference, a cost or a hint (`ordered`, costs, a round trip).
It is a `LocalProtocolError` when leaving it out would ask for something else (ranges of frames, a hop to exclude).

Spec: draft-lcurley-moq-lite-03 to -06.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from ..dialect import Features, Quirks, register
from ..messages import (
    AnnounceEnd,
    AnnounceOk,
    AnnounceRequest,
    AnnounceStart,
    AnnounceUpdate,
    Expect,
    Fetch,
    Goaway,
    Group,
    Probe,
    Setup,
    StreamKind,
    Subscribe,
    SubscribeDrop,
    SubscribeEnd,
    SubscribeOk,
    SubscribeUpdate,
    TrackInfo,
    TrackRequest,
)
from ..tables import Reads, TableDialect, Writes
from . import announce as announce
from . import session as session
from . import subscribe as subscribe

if TYPE_CHECKING:
    from ...limits import Limits
    from ..buffer import Reader, Writer

# -- moq-lite-03 ----------------------------------------------------------------------------------------------

_BIDIRECTIONAL_03 = {1: StreamKind.ANNOUNCE, 2: StreamKind.SUBSCRIBE, 3: StreamKind.FETCH, 4: StreamKind.PROBE}
_UNIDIRECTIONAL_03 = {0: StreamKind.GROUP}

_FEATURES_03 = Features(
    sender_hop="count",
    subscribe_typed=True,
    subscribe_drop=True,
    max_age=True,
    probe="bitrate",
)

_READS_03: Reads = {
    Expect.ANNOUNCE_REQUEST: announce.read_request,
    Expect.ANNOUNCE_REPLY: announce.read_counted,
    Expect.SUBSCRIBE: subscribe.read_subscribe,
    Expect.SUBSCRIBE_UPDATE: subscribe.read_subscribe_update,
    Expect.SUBSCRIBE_REPLY: {0: subscribe.read_ok, 1: subscribe.read_drop},
    Expect.GROUP: subscribe.read_group,
    Expect.FETCH: subscribe.read_fetch,
    Expect.PROBE: session.read_probe_bitrate,
}

_WRITES_03: Writes = {
    AnnounceRequest: announce.write_request,
    AnnounceStart: announce.write_counted,
    AnnounceEnd: announce.write_counted,
    Subscribe: subscribe.write_subscribe,
    SubscribeUpdate: subscribe.write_subscribe_update,
    SubscribeOk: (0, subscribe.write_ok),
    SubscribeDrop: (1, subscribe.write_drop),
    Group: subscribe.write_group,
    Fetch: subscribe.write_fetch,
    Probe: session.write_probe_bitrate,
}

# -- moq-lite-04: hop ids, round trips in PROBE, GOAWAY ----------------------------------------------------------

_BIDIRECTIONAL_04 = {**_BIDIRECTIONAL_03, 5: StreamKind.GOAWAY}

_FEATURES_04 = attrs.evolve(_FEATURES_03, sender_hop="sender", exclude_hop=True, probe="rtt", goaway=True)

_READS_04: Reads = {
    **_READS_03,
    Expect.ANNOUNCE_REQUEST: announce.read_request_with_hop,
    Expect.ANNOUNCE_REPLY: announce.read_listed,
    Expect.PROBE: session.read_probe,
    Expect.GOAWAY: session.read_goaway,
}

_WRITES_04: Writes = {
    **_WRITES_03,
    AnnounceRequest: announce.write_request_with_hop,
    AnnounceStart: announce.write_listed,
    AnnounceEnd: announce.write_listed,
    Probe: session.write_probe,
    Goaway: session.write_goaway,
}

# -- moq-lite-05: SETUP, ANNOUNCE_OK, TRACK, timestamps, datagrams, the end of a subscription --------------------

_BIDIRECTIONAL_05 = {**_BIDIRECTIONAL_04, 6: StreamKind.TRACK}
_UNIDIRECTIONAL_05 = {**_UNIDIRECTIONAL_03, 1: StreamKind.SETUP}

_FEATURES_05 = attrs.evolve(
    _FEATURES_04,
    setup="uni",
    announce_first="ok",
    sender_hop="ok",
    subscribe_end=True,
    subscribe_ok_needs_group=True,
    timestamps=True,
    track_info=True,
    datagrams=True,
)

_READS_05: Reads = {
    **_READS_04,
    Expect.SETUP: session.read_setup,
    Expect.ANNOUNCE_FIRST_REPLY: announce.read_ok,
    Expect.ANNOUNCE_REPLY: announce.read_listed_or_restarted,
    Expect.SUBSCRIBE_REPLY: {0: subscribe.read_first_group, 1: subscribe.read_end, 2: subscribe.read_drop},
    Expect.TRACK_REQUEST: subscribe.read_track,
    Expect.TRACK_INFO: subscribe.read_ordered_track_info,
}

_WRITES_05: Writes = {
    **_WRITES_04,
    Setup: session.write_setup,
    AnnounceOk: announce.write_ok,
    SubscribeOk: (0, subscribe.write_first_group),
    SubscribeEnd: (1, subscribe.write_end),
    SubscribeDrop: (2, subscribe.write_drop),
    TrackRequest: subscribe.write_track,
    TrackInfo: subscribe.write_ordered_track_info,
}

# -- moq-lite-06: announcements by id, costs, ranges of frames ----------------------------------------------------

_FEATURES_06 = attrs.evolve(_FEATURES_05, announce_ids=True, costs=True, exclude_hop=False, frame_ranges=True)

_READS_06: Reads = {
    **_READS_05,
    Expect.ANNOUNCE_REQUEST: announce.read_request,
    Expect.ANNOUNCE_REPLY: {0: announce.read_start, 1: announce.read_end, 2: announce.read_update},
    Expect.SUBSCRIBE: subscribe.read_subscribe_frames,
    Expect.SUBSCRIBE_UPDATE: subscribe.read_subscribe_frames_update,
    Expect.GROUP: subscribe.read_group_from_frame,
    Expect.FETCH: subscribe.read_fetch_frames,
    Expect.TRACK_INFO: subscribe.read_track_info,
}

_WRITES_06: Writes = {
    **_WRITES_05,
    AnnounceRequest: announce.write_request,
    AnnounceStart: (0, announce.write_start),
    AnnounceEnd: (1, announce.write_end),
    AnnounceUpdate: (2, announce.write_update),
    Subscribe: subscribe.write_subscribe_frames,
    SubscribeUpdate: subscribe.write_subscribe_frames_update,
    Group: subscribe.write_group_from_frame,
    Fetch: subscribe.write_fetch_frames,
    TrackInfo: subscribe.write_track_info,
}

# -- moq-lite-06-wip: on the way to -06, one cost to an announcement; everything else as -05 has it ----------------

# Its peers were built from the draft's working tree, so it is offered only when it is named.


def _read_wip_start(reader: Reader, limits: Limits) -> AnnounceStart:
    """Read `s suffix, hops, i cost`."""
    return AnnounceStart(reader.path(limits), announce.read_hops(reader, limits), reader.varint())


def _write_wip_start(writer: Writer, message: AnnounceStart) -> None:
    """Write `s suffix, hops, i cost`."""
    announce.refuse_restart(message)
    writer.text(message.suffix)
    announce.write_hops(writer, message.hops)
    writer.varint(message.warm_cost)


def _read_wip_update(reader: Reader, limits: Limits) -> AnnounceUpdate:
    """Read `i announce_id, hops, i cost`."""
    return AnnounceUpdate(reader.varint(), announce.read_hops(reader, limits), reader.varint())


def _write_wip_update(writer: Writer, message: AnnounceUpdate) -> None:
    """Write `i announce_id, hops, i cost`."""
    writer.varint(message.announce_id)
    announce.write_hops(writer, message.hops)
    writer.varint(message.warm_cost)


# Registered newest first: this is the order in which a client offers them.

MOQ_LITE_06 = register(
    TableDialect(
        "moq-lite-06",
        features=_FEATURES_06,
        bidirectional=_BIDIRECTIONAL_05,
        unidirectional=_UNIDIRECTIONAL_05,
        reads=_READS_06,
        writes=_WRITES_06,
    )
)
MOQ_LITE_05 = register(
    TableDialect(
        "moq-lite-05",
        features=_FEATURES_05,
        bidirectional=_BIDIRECTIONAL_05,
        unidirectional=_UNIDIRECTIONAL_05,
        reads=_READS_05,
        writes=_WRITES_05,
    )
)
MOQ_LITE_04 = register(
    TableDialect(
        "moq-lite-04",
        features=_FEATURES_04,
        # gomoqt, which speaks this version only, accepts no path without a slash before it.
        quirks=Quirks(outer_slashes=True),
        bidirectional=_BIDIRECTIONAL_04,
        unidirectional=_UNIDIRECTIONAL_03,
        reads=_READS_04,
        writes=_WRITES_04,
    )
)
MOQ_LITE_03 = register(
    TableDialect(
        "moq-lite-03",
        features=_FEATURES_03,
        bidirectional=_BIDIRECTIONAL_03,
        unidirectional=_UNIDIRECTIONAL_03,
        reads=_READS_03,
        writes=_WRITES_03,
    )
)
MOQ_LITE_06_WIP = register(
    TableDialect(
        "moq-lite-06-wip",
        features=attrs.evolve(_FEATURES_05, announce_ids=True, exclude_hop=False),
        bidirectional=_BIDIRECTIONAL_05,
        unidirectional=_UNIDIRECTIONAL_05,
        reads={
            **_READS_05,
            Expect.ANNOUNCE_REQUEST: announce.read_request,
            Expect.ANNOUNCE_REPLY: {0: _read_wip_start, 1: announce.read_end, 2: _read_wip_update},
        },
        writes={
            **_WRITES_05,
            AnnounceRequest: announce.write_request,
            AnnounceStart: (0, _write_wip_start),
            AnnounceEnd: (1, announce.write_end),
            AnnounceUpdate: (2, _write_wip_update),
        },
        opt_in=True,
    )
)
