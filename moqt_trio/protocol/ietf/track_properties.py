"""The properties of a track in SUBSCRIBE_OK and its like, as `TrackInfo`.

Those that this library knows become fields; the others are kept, in the order of the wire. An unknown property of the
mandatory range ends the request: without it the track cannot be read.

Spec: draft-ietf-moq-transport-18, section 11; the timescale is that of draft-ietf-moq-loc.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ...errors import Malformed, RemoteProtocolError
from ...wire.ietf.objects import IMMUTABLE
from ...wire.ietf.properties import read_block
from ...wire.messages import TrackInfo

if TYPE_CHECKING:
    from ...limits import Limits
    from ...wire.ietf.profile import Profile
    from ...wire.ietf.properties import Pairs

MAX_CACHE_DURATION: Final = 0x04
TIMESCALE: Final = 0x08
PRIORITY: Final = 0x0E
GROUP_ORDER: Final = 0x22
_KNOWN: Final = frozenset({MAX_CACHE_DURATION, TIMESCALE, PRIORITY, GROUP_ORDER})
_MANDATORY: Final = range(0x4000, 0x8000)
_MANDATORY_FROM: Final = 18
"""The first draft that has a mandatory range."""
UNSUPPORTED_EXTENSION: Final = 0x33

_MOST_URGENT: Final = 255
_DEFAULT_PRIORITY: Final = 128
_DEFAULT_TIMESCALE: Final = 1_000_000
"""Timestamps of a track that does not say its timescale are microseconds."""
_ANY_AGE_MS: Final = 2**53 - 1
_DESCENDING: Final = 2


def track_info(properties: Pairs, profile: Profile, limits: Limits) -> TrackInfo:
    """Return what some properties say of a track.

    Raises:
        RemoteProtocolError: One that has to be known is not; scope `"stream"`, with UNSUPPORTED_EXTENSION.
    """
    every = properties + _immutable(properties, profile, limits)
    if profile.draft >= _MANDATORY_FROM:
        unknown = next((kind for kind, _ in every if kind in _MANDATORY), None)
        if unknown is not None:
            problem = f"the track has the property {unknown:#x}, which is mandatory and not known here"
            raise RemoteProtocolError(problem, code=UNSUPPORTED_EXTENSION, scope="stream")
    known = {kind: value for kind, value in reversed(every) if kind in _KNOWN and isinstance(value, int)}
    return TrackInfo(
        priority=max(_MOST_URGENT - known.get(PRIORITY, _DEFAULT_PRIORITY), 0),
        ordered=known.get(GROUP_ORDER) != _DESCENDING,
        max_age_ms=min(known.get(MAX_CACHE_DURATION, _ANY_AGE_MS), _ANY_AGE_MS),
        timescale=known.get(TIMESCALE) or _DEFAULT_TIMESCALE,
        properties=tuple((kind, value) for kind, value in properties if kind not in _KNOWN),
    )


def _immutable(properties: Pairs, profile: Profile, limits: Limits) -> Pairs:
    """Return the properties within those that no relay changes."""
    for kind, value in properties:
        if kind == IMMUTABLE and isinstance(value, bytes):
            try:
                return read_block(value, profile, limits)
            except Malformed as error:
                raise RemoteProtocolError(str(error), code=error.code, scope="stream") from error
    return ()


def properties_of_track(info: TrackInfo, profile: Profile) -> Pairs:
    """Return the properties that say what a track is; none in the drafts whose messages have no place for them."""
    if profile.properties == "none":
        return ()
    pairs: list[tuple[int, int | bytes]] = [
        (MAX_CACHE_DURATION, info.max_age_ms),
        (TIMESCALE, info.timescale),
        (PRIORITY, _MOST_URGENT - info.priority),
        *((kind, value) for kind, value in info.properties if kind not in _KNOWN),
    ]
    return tuple(sorted(pairs, key=lambda pair: pair[0]))
