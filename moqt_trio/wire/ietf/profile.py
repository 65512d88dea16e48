"""Profile: what distinguishes one draft's layouts from another's, and a row for each draft."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import attrs

from ... import varint
from ..buffer import Reader, Writer
from . import numbers
from .numbers import LongReader, LongReaderWithoutSeven, LongWriter


@attrs.frozen(kw_only=True)
class Profile:
    """The layouts of one draft. Each field's default is that of draft 22.

    Attributes:
        draft: The draft's number.
        numbers: `"quic"` for QUIC varints; `"long"` for those of `numbers.py`, and `"long17"` without seven bytes.
        one_control_stream: True up to 16: SETUP, requests and replies share one bidirectional stream, and a reply
            says which request it is to.
        in_band: True for 14, whose version is chosen in SETUP.
        fixed_fields: True for 14, where filter, priority, order and forward are fields and no parameters.
        delta_types: True from 16 on: the types of a list are written as differences.
        parameter_values: How a parameter's value is written: `"pairs"`, by the type's parity (up to 16), or `"typed"`.
        refuses_unknown_parameters: True from 16 on: a parameter of unknown type ends the session.
        refuses_misplaced_parameters: True from 17 on: so does one that its message may not carry.
        refuses_empty_fields: True from 16 on: so does a namespace with an empty field.
        error: The form of refusals: `"each"` request has its own (14), `"plain"` (15), `"retry"` says when to try again
            (16, 17), `"redirect"` may name another place, too.
        properties: Where the properties of a track may stand: `"none"` (14, 15), `"track"`, or `"ok"`, in REQUEST_OK,
            too (from 18 on).
        namespaces: How a namespace subscription travels and is told: `"control"`, by requests of the publisher
            (14, 15); `"stream"`, with options (16, 17); `"split"`, SUBSCRIBE_TRACKS beside it (from 18 on).
        done_by_namespace: True for 14 and 15: PUBLISH_NAMESPACE_DONE and _CANCEL name the namespace.
        publish_ok: True up to 17: PUBLISH has an acceptance of its own.
        required_request: True for 17: a number behind each request id says for which request it waits.
        fetch_filter: True from 20 on: FETCH has a filter, and FETCH_OK an end that is inclusive.
        filter_form: How a filter is written: `"absolute"` end group (up to 16), `"delta"` (17 to 19), `"counted"` by
            its fields (20, 21), or `"typed"`.
        goaway: What GOAWAY has beside its URI: `"uri"` nothing, `"timeout"`, or `"request"`, a request id, too (18).
        fin_cancels: True for 17 and 18: FIN ends a request.
        default_priority: True from 15 on: a subgroup or a datagram may leave its priority to the track.
        first_object: True from 18 on: a subgroup says whether it has the group's first object.
        datagram_status: `"plain"` for 14, `"flags"` from 15 on.
        object_timeouts: True from 19 on: an object may have timeouts of its own.
        fetch_objects: How the objects of a fetch are written: `"full"` (14), `"status"` (15), `"absolute"` (16, 17), or
            `"delta"`.
        timed_out_ranges: True from 20 on: a fetch may say that a range timed out.
        missing_status: True for 14 and 15: an object may say that it does not exist.
        reader, writer: The classes that read and write a message's numbers.
        decode, encode: The functions that do so for a single number, as those of `varint`.
        one_byte: Numbers below this are written as one byte, themselves: the hot paths read those in line.
    """

    draft: int
    numbers: Literal["quic", "long17", "long"] = "long"
    one_control_stream: bool = False
    in_band: bool = False
    fixed_fields: bool = False
    delta_types: bool = True
    parameter_values: Literal["pairs", "typed"] = "typed"
    refuses_unknown_parameters: bool = True
    refuses_misplaced_parameters: bool = True
    refuses_empty_fields: bool = True
    error: Literal["each", "plain", "retry", "redirect"] = "redirect"
    properties: Literal["none", "track", "ok"] = "ok"
    namespaces: Literal["control", "stream", "split"] = "split"
    done_by_namespace: bool = False
    publish_ok: bool = False
    required_request: bool = False
    fetch_filter: bool = True
    filter_form: Literal["absolute", "delta", "counted", "typed"] = "typed"
    goaway: Literal["uri", "timeout", "request"] = "timeout"
    fin_cancels: bool = False
    default_priority: bool = True
    first_object: bool = True
    datagram_status: Literal["plain", "flags"] = "flags"
    object_timeouts: bool = True
    fetch_objects: Literal["full", "status", "absolute", "delta"] = "delta"
    timed_out_ranges: bool = True
    missing_status: bool = False

    reader: type[Reader] = attrs.field(init=False)
    writer: type[Writer] = attrs.field(init=False)
    decode: Callable[[bytes | bytearray, int], tuple[int, int] | None] = attrs.field(init=False)
    encode: Callable[[int], bytes] = attrs.field(init=False)
    one_byte: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        readers = {"quic": Reader, "long17": LongReaderWithoutSeven, "long": LongReader}
        writers = {"quic": Writer, "long17": LongWriter, "long": LongWriter}
        object.__setattr__(self, "reader", readers[self.numbers])
        object.__setattr__(self, "writer", writers[self.numbers])
        decoders = {"quic": varint.decode, "long17": numbers.decode_without_seven, "long": numbers.decode}
        object.__setattr__(self, "decode", decoders[self.numbers])
        object.__setattr__(self, "encode", (varint if self.numbers == "quic" else numbers).encode)
        object.__setattr__(self, "one_byte", 0x40 if self.numbers == "quic" else 0x80)


DRAFT_22 = Profile(draft=22)
DRAFT_21 = attrs.evolve(DRAFT_22, draft=21, filter_form="counted")
DRAFT_20 = attrs.evolve(DRAFT_21, draft=20)
DRAFT_19 = attrs.evolve(DRAFT_20, draft=19, fetch_filter=False, filter_form="delta", timed_out_ranges=False)
DRAFT_18 = attrs.evolve(DRAFT_19, draft=18, goaway="request", fin_cancels=True, object_timeouts=False)
DRAFT_17 = attrs.evolve(
    DRAFT_18,
    draft=17,
    numbers="long17",
    error="retry",
    properties="track",
    namespaces="stream",
    publish_ok=True,
    required_request=True,
    goaway="timeout",
    first_object=False,
    fetch_objects="absolute",
)
DRAFT_16 = attrs.evolve(
    DRAFT_17,
    draft=16,
    numbers="quic",
    one_control_stream=True,
    parameter_values="pairs",
    refuses_misplaced_parameters=False,
    required_request=False,
    filter_form="absolute",
    goaway="uri",
    fin_cancels=False,
)
DRAFT_15 = attrs.evolve(
    DRAFT_16,
    draft=15,
    delta_types=False,
    refuses_unknown_parameters=False,
    refuses_empty_fields=False,
    error="plain",
    properties="none",
    namespaces="control",
    done_by_namespace=True,
    fetch_objects="status",
    missing_status=True,
)
DRAFT_14 = attrs.evolve(
    DRAFT_15,
    draft=14,
    in_band=True,
    fixed_fields=True,
    error="each",
    default_priority=False,
    datagram_status="plain",
    fetch_objects="full",
)

PROFILES = {
    profile.draft: profile
    for profile in (
        DRAFT_22,
        DRAFT_21,
        DRAFT_20,
        DRAFT_19,
        DRAFT_18,
        DRAFT_17,
        DRAFT_16,
        DRAFT_15,
        DRAFT_14,
    )
}
"""The profile of each draft, newest first."""
