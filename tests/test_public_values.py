"""Exceptions and values can be copied and pickled: they cross processes, and the tests of applications compare them."""

from __future__ import annotations

import copy
import inspect
import pickle

import attrs
import pytest
import trio

import moqt_trio as moqt

STATISTICS = moqt.TransportStatistics()

EXCEPTIONS = [
    moqt.MoqtError("text"),
    moqt.ProtocolError("text", code=4),
    moqt.LocalProtocolError("text", code=4),
    moqt.GoingAway("https://b.example/"),
    moqt.RemoteProtocolError("text", code=5, scope="stream"),
    moqt.Malformed("text", code=6, scope="stream"),
    moqt.LimitExceeded("max_frame", 99, code=7, scope="stream"),
    moqt.SessionClosed(local_code=1, remote_code=2, reason="why\n", by_peer=True),
    moqt.StreamReset(0x33, by_peer=False),
    moqt.ConnectError("text"),
    moqt.HandshakeFailed("text"),
    moqt.CertificateInvalid("text"),
    moqt.VersionUnsupported("text", offered=("moq-lite-06",)),
    moqt.ConnectTimeout("text"),
    moqt.RedirectRefused("text", uri="https://b.example/", chain=("https://a.example/",)),
    moqt.Rejected(403, "no"),
    moqt.Unauthorized("a/b", "why", status=401),
    moqt.NotFound("a/b", "t", "group 3"),
    moqt.CertificateUnusable("text"),
    moqt.WorkerFailed("text", index=2),
]

VALUES = [
    moqt.Backoff(retries=3),
    moqt.BroadcastPath(("a", "b")),
    moqt.DroppedGroups(1, 2, 0x35),
    moqt.Frame(b"payload", 7),
    moqt.Frame(b"payload"),
    moqt.Grant(publish=["a/**"], subscribe=["**"], root="b", expires=4e9, revalidate=5, tier="gold", peer=True),
    moqt.Limits(max_frame=5),
    moqt.ListenerStatistics(**dict.fromkeys(attrs.fields_dict(moqt.ListenerStatistics), 1)),
    moqt.OfferedTrack(moqt.BroadcastPath(("a", "b")), "t", True),
    moqt.OriginRoute(
        path=moqt.BroadcastPath(("a",)), hops=(1, 2), cost=3, cold_cost=4, peer=("127.0.0.1", 4443), best=True
    ),
    moqt.OriginSession(**dict.fromkeys(attrs.fields_dict(moqt.OriginSession), 1)),
    moqt.OriginStatistics(**dict.fromkeys(attrs.fields_dict(moqt.OriginStatistics), 1)),
    moqt.ProbeReport(bitrate=1, rtt=0.5),
    moqt.Redirect("https://a.example/", "https://b.example/", 1),
    moqt.SessionCode.UNAUTHORIZED,
    moqt.SessionStatistics(**dict.fromkeys(attrs.fields_dict(moqt.SessionStatistics), 1) | {"transport": STATISTICS}),
    moqt.StreamCode.NOT_FOUND,
    moqt.SubscriptionStatistics(**dict.fromkeys(attrs.fields_dict(moqt.SubscriptionStatistics), 1)),
    moqt.Token(b"secret", 3),
    moqt.TrackStatus(1, 2, moqt.TrackProperties(1, 2.0, 3)),
    moqt.TrackProperties(**dict.fromkeys(attrs.fields_dict(moqt.TrackProperties), 1)),
    STATISTICS,
]

LIVE = {"Announcement", "Certificate"}
"""Frozen, but no values: an announcement changes while it is active, and a certificate holds a private key."""

WAYS = [copy.copy, copy.deepcopy] + [
    lambda value, protocol=protocol: pickle.loads(pickle.dumps(value, protocol))
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
]
each_way = pytest.mark.parametrize("way", WAYS, ids=["copy", "deepcopy", "2", "3", "4", "5"])


def exported(condition):
    found = ((name, getattr(moqt, name)) for name in moqt.__all__)
    return {name for name, value in found if inspect.isclass(value) and condition(value)}


def test_everything_is_here():
    """Each exported exception, and each exported class whose objects cannot change, has an example above."""
    assert {type(error).__name__ for error in EXCEPTIONS} == exported(lambda cls: issubclass(cls, BaseException))
    frozen = exported(lambda cls: attrs.has(cls) and cls.__setattr__ is not object.__setattr__)
    others = {"Frame", "SessionCode", "StreamCode"}
    assert {type(value).__name__ for value in VALUES} == (frozen - LIVE) | others


@each_way
@pytest.mark.parametrize("error", EXCEPTIONS, ids=lambda error: type(error).__name__)
def test_exceptions(way, error):
    """A copy of an exception has its type, its text and its attributes."""
    again = way(error)
    assert type(again) is type(error)
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))


def test_a_copy_is_caught_as_the_original_is():
    """The bases of an exception hold for its copy, those of Trio too."""
    with pytest.raises(trio.BrokenResourceError):
        raise pickle.loads(pickle.dumps(moqt.StreamReset(1)))


def test_notes_travel_along():
    """What was added to an exception by `add_note` is in its copy."""
    error = moqt.Rejected(403)
    error.add_note("asked twice")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["asked twice"]


@each_way
@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values(way, value):
    """A copy of a value equals it, and has its type."""
    again = way(value)
    assert type(again) is type(value)
    assert again == value
    assert repr(again) == repr(value)
