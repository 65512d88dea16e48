"""Which parameters a message may carry, from draft 17 on. Before that a parameter out of place has no meaning.

A row is the whole table of its draft, and holds for the drafts up to the next row.

Spec: draft-ietf-moq-transport-18, section 9.3; -19, section 9.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .messages import (
    Fetch,
    Publish,
    PublishNamespace,
    PublishOk,
    PublishStateNotify,
    RequestOk,
    RequestUpdate,
    Subscribe,
    SubscribeNamespace,
    SubscribeOk,
    SubscribeTracks,
    TrackStatus,
)

if TYPE_CHECKING:
    from ..messages import Message
    from .profile import Profile

_RANGES: Final = {0x25, 0x26, 0x27, 0x28}
_SUBSCRIBE_17: Final = {0x02, 0x03, 0x04, 0x10, 0x20, 0x21, 0x22, 0x32}
_SUBSCRIBE_18: Final = _SUBSCRIBE_17 | {0x06}
_SUBSCRIBE_19: Final = _SUBSCRIBE_18 | _RANGES
_SUBSCRIBE_20: Final = _SUBSCRIBE_19 | {0x23, 0x35}

_SCOPES: Final[dict[int, dict[type[Message], set[int]]]] = {
    17: {
        Subscribe: _SUBSCRIBE_17,
        SubscribeOk: {0x08, 0x09},
        Publish: {0x03, 0x08, 0x09, 0x10},
        PublishOk: {0x02, 0x08, 0x10, 0x20, 0x21, 0x22, 0x32},
        Fetch: {0x03, 0x20, 0x22},
        TrackStatus: {0x03},
        PublishNamespace: {0x03},
        SubscribeNamespace: {0x03, 0x10},
        RequestUpdate: {0x02, 0x03, 0x10, 0x20, 0x21, 0x32},
        RequestOk: {0x08, 0x09},
    },
    18: {
        Subscribe: _SUBSCRIBE_18,
        SubscribeOk: {0x08, 0x09},
        Publish: {0x03, 0x08, 0x09, 0x10},
        Fetch: {0x03, 0x0A, 0x20, 0x22},
        TrackStatus: {0x03},
        PublishNamespace: {0x03},
        SubscribeNamespace: {0x03},
        SubscribeTracks: {0x03, 0x10},
        RequestUpdate: {0x02, 0x03, 0x06, 0x10, 0x20, 0x21, 0x32, 0x34},
        # It answers PUBLISH, too, with what the subscriber wants.
        RequestOk: {0x02, 0x06, 0x08, 0x09, 0x10, 0x20, 0x21, 0x22, 0x32},
    },
    19: {
        Subscribe: _SUBSCRIBE_19,
        SubscribeOk: {0x08, 0x09},
        Publish: {0x03, 0x08, 0x09, 0x10},
        Fetch: {0x03, 0x0A, 0x20, 0x22} | _RANGES,
        TrackStatus: {0x03},
        PublishNamespace: {0x03},
        SubscribeNamespace: {0x03},
        SubscribeTracks: _SUBSCRIBE_19 | {0x29},
        RequestUpdate: {0x02, 0x03, 0x06, 0x10, 0x20, 0x21, 0x29, 0x32, 0x34} | _RANGES,
        RequestOk: {0x02, 0x06, 0x08, 0x09, 0x10, 0x20, 0x21, 0x32},
    },
    20: {
        Subscribe: _SUBSCRIBE_20,
        SubscribeOk: {0x08, 0x09},
        Publish: {0x02, 0x03, 0x06, 0x08, 0x09, 0x10, 0x20, 0x21, 0x22},
        Fetch: {0x03, 0x0A, 0x20, 0x21, 0x22, 0x35} | _RANGES,
        TrackStatus: {0x03, 0x35},
        PublishNamespace: {0x03},
        SubscribeNamespace: {0x03},
        SubscribeTracks: _SUBSCRIBE_20 | {0x29},
        RequestUpdate: {0x02, 0x03, 0x06, 0x10, 0x20, 0x21, 0x23, 0x29, 0x32, 0x34} | _RANGES,
        RequestOk: {0x08, 0x09},
        PublishStateNotify: {0x09, 0x10, 0x21},
    },
}
_NONE: Final[frozenset[int]] = frozenset()
_FROZEN: Final = {
    draft: {message: frozenset(numbers) for message, numbers in scopes.items()} for draft, scopes in _SCOPES.items()
}


def scope(profile: Profile, message: type[Message]) -> frozenset[int]:
    """Return the types of the parameters that a message may carry; up to draft 16 it is not asked."""
    row = _FROZEN.get(min(profile.draft, 20))
    return _NONE if row is None else row.get(message, _NONE)
