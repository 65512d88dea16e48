"""The records of `tests/vectors/ietf-vectors.json`, and what their fields mean as messages.

The records were captured between aiomoqt 0.13 and the moq-rs package on loopback, or written by aiomoqt's encoder; each
names its source. The fields of a record are those of the wire; what they are in a message is written out here, by hand.
"""

from __future__ import annotations

import json
from pathlib import Path

from moqt_trio.wire.ietf import messages as m
from moqt_trio.wire.ietf.filters import Filter, Start
from moqt_trio.wire.ietf.names import Location, TrackName
from moqt_trio.wire.ietf.parameters import Parameters
from moqt_trio.wire.ietf.tokens import AliasType, Token

RECORDS = json.loads((Path(__file__).parents[1] / "vectors" / "ietf-vectors.json").read_text())
CONTROL = [record for record in RECORDS if record["stream"] in ("control", "request")]

OPTIONS = {
    "PATH": 1,
    "MAX_REQUEST_ID": 2,
    "AUTHORIZATION_TOKEN": 3,
    "MAX_AUTH_TOKEN_CACHE_SIZE": 4,
    "AUTHORITY": 5,
    "MAX_FILTER_RANGES": 6,
    "MOQT_IMPLEMENTATION": 7,
    "MAX_REQUEST_UPDATES": 8,
    "x-HOP_ID": 0x40B54,
    "x-SOLICIT": 0x40B5A,
    "x-HIDDEN": 0x40B5C,
}
PROPERTIES = {
    "OBJECT_DELIVERY_TIMEOUT": 0x02,
    "TIMESCALE": 0x08,
    "IMMUTABLE": 0x0B,
    "DEFAULT_PUBLISHER_PRIORITY": 0x0E,
    "TIMESTAMP": 0x10,
    "DEFAULT_PUBLISHER_GROUP_ORDER": 0x22,
    "PRIOR_GROUP_ID_GAP": 0x3C,
    "PRIOR_OBJECT_ID_GAP": 0x3E,
    "0x41": 0x41,
}
ORDERS = {0: None, 1: True, 2: False}
RANGES = {
    "SUBGROUP_FILTER": 0x25,
    "OBJECTID_FILTER": 0x26,
    "PRIORITY_FILTER": 0x27,
    "OBJECT_PROPERTY_FILTER": 0x28,
}
NUMBERS = {
    "DELIVERY_TIMEOUT": "delivery_timeout_ms",
    "OBJECT_DELIVERY_TIMEOUT": "delivery_timeout_ms",
    "RENDEZVOUS_TIMEOUT": "rendezvous_ms",
    "SUBGROUP_DELIVERY_TIMEOUT": "subgroup_timeout_ms",
    "EXPIRES": "expires_ms",
    "SUBSCRIBER_PRIORITY": "priority",
    "NEW_GROUP_REQUEST": "new_group",
    "0x40b5e": "hidden",
}


def namespace(parts):
    return tuple(part.encode() for part in parts)


def location(pair):
    return None if pair is None else Location(*pair)


def _filter(shown):
    """Return the filter that is shown as a dict, with its type; `()` for the one that lets everything pass."""
    kind = shown["type"]
    if kind in ("next_group", "none", "next_object", "largest_object"):
        return {"next_group": Filter(Start.NEXT_GROUP), "none": ()}.get(kind, Filter(Start.NEXT_OBJECT))
    if kind == "relative_start":
        return Filter(shown["groups"] or Start.NEXT_GROUP)
    return Filter(location(shown["start"]), shown.get("end_group"), shown.get("end_object"))


def _token(shown):
    alias_type = AliasType[shown["alias_type"]]
    value = bytes.fromhex(shown.get("value", ""))
    return Token(value, shown.get("type", 0), alias_type, shown.get("alias"))


def parameters(shown, **fields):
    """Return the parameters that are shown as a dict by name, and the fields of draft 14."""
    values = {name: value for name, value in fields.items() if value is not None}
    for name, value in shown.items():
        if name in NUMBERS:
            values[NUMBERS[name]] = value
        elif name in ("FORWARD", "INCLUDE_PROPERTIES"):
            values[name.lower()] = bool(value)
        elif name == "AUTHORIZATION_TOKEN":
            values["tokens"] = (_token(value),)
        elif name == "GROUP_ORDER":
            values["ordered"] = ORDERS[value]
        elif name == "FILTER":
            values["filter"] = _filter(value)
        elif name == "LARGEST_OBJECT":
            values["largest"] = location(value)
        elif name == "FILL_PARAMETERS":
            values["fill"] = parameters(value)
        elif name.startswith("TRACK_NAMESPACE_PREFIX"):
            values["prefix"] = namespace(value)
        elif name in RANGES:
            values["range_filters"] = (*values.get("range_filters", ()), (RANGES[name], _ranges(value)))
        else:
            raise AssertionError(f"a parameter without a meaning here: {name}")
    return Parameters(**values)


def _ranges(shown):
    """Return the bytes of a range filter; every number in them is below 0x80, and has one byte or two."""
    if shown.get("remove"):
        return b""
    data = bytes([shown["set"]])
    if "property" in shown:
        data += bytes([shown["property"]])
    before = 0
    for start, end in shown["ranges"]:
        data += bytes([start - before])
        if end is not None:
            data += bytes([end - start])
            before = end
    return data


def properties(shown):
    """Return the properties that are shown as pairs."""
    return tuple((PROPERTIES[name], _property(value)) for name, value in shown or ())


def _property(value):
    if isinstance(value, list):
        # One pair within the pair, of a type and a value below 0x40.
        ((kind, number),) = value
        return bytes([kind, number])
    return value.encode() if isinstance(value, str) else value


def options(shown):
    """Return the options of a SETUP that are shown as pairs."""
    found = []
    for name, value in shown:
        if name == "AUTHORIZATION_TOKEN":
            # Alias type and token type are below 0x40.
            content = bytes([AliasType[value["alias_type"]], value["type"]]) + bytes.fromhex(value["value"])
        else:
            content = value.encode() if isinstance(value, str) else value
        found.append((OPTIONS[name], content))
    return tuple(found)


# -- messages ----------------------------------------------------------------------------------------------------


def _track(fields):
    return TrackName(namespace(fields["namespace"]), fields["name"].encode())


def _wanted(fields):
    """Return the parameters of a request, with draft 14's fields."""
    chosen = fields.get("filter")
    if chosen is not None:
        chosen = _filter({"type": chosen, "start": fields.get("start"), "end_group": fields.get("end_group")})
    forward = fields.get("forward")
    return parameters(
        fields.get("parameters", {}),
        priority=fields.get("priority"),
        ordered=ORDERS[fields.get("group_order", 0)],
        forward=None if forward is None else bool(forward),
        filter=chosen,
        expires_ms=fields.get("expires"),
        largest=location(fields.get("largest")),
    )


def _fetch(draft, fields):
    kind = fields.get("type")
    if kind in ("relative_joining", "absolute_joining"):
        joining = m.Joining(fields["joining_request_id"], fields["joining_start"], kind == "absolute_joining")
        return m.Fetch(fields["request_id"], None, joining, _wanted(fields))
    if draft >= 20:
        return m.Fetch(fields["request_id"], _track(fields), None, _wanted(fields))
    end_group, end_object = fields["end"]
    wanted = Filter(location(fields["start"]), end_group, end_object - 1 if end_object else None)
    shown = {name: value for name, value in fields.items() if name not in ("start", "end", "type")}
    return m.Fetch(fields["request_id"], _track(fields), wanted, _wanted(shown))


def _fetch_ok(draft, fields):
    end_group, end_object = fields["end"]
    if draft < 20:
        end_object = end_object - 1 if end_object else None
    end_of_track = bool(fields["end_of_track"])
    return m.FetchOk(
        fields.get("request_id"),
        end_of_track,
        end_group,
        end_object,
        _wanted(fields),
        properties(fields.get("properties")),
    )


def _update_14(fields):
    end = fields["end_group_plus1"]
    wanted = Filter(location(fields["start"]), end - 1 if end else None)
    values = parameters(
        fields["parameters"], filter=wanted, priority=fields["priority"], forward=bool(fields["forward"])
    )
    return m.RequestUpdate(fields["request_id"], fields["subscription_request_id"], values)


def _error(fields, answered=m.Answered.ANY):
    retry, place = fields.get("retry_interval"), fields.get("redirect")
    return m.RequestError(
        fields.get("request_id"),
        fields["code"],
        fields["reason"],
        retry - 1 if retry else None,
        None if place is None else m.Redirect(place["uri"], _track(place)),
        answered,
    )


def _named(fields):
    found = fields.get("namespace")
    return fields.get("request_id"), None if found is None else namespace(found)


def _found(fields):
    shown = fields.get("x-parameters")
    if shown is None:
        return m.NamespaceFound(namespace(fields["suffix"]))
    ((hop,),) = shown.values()
    # The hop is a number of eight bytes: its prefix is 0xfe.
    return m.NamespaceFound(namespace(fields["suffix"]), Parameters(hop_path=b"\xfe" + hop.to_bytes(7, "big")))


def message(record):
    """Return the message that a record of a control or request stream stands for."""
    draft, name, fields = record["draft"], record["message"], record["fields"]
    request_id = fields.get("request_id")
    match name:
        case "CLIENT_SETUP":
            versions = tuple(int(number, 16) for number in fields.get("versions", ()))
            return m.ClientSetup(options(fields["parameters"]), versions)
        case "SERVER_SETUP":
            version = fields.get("version")
            return m.ServerSetup(options(fields["parameters"]), None if version is None else int(version, 16))
        case "SETUP":
            return m.Setup(options(fields["options"]))
        case "GOAWAY":
            return m.Goaway(fields["uri"], fields.get("timeout_ms", 0), request_id)
        case "MAX_REQUEST_ID":
            return m.MaxRequestId(fields["max_request_id"])
        case "REQUESTS_BLOCKED":
            return m.RequestsBlocked(fields["max_request_id"])
        case "SUBSCRIBE":
            return m.Subscribe(request_id, _track(fields), _wanted(fields))
        case "TRACK_STATUS":
            return m.TrackStatus(request_id, _track(fields), _wanted(fields))
        case "SUBSCRIBE_OK":
            return m.SubscribeOk(
                request_id, fields["track_alias"], _wanted(fields), properties(fields.get("properties"))
            )
        case "TRACK_STATUS_OK":
            return m.TrackStatusOk(request_id, _wanted(fields))
        case "REQUEST_OK":
            return m.RequestOk(request_id, _wanted(fields), properties(fields.get("properties")))
        case "PUBLISH_NAMESPACE_OK" | "SUBSCRIBE_NAMESPACE_OK":
            return m.RequestOk(request_id, answered=m.Answered[name.removesuffix("_OK")])
        case "REQUEST_ERROR":
            return _error(fields)
        case _ if name.endswith("_ERROR"):
            return _error(fields, m.Answered[name.removesuffix("_ERROR")])
        case "REQUEST_UPDATE":
            return m.RequestUpdate(request_id, fields.get("existing_request_id"), _wanted(fields))
        case "SUBSCRIBE_UPDATE":
            return _update_14(fields)
        case "UNSUBSCRIBE":
            return m.Unsubscribe(request_id)
        case "PUBLISH_DONE":
            return m.PublishDone(request_id, fields["status"], fields["stream_count"], fields["reason"])
        case "PUBLISH":
            return m.Publish(
                request_id,
                _track(fields),
                fields["track_alias"],
                _wanted(fields),
                properties(fields.get("properties")),
            )
        case "PUBLISH_OK":
            return m.PublishOk(request_id, _wanted(fields))
        case "FETCH":
            return _fetch(draft, fields)
        case "FETCH_OK":
            return _fetch_ok(draft, fields)
        case "FETCH_CANCEL":
            return m.FetchCancel(request_id)
        case "PUBLISH_NAMESPACE":
            return m.PublishNamespace(request_id, namespace(fields["namespace"]), _wanted(fields))
        case "PUBLISH_NAMESPACE_DONE":
            return m.PublishNamespaceDone(*_named(fields))
        case "PUBLISH_NAMESPACE_CANCEL":
            return m.PublishNamespaceCancel(*_named(fields), fields["code"], fields["reason"])
        case "SUBSCRIBE_NAMESPACE":
            number = fields.get("options")
            chosen = None if number is None else m.NamespaceOptions(number)
            return m.SubscribeNamespace(request_id, namespace(fields["prefix"]), chosen, _wanted(fields))
        case "UNSUBSCRIBE_NAMESPACE":
            return m.UnsubscribeNamespace(request_id, namespace(fields["prefix"]))
        case "SUBSCRIBE_TRACKS":
            return m.SubscribeTracks(request_id, namespace(fields["prefix"]), _wanted(fields))
        case "NAMESPACE":
            return _found(fields)
        case "NAMESPACE_DONE":
            return m.NamespaceDone(namespace(fields["suffix"]))
        case "PUBLISH_BLOCKED" | "PUBLISH_SKIPPED":
            return m.PublishBlocked(namespace(fields["suffix"]), fields["name"].encode())
        case "PUBLISH_STATE_NOTIFY":
            return m.PublishStateNotify(_wanted(fields))
    raise AssertionError(name)
