"""Which control messages each draft has from 15 on, and their types. Draft 14 has some of its own: `fields.py`.

Spec: draft-ietf-moq-transport-14 to -19, section 9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import fetch as fetch
from . import namespaces as namespaces
from . import requests as requests
from . import session as session
from .messages import (
    ClientSetup,
    Fetch,
    FetchCancel,
    FetchOk,
    Goaway,
    MaxRequestId,
    NamespaceDone,
    NamespaceFound,
    Publish,
    PublishBlocked,
    PublishDone,
    PublishNamespace,
    PublishNamespaceCancel,
    PublishNamespaceDone,
    PublishOk,
    PublishStateNotify,
    RequestError,
    RequestOk,
    RequestsBlocked,
    RequestUpdate,
    ServerSetup,
    Setup,
    Subscribe,
    SubscribeNamespace,
    SubscribeOk,
    SubscribeTracks,
    TrackStatus,
    Unsubscribe,
    UnsubscribeNamespace,
)
from .parts import Layout, write_params

if TYPE_CHECKING:
    from .profile import Profile

_REQUESTS: Final = (
    Layout(0x02, RequestUpdate, requests.read_request_update, requests.write_request_update),
    Layout(0x03, Subscribe, requests.read_subscribe, requests.write_track_request),
    Layout(0x04, SubscribeOk, requests.read_subscribe_ok, requests.write_subscribe_ok),
    Layout(0x05, RequestError, requests.read_request_error, requests.write_request_error),
    Layout(0x06, PublishNamespace, namespaces.read_publish_namespace, namespaces.write_publish_namespace),
    Layout(0x07, RequestOk, requests.read_request_ok, requests.write_request_ok),
    Layout(0x0B, PublishDone, requests.read_publish_done, requests.write_publish_done),
    Layout(0x0D, TrackStatus, requests.read_track_status, requests.write_track_request),
    Layout(0x10, Goaway, session.read_goaway, session.write_goaway),
    Layout(0x16, Fetch, fetch.read_fetch, fetch.write_fetch),
    Layout(0x18, FetchOk, fetch.read_fetch_ok, fetch.write_fetch_ok),
    Layout(0x1D, Publish, requests.read_publish, requests.write_publish),
)
_ONE_CONTROL_STREAM: Final = (
    Layout(0x09, PublishNamespaceDone, namespaces.read_publish_namespace_done, namespaces.write_named),
    Layout(0x0A, Unsubscribe, requests.read_unsubscribe, requests.write_only_id),
    Layout(
        0x0C,
        PublishNamespaceCancel,
        namespaces.read_publish_namespace_cancel,
        namespaces.write_publish_namespace_cancel,
    ),
    Layout(0x15, MaxRequestId, session.read_max_request_id, session.write_limit),
    Layout(0x17, FetchCancel, requests.read_fetch_cancel, requests.write_only_id),
    Layout(0x1A, RequestsBlocked, session.read_requests_blocked, session.write_limit),
    Layout(0x20, ClientSetup, session.read_client_setup, session.write_client_setup),
    Layout(0x21, ServerSetup, session.read_server_setup, session.write_server_setup),
)
_TWO_CONTROL_STREAMS: Final = (Layout(0x2F00, Setup, session.read_setup, session.write_setup),)
_PUBLISH_OK: Final = (Layout(0x1E, PublishOk, requests.read_publish_ok, requests.write_publish_ok),)
_NAMESPACES_BY_REQUEST: Final = (
    Layout(0x11, SubscribeNamespace, namespaces.read_subscribe_namespace, namespaces.write_prefix_request),
    Layout(0x14, UnsubscribeNamespace, namespaces.read_unsubscribe_namespace, namespaces.write_unsubscribe_namespace),
)
_NAMESPACES_ON_A_STREAM: Final = (
    Layout(0x08, NamespaceFound, namespaces.read_namespace_found, namespaces.write_namespace_found),
    Layout(0x0E, NamespaceDone, namespaces.read_namespace_done, namespaces.write_namespace_done),
)
_BLOCKED: Final = (Layout(0x0F, PublishBlocked, namespaces.read_publish_blocked, namespaces.write_publish_blocked),)
_NOTIFY: Final = (Layout(0x22, PublishStateNotify, namespaces.read_state_notify, write_params),)


def layouts(profile: Profile) -> tuple[Layout, ...]:
    """Return the messages that a draft has, from 15 on; of 14, those that have no fields of its own."""
    found = [*_REQUESTS, *(_ONE_CONTROL_STREAM if profile.one_control_stream else _TWO_CONTROL_STREAMS)]
    if profile.publish_ok:
        found += _PUBLISH_OK
    match profile.namespaces:
        case "control":
            found += _NAMESPACES_BY_REQUEST
        case "stream":
            found += (_NAMESPACES_BY_REQUEST[0], *_NAMESPACES_ON_A_STREAM)
        case "split":
            found += (
                Layout(0x50, SubscribeNamespace, namespaces.read_subscribe_namespace, namespaces.write_prefix_request),
                Layout(0x51, SubscribeTracks, namespaces.read_subscribe_tracks, namespaces.write_prefix_request),
                *_NAMESPACES_ON_A_STREAM,
            )
    if not profile.one_control_stream:
        found += _BLOCKED
    if profile.fetch_filter:
        found += _NOTIFY
    return tuple(found)
