"""Control messages about tracks: subscriptions, what a publisher offers, and how a request is answered.

In the layouts `[rid]` is there up to 16, where a reply says what it answers, and `<d>` only in 17.

Spec: draft-ietf-moq-transport-14 to -19, section 9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ...errors import LocalProtocolError
from .messages import (
    FetchCancel,
    Publish,
    PublishDone,
    PublishOk,
    Redirect,
    RequestError,
    RequestOk,
    RequestUpdate,
    Subscribe,
    SubscribeOk,
    TrackStatus,
    Unsubscribe,
)
from .names import (
    read_reason,
    read_track,
    write_reason,
    write_track,
)
from .parts import (
    read_id,
    read_params,
    read_reply_id,
    read_track_properties,
    write_id,
    write_params,
    write_reply_id,
    write_track_properties,
)

if TYPE_CHECKING:
    from ...limits import Limits
    from ..buffer import Reader, Writer
    from .profile import Profile

_REDIRECT: Final = 0x34
"""The code of a refusal that names another place."""


def read_request_ok(reader: Reader, profile: Profile, limits: Limits) -> RequestOk:
    """Read `[rid], Params, [Props]`."""
    return RequestOk(
        read_reply_id(reader, profile),
        read_params(reader, profile, limits, RequestOk),
        read_track_properties(reader, profile, limits, since="ok"),
    )


def write_request_ok(writer: Writer, message: RequestOk, profile: Profile) -> None:
    write_reply_id(writer, message.request_id, profile)
    write_params(writer, message, profile)
    write_track_properties(writer, message.properties, profile, since="ok")


def read_request_error(reader: Reader, profile: Profile, limits: Limits) -> RequestError:
    """Read `[rid], i code, [i retry: ms + 1], s reason, [s uri, NS, b name]`."""
    request_id = read_reply_id(reader, profile)
    code = reader.varint()
    retry = None if profile.error == "plain" else reader.optional()
    reason = read_reason(reader)
    redirect = None
    if profile.error == "redirect" and code == _REDIRECT:
        redirect = Redirect(reader.text("max_uri", limits.max_uri), read_track(reader, profile))
    return RequestError(request_id, code, reason, retry, redirect)


def write_request_error(writer: Writer, message: RequestError, profile: Profile) -> None:
    write_reply_id(writer, message.request_id, profile)
    writer.varint(message.code)
    if profile.error != "plain":
        writer.optional(message.retry_ms)
    write_reason(writer, message.reason)
    if profile.error == "redirect" and message.code == _REDIRECT:
        if message.redirect is None:
            raise LocalProtocolError("a refusal with the code REDIRECT names a place")
        writer.text(message.redirect.uri)
        write_track(writer, message.redirect.track, profile)


def read_subscribe(reader: Reader, profile: Profile, limits: Limits) -> Subscribe:
    """Read `rid, <d>, NS, b name, Params`."""
    request_id = read_id(reader, profile)
    return Subscribe(request_id, read_track(reader, profile), read_params(reader, profile, limits, Subscribe))


def read_track_status(reader: Reader, profile: Profile, limits: Limits) -> TrackStatus:
    """Read `rid, <d>, NS, b name, Params`."""
    request_id = read_id(reader, profile)
    return TrackStatus(request_id, read_track(reader, profile), read_params(reader, profile, limits, TrackStatus))


def write_track_request(writer: Writer, message: Subscribe | TrackStatus, profile: Profile) -> None:
    write_id(writer, message.request_id, profile)
    write_track(writer, message.track, profile)
    write_params(writer, message, profile)


def read_subscribe_ok(reader: Reader, profile: Profile, limits: Limits) -> SubscribeOk:
    """Read `[rid], i alias, Params, [Props]`."""
    return SubscribeOk(
        read_reply_id(reader, profile),
        reader.varint(),
        read_params(reader, profile, limits, SubscribeOk),
        read_track_properties(reader, profile, limits),
    )


def write_subscribe_ok(writer: Writer, message: SubscribeOk, profile: Profile) -> None:
    write_reply_id(writer, message.request_id, profile)
    writer.varint(message.alias)
    write_params(writer, message, profile)
    write_track_properties(writer, message.properties, profile)


def read_request_update(reader: Reader, profile: Profile, limits: Limits) -> RequestUpdate:
    """Read `rid, <d>, [i existing rid], Params`."""
    request_id = read_id(reader, profile)
    existing = reader.varint() if profile.one_control_stream else None
    return RequestUpdate(request_id, existing, read_params(reader, profile, limits, RequestUpdate))


def write_request_update(writer: Writer, message: RequestUpdate, profile: Profile) -> None:
    write_id(writer, message.request_id, profile)
    write_reply_id(writer, message.existing_id, profile)
    write_params(writer, message, profile)


def read_unsubscribe(reader: Reader, profile: Profile, limits: Limits) -> Unsubscribe:
    """Read `rid`."""
    return Unsubscribe(reader.varint())


def read_fetch_cancel(reader: Reader, profile: Profile, limits: Limits) -> FetchCancel:
    """Read `rid`."""
    return FetchCancel(reader.varint())


def write_only_id(writer: Writer, message: Unsubscribe | FetchCancel, profile: Profile) -> None:
    writer.varint(message.request_id)


def read_publish_done(reader: Reader, profile: Profile, limits: Limits) -> PublishDone:
    """Read `[rid], i status, i streams, s reason`."""
    return PublishDone(read_reply_id(reader, profile), reader.varint(), reader.varint(), read_reason(reader))


def write_publish_done(writer: Writer, message: PublishDone, profile: Profile) -> None:
    write_reply_id(writer, message.request_id, profile)
    writer.varint(message.status)
    writer.varint(message.streams)
    write_reason(writer, message.reason)


def read_publish(reader: Reader, profile: Profile, limits: Limits) -> Publish:
    """Read `rid, <d>, NS, b name, i alias, Params, [Props]`."""
    return Publish(
        read_id(reader, profile),
        read_track(reader, profile),
        reader.varint(),
        read_params(reader, profile, limits, Publish),
        read_track_properties(reader, profile, limits),
    )


def write_publish(writer: Writer, message: Publish, profile: Profile) -> None:
    write_id(writer, message.request_id, profile)
    write_track(writer, message.track, profile)
    writer.varint(message.alias)
    write_params(writer, message, profile)
    write_track_properties(writer, message.properties, profile)


def read_publish_ok(reader: Reader, profile: Profile, limits: Limits) -> PublishOk:
    """Read `[rid], Params`."""
    return PublishOk(read_reply_id(reader, profile), read_params(reader, profile, limits, PublishOk))


def write_publish_ok(writer: Writer, message: PublishOk, profile: Profile) -> None:
    write_reply_id(writer, message.request_id, profile)
    write_params(writer, message, profile)
