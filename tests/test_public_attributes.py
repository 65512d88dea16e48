"""The attributes of objects of public classes: those that the documentation describes, and nothing else.

Internal attributes are not reachable there: completion and the reference would offer them.
"""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import moqt_trio

MEMBERS = {
    "Announcement": "active cold_cost cost hops path publisher updated",
    "Announcements": "active receive tracks wait_initial",
    "Backoff": "delay factor initial jitter maximum random retries",
    "Broadcast": "finish remove requests track tracks",
    "BroadcastPath": "covers join parse parts suffix_of",
    "Certificate": (
        "certificate certificate_pem chain days_left fingerprint fingerprint_text hosts load not_after "
        "private_key private_key_pem"
    ),
    "CertificateFiles": "reload",
    "CertificateInvalid": "",
    "CertificateUnusable": "",
    "ClientCertificate": "der fingerprint hosts issuer name not_after subject",
    "ConnectError": "",
    "ConnectTimeout": "",
    "DevelopmentCertificates": "current directory fingerprints hosts renew reset_key stored",
    "DroppedGroups": "code first last",
    "FetchReader": (
        "close datagram ends_group priority read_all receive receive_batch receive_nowait sequence start_frame subgroup"
    ),
    "Frame": "group object_id payload properties timestamp",
    "GoingAway": "uri",
    "Grant": "allows covers expires lease may_publish may_subscribe peer publish revalidate root subscribe tier",
    "GroupReader": (
        "close datagram ends_group priority read_all receive receive_batch receive_nowait sequence start_frame subgroup"
    ),
    "GroupWriter": "finish reset send send_nowait sequence subgroup",
    "HandshakeFailed": "",
    "LimitExceeded": "code limit scope value",
    "Listener": "aclose addresses fingerprint host port sessions statistics urls",
    "ListenerStatistics": (
        "connections connections_accepted displaced half_open refused retried "
        "sessions sessions_accepted sessions_rejected"
    ),
    "LocalProtocolError": "code",
    "Malformed": "code scope",
    "MoqtError": "",
    "NotFound": "path track",
    "OfferedTrack": "active path track",
    "OfferedTracks": "active receive",
    "Origin": "connect hop_id link publish routes sessions statistics view",
    "OriginPublication": "path",
    "OriginRoute": "best cold_cost cost hops path peer",
    "OriginSession": "draining hop_id peer root routes shown version",
    "OriginStatistics": "broadcasts cached_bytes fetches routes sessions subscribers subscriptions tracks",
    "OriginView": "root",
    "Probe": "receive update",
    "ProbeReport": "bitrate rtt",
    "ProtocolError": "code",
    "Publication": "path update",
    "RangeReader": (
        "close datagram ends_group missing priority read_all receive receive_batch receive_nowait sequence start_frame "
        "subgroup"
    ),
    "Redirect": "from_url hop host port same_authority to_url",
    "RedirectRefused": "chain uri",
    "Rejected": "reason status",
    "RemoteProtocolError": "code scope",
    "Router": "default find paths",
    "Session": (
        "aclose announcements close closed fetch fetch_range goaway hop_id limits offered_tracks peer peer_role "
        "peer_tokens probe publish statistics subscribe track_status transport version wait_announced wait_closed "
        "wait_goaway"
    ),
    "SessionClosed": "by_peer local_code reason remote_code",
    "SessionRequest": (
        "accept answered authority certificate local origin path peer protocol query reject role tokens transport "
        "version"
    ),
    "SessionStatistics": (
        "datagrams_dropped groups_dropped peer_bitrate publications subscriptions subscriptions_served transport"
    ),
    "StreamReset": "after by_peer code",
    "Subscription": (
        "dropped end_group path paused receive start_group statistics track track_properties unread_groups update "
        "wait_accepted"
    ),
    "SubscriptionStatistics": (
        "bytes_received frames_received groups_dropped groups_expired groups_received groups_reset"
    ),
    "Token": "kind value",
    "Track": (
        "abort delivery ended finish latest max_age name open_group priority properties send_datagram "
        "subscribers timescale wait_subscribed wait_unsubscribed write write_nowait"
    ),
    "TrackProperties": "max_age priority properties timescale",
    "TrackRequest": "accept path refuse track wanted",
    "TrackRequests": "receive",
    "TrackStatus": "latest_frame latest_group properties",
    "TransportStatistics": "bytes_in_flight bytes_received bytes_sent congestion_window datagrams_lost rtt",
    "Unauthorized": "path status",
    "VersionUnsupported": "offered",
    "Worker": "count host index port",
    "WorkerFailed": "index",
}
"""Each public class with its methods, properties and attributes, as the reference has to describe them.

Left out are the classes whose members are values of their own: limits and error codes.
"""

VALUES = {"Limits", "SessionCode", "StreamCode"}
EVIDENT = {"Rejected": {"reason"}}
"""What no docstring has to describe."""


def ours(cls: type) -> list[type]:
    """Returns the classes of this package that a class is made of."""
    return [base for base in cls.__mro__ if base.__module__.partition(".")[0] == "moqt_trio"]


def definition(cls: type) -> ast.AST | None:
    """Returns the source of a class of ours, found by one of its methods: the class says that it lives elsewhere."""
    functions = [member for member in vars(cls).values() if inspect.isfunction(member)]
    paths = {Path(inspect.unwrap(function).__code__.co_filename) for function in functions}
    # What attrs adds to a class stands elsewhere.
    written = [path for path in paths if Path(moqt_trio.__file__).parent in path.parents]
    if not written:
        return None
    tree = ast.parse(written[0].read_text(encoding="utf-8"))
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls.__name__)


def assigned(cls: type) -> set[str]:
    """Returns the attributes that the methods of a class give to its objects."""
    found = set()
    for base in ours(cls):
        source = definition(base)
        for node in ast.walk(source) if source else ():
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and ast.unparse(node.value) == "self"
            ):
                found.add(node.attr)
    return found


def visible(cls: type) -> set[str]:
    """Returns every public name that a class of ours, or one that it extends, gives to its objects."""
    names = {name for base in ours(cls) for name in (*vars(base), *getattr(base, "__annotations__", {}))}
    return {name for name in names | assigned(cls) if not name.startswith("_")}


def described(cls: type) -> set[str]:
    """Returns what the `Attributes:` and `Args:` of a class's docstring name, and those of the classes it extends."""
    found: set[str] = set()
    for base in ours(cls):
        text = inspect.cleandoc(base.__doc__ or "") + "\n"
        for section in re.findall(r"^(?:Attributes|Args):\n((?:[ ]+.*\n|\n)*)", text, re.MULTILINE):
            for names in re.findall(r"^ {4}(\w+(?:, \w+)*):", section, re.MULTILINE):
                found |= set(names.split(", "))
    return found


def is_described_itself(cls: type, name: str) -> bool:
    """Returns True for a method or property, which has a docstring of its own."""
    member = inspect.getattr_static(cls, name, None)
    return bool(isinstance(member, property | classmethod | staticmethod) or inspect.isfunction(member))


def test_every_class_is_listed():
    """Each public class has its entry."""
    classes = {name for name in moqt_trio.__all__ if inspect.isclass(getattr(moqt_trio, name))}
    assert classes - VALUES == set(MEMBERS)


@pytest.mark.parametrize("name", MEMBERS)
def test_members(name):
    """An object has the attributes that are listed for its class, and no others."""
    assert visible(getattr(moqt_trio, name)) == set(MEMBERS[name].split())


@pytest.mark.parametrize("name", MEMBERS)
def test_attributes_are_described(name):
    """Each attribute that is neither a method nor a property is described in the docstring of its class."""
    cls = getattr(moqt_trio, name)
    data = {member for member in visible(cls) if not is_described_itself(cls, member)}
    assert data - described(cls) - EVIDENT.get(name, set()) == set()


@pytest.mark.parametrize("name", MEMBERS)
def test_no_attribute_is_only_described(name):
    """The docstring of a class names no attribute that its objects do not have."""
    cls = getattr(moqt_trio, name)
    text = inspect.cleandoc(cls.__doc__ or "") + "\n"
    section = re.search(r"^Attributes:\n((?:[ ]+.*\n|\n)*)", text, re.MULTILINE)
    named = set(re.findall(r"^ {4}(\w+):", section[1], re.MULTILINE)) if section else set()
    assert named <= visible(cls)
