"""The rules of an IETF session, drafts 14 and later, without I/O: each request has a stream of its own.

Up to draft 16 these streams are virtual: the requests share the control stream.

The machines tell the events of `protocol/events.py`, so that the session serves and reads both families in one way.

| file | what it owns |
|---|---|
| `core.py` | `IetfCore`: makes the machines, reads the first message or the type of the peer's streams |
| `state.py` | what the machines of one session share: request ids, track aliases, parked streams |
| `machine.py` | the base of the machines of requests, and how a request is refused |
| `request_ids.py` | the ids of both sides' requests, and their limits up to draft 16 |
| `control.py` | the control stream of each side: SETUP, then GOAWAY |
| `control_stream.py` | the one control stream up to draft 16, as virtual streams of requests |
| `endings.py` | the messages that end a request there |
| `publish_namespace.py` | PUBLISH_NAMESPACE |
| `namespaces.py` | SUBSCRIBE_NAMESPACE and its replies |
| `publish_namespace.py` | PUBLISH_NAMESPACE and its replies |
| `subscribe.py` | SUBSCRIBE, its updates and replies |
| `publish.py` | PUBLISH: a subscription that its publisher opens |
| `tracks.py` | SUBSCRIBE_TRACKS, which asks for them |
| `track_status.py` | TRACK_STATUS, and the properties of a track |
| `updates.py` | REQUEST_UPDATE of a subscription, its answers, and how many may wait |
| `subgroup.py` | a subgroup's stream, which is a group here |
| `datagrams.py` | objects that travel as datagrams |
| `ends.py` | the ends of groups and tracks, as streams say them, and whether they contradict each other |
| `track_properties.py` | the properties of a track, in the messages that carry them |
"""
