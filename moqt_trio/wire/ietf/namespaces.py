"""Control messages about namespaces.

In the layouts `[rid]` is there up to 16, where a reply says what it answers, and `<d>` only in 17.

Spec: draft-ietf-moq-transport-14 to -19, section 9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import LocalProtocolError
from .messages import (
    NamespaceDone,
    NamespaceFound,
    NamespaceOptions,
    PublishBlocked,
    PublishNamespace,
    PublishNamespaceCancel,
    PublishNamespaceDone,
    PublishStateNotify,
    SubscribeNamespace,
    SubscribeTracks,
    UnsubscribeNamespace,
)
from .names import (
    read_namespace,
    read_reason,
    read_track,
    write_namespace,
    write_reason,
)
from .parameters import NONE, Parameters
from .parts import read_id, read_params, write_id, write_params

if TYPE_CHECKING:
    from ...limits import Limits
    from ..buffer import Reader, Writer
    from .profile import Profile


def read_publish_namespace(reader: Reader, profile: Profile, limits: Limits) -> PublishNamespace:
    """Read `rid, <d>, NS, Params`."""
    request_id = read_id(reader, profile)
    namespace = read_namespace(reader, profile, whole=True)
    return PublishNamespace(request_id, namespace, read_params(reader, profile, limits, PublishNamespace))


def write_publish_namespace(writer: Writer, message: PublishNamespace, profile: Profile) -> None:
    write_id(writer, message.request_id, profile)
    write_namespace(writer, message.namespace, profile)
    write_params(writer, message, profile)


def _read_named(reader: Reader, profile: Profile) -> tuple[int | None, Any]:
    """Read what names an announcement: `NS` (14, 15) or `rid` (16)."""
    return (None, read_namespace(reader, profile, whole=True)) if profile.done_by_namespace else (reader.varint(), None)


def write_named(writer: Writer, message: Any, profile: Profile) -> None:
    named = message.namespace if profile.done_by_namespace else message.request_id
    if named is None:
        raise LocalProtocolError(f"draft {profile.draft} names an announcement in another way")
    if profile.done_by_namespace:
        write_namespace(writer, named, profile)
    else:
        writer.varint(named)


def read_publish_namespace_done(reader: Reader, profile: Profile, limits: Limits) -> PublishNamespaceDone:
    """Read `NS` (14, 15) or `rid` (16)."""
    return PublishNamespaceDone(*_read_named(reader, profile))


def read_publish_namespace_cancel(reader: Reader, profile: Profile, limits: Limits) -> PublishNamespaceCancel:
    """Read `NS` (14, 15) or `rid` (16), then `i code, s reason`."""
    return PublishNamespaceCancel(*_read_named(reader, profile), reader.varint(), read_reason(reader))


def write_publish_namespace_cancel(writer: Writer, message: PublishNamespaceCancel, profile: Profile) -> None:
    write_named(writer, message, profile)
    writer.varint(message.code)
    write_reason(writer, message.reason)


def read_subscribe_namespace(reader: Reader, profile: Profile, limits: Limits) -> SubscribeNamespace:
    """Read `rid, <d>, NS prefix, [16, 17: i options], Params`."""
    request_id = read_id(reader, profile)
    prefix = read_namespace(reader, profile)
    options = None
    if profile.namespaces == "stream":
        number = reader.varint()
        if number > NamespaceOptions.BOTH:
            raise reader.malformed(f"options of {number}")
        options = NamespaceOptions(number)
    return SubscribeNamespace(request_id, prefix, options, read_params(reader, profile, limits, SubscribeNamespace))


def read_subscribe_tracks(reader: Reader, profile: Profile, limits: Limits) -> SubscribeTracks:
    """Read `rid, NS prefix, Params`."""
    request_id = read_id(reader, profile)
    prefix = read_namespace(reader, profile)
    return SubscribeTracks(request_id, prefix, read_params(reader, profile, limits, SubscribeTracks))


def write_prefix_request(writer: Writer, message: SubscribeNamespace | SubscribeTracks, profile: Profile) -> None:
    write_id(writer, message.request_id, profile)
    write_namespace(writer, message.prefix, profile)
    options = message.options if isinstance(message, SubscribeNamespace) else None
    if (options is None) == (profile.namespaces == "stream"):
        raise LocalProtocolError(f"SUBSCRIBE_NAMESPACE has options in drafts 16 and 17, and no other: {options}")
    if options is not None:
        writer.varint(options)
    write_params(writer, message, profile)


def read_unsubscribe_namespace(reader: Reader, profile: Profile, limits: Limits) -> UnsubscribeNamespace:
    """Read `NS prefix` (14) or `rid` (15)."""
    if profile.fixed_fields:
        return UnsubscribeNamespace(None, read_namespace(reader, profile))
    return UnsubscribeNamespace(reader.varint())


def write_unsubscribe_namespace(writer: Writer, message: UnsubscribeNamespace, profile: Profile) -> None:
    if profile.fixed_fields and message.prefix is not None:
        write_namespace(writer, message.prefix, profile)
    elif not profile.fixed_fields and message.request_id is not None:
        writer.varint(message.request_id)
    else:
        raise LocalProtocolError(f"draft {profile.draft} names a namespace subscription in another way")


def read_namespace_found(reader: Reader, profile: Profile, limits: Limits) -> NamespaceFound:
    """Read `NS suffix`; moq-rs adds `Params` of its own where both sides named a hop id in SETUP."""
    suffix = read_namespace(reader, profile)
    if not reader.remaining:
        return NamespaceFound(suffix)
    parameters = read_params(reader, profile, limits, NamespaceFound)
    own = Parameters(hop_path=parameters.hop_path, route_cost=parameters.route_cost, hidden=parameters.hidden)
    if parameters is NONE or parameters != own:
        raise reader.malformed("has bytes behind its suffix")
    return NamespaceFound(suffix, parameters)


def write_namespace_found(writer: Writer, message: NamespaceFound, profile: Profile) -> None:
    write_namespace(writer, message.suffix, profile)
    if message.parameters is not NONE:
        write_params(writer, message, profile)


def read_namespace_done(reader: Reader, profile: Profile, limits: Limits) -> NamespaceDone:
    """Read `NS suffix`."""
    return NamespaceDone(read_namespace(reader, profile))


def write_namespace_done(writer: Writer, message: NamespaceDone, profile: Profile) -> None:
    write_namespace(writer, message.suffix, profile)


def read_publish_blocked(reader: Reader, profile: Profile, limits: Limits) -> PublishBlocked:
    """Read `NS suffix, b name`."""
    return PublishBlocked(*read_track(reader, profile))


def write_publish_blocked(writer: Writer, message: PublishBlocked, profile: Profile) -> None:
    write_namespace(writer, message.suffix, profile)
    writer.data(message.name)


def read_state_notify(reader: Reader, profile: Profile, limits: Limits) -> PublishStateNotify:
    """Read `Params`."""
    return PublishStateNotify(read_params(reader, profile, limits, PublishStateNotify))
