"""The stream of the handshake, from both ends, and how a session comes to its version."""

from __future__ import annotations

import pytest

from moqt_trio.errors import LimitExceeded, LocalProtocolError, Malformed, RemoteProtocolError, VersionUnsupported
from moqt_trio.limits import Limits
from moqt_trio.protocol.events import SessionNegotiated, SessionStreamEnded
from moqt_trio.protocol.handshake import ClientHandshake, Negotiation, ServerHandshake, candidates, protocols
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.handshake import HandshakeForm
from moqt_trio.wire.messages import SessionUpdate
from tests.protocol.harness import by_bytes

LIMITS = Limits()
IN_BAND = ("moq-lite-02", "moq-lite-01", "moq-transfork-03", "gomoqt-develop")
ALL = dialects.resolve(["moq-lite-06", "moq-lite-03", *IN_BAND])
LITE_06, LITE_03, LITE_02, LITE_01, TRANSFORK, DEVELOP = ALL
WIRE = {
    LITE_02: "c0000000ff0dad02",
    LITE_01: "c0000000ff0dad01",
    TRANSFORK: "c0000000ff0bad03",
    DEVELOP: "c0000000ffffff00",
}
IETF_14 = "c0000000ff00000e"
PATH = "01052f6563686f"
DEFAULTS = dialects.resolve(None)

each_version = pytest.mark.parametrize("dialect", WIRE, ids=lambda dialect: dialect.name)


def openings(dialect, path: str = "01" + PATH) -> str:
    """Returns what opens a session of one version, put together by hand from the vectors."""
    body = "01" + WIRE[dialect] + path
    size = len(body) // 2
    if dialect is TRANSFORK:
        return "00" + body
    return f"00{size:02x}" + body if dialect is DEVELOP else f"20{size:04x}" + body


def answers(dialect, parameters: str = "00") -> str:
    body = WIRE[dialect] + parameters
    size = len(body) // 2
    if dialect is TRANSFORK:
        return body
    return f"{size:02x}" + body if dialect is DEVELOP else f"21{size:04x}" + body


def updates(dialect) -> str:
    return "800f4240" if dialect is TRANSFORK else "04800f4240"


def on(dialect) -> str:
    return {LITE_02: "moql", LITE_01: "moql"}.get(dialect, "moq-00")


def negotiation(*offered, is_client=True, protocol="moql", webtransport=False, path=None, limits=LIMITS):
    return Negotiation(
        offered, is_client=is_client, protocol=protocol, webtransport=webtransport, path=path, limits=limits
    )


def server_of(*offered, protocol="moql", webtransport=False, limits=LIMITS) -> ServerHandshake:
    found = negotiation(*offered, is_client=False, protocol=protocol, webtransport=webtransport, limits=limits)
    assert isinstance(found.handshake, ServerHandshake)
    return found.handshake


def client_of(*offered, protocol="moql", webtransport=False, path=None) -> ClientHandshake:
    found = negotiation(*offered, protocol=protocol, webtransport=webtransport, path=path)
    assert isinstance(found.handshake, ClientHandshake)
    return found.handshake


def feed(machine, wire: str, *, fin: bool = False):
    return machine.receive_data(bytes.fromhex(wire), fin)


# -- the conversation -----------------------------------------------------------------------------------------


@each_version
def test_both_roles(dialect):
    """A client's opening, the server's answer and an update each way are the bytes of the vectors."""
    client = client_of(dialect, protocol=on(dialect), path="/echo")
    assert client.opening.hex() == openings(dialect)
    server = server_of(*ALL, protocol=on(dialect))
    (settled,) = feed(server, client.opening.hex())
    assert settled == SessionNegotiated(dialect, "/echo", ((1, b"/echo"),))
    assert server.accept().hex() == answers(dialect)
    assert feed(client, answers(dialect)) == [SessionNegotiated(dialect, None, ())]
    assert client.dialect is server.dialect is dialect
    for one, other in ((client, server), (server, client)):
        assert one.update(1000000).hex() == updates(dialect)
        assert feed(other, updates(dialect)) == [SessionUpdate(1000000)]
    assert feed(server, "", fin=True) == [SessionStreamEnded(None)]
    assert feed(client, "", fin=True) == [SessionStreamEnded(None)]


@each_version
def test_cut_makes_no_difference(dialect):
    """Byte by byte or all at once, with updates after the handshake and a FIN, the events are the same."""
    for make, wire in (
        (lambda: server_of(*ALL, protocol=on(dialect)), openings(dialect) + updates(dialect) * 2),
        (lambda: client_of(dialect, protocol=on(dialect)), answers(dialect) + updates(dialect) * 2),
    ):
        at_once = feed(make(), wire, fin=True)
        assert [type(event) for event in at_once] == [
            SessionNegotiated,
            SessionUpdate,
            SessionUpdate,
            SessionStreamEnded,
        ]
        machine = make()
        events = [event for piece in by_bytes(bytes.fromhex(wire)) for event in machine.receive_data(piece, False)]
        assert events + machine.receive_data(b"", True) == at_once


@each_version
def test_fin_within_the_handshake(dialect):
    """A stream that ends within a message of the handshake breaks the session, at every byte."""
    for make, wire in (
        (lambda: server_of(*ALL, protocol=on(dialect)), openings(dialect)),
        (lambda: client_of(dialect, protocol=on(dialect)), answers(dialect)),
    ):
        for cut in range(0, len(wire), 2):
            with pytest.raises(Malformed, match="FIN") as caught:
                feed(make(), wire[:cut], fin=True)
            assert (caught.value.scope, caught.value.code) == ("session", 3)
        machine = make()
        feed(machine, wire)
        with pytest.raises(Malformed, match="FIN"):
            feed(machine, updates(dialect)[:2], fin=True)
        assert feed(machine, "00") == []


@each_version
def test_the_end_of_the_stream_is_the_end_of_the_session(dialect):
    """A reset or a refusal to read, by either side and at any time, ends the session once."""
    for make in (
        lambda: server_of(*ALL, protocol=on(dialect)),
        lambda: client_of(dialect, protocol=on(dialect)),
    ):
        for end in ("receive_reset", "receive_stop"):
            machine = make()
            assert getattr(machine, end)(7) == [SessionStreamEnded(7)]
            assert machine.receive_reset(0) == machine.receive_stop(0) == feed(machine, "ff", fin=True) == []
    machine.release()
    assert machine.receive_reset(1) == []


def test_nothing_to_say_after_the_end():
    """Once the stream is over nothing is written, and before the version there is no way to."""
    server = server_of(LITE_02)
    for call in (server.accept, lambda: server.update(1)):
        with pytest.raises(LocalProtocolError, match="no version"):
            call()
    feed(server, openings(LITE_02), fin=True)
    assert server.update(1) == b""
    with pytest.raises(LocalProtocolError):
        server.update(-1)


# -- the chosen version ---------------------------------------------------------------------------------------


def test_the_server_takes_its_own_first_version():
    """The chosen version is the first one of the server that both speak."""
    offer = "20" + "001a" + "03" + WIRE[LITE_02] + WIRE[LITE_01] + IETF_14 + "00"
    for offered in ((LITE_02, LITE_01), (LITE_01, LITE_02)):
        server = server_of(*offered)
        assert feed(server, offer)[0].dialect is offered[0]
        assert server.accept().hex() == answers(offered[0])


def test_a_client_lists_its_versions_in_order():
    """One opening lists all versions of its form, in the client's order, and the server may take any."""
    client = client_of(LITE_06, LITE_01, LITE_02, TRANSFORK, path="/echo")
    assert client.opening.hex() == "20" + "0019" + "02" + WIRE[LITE_01] + WIRE[LITE_02] + "01" + PATH
    assert feed(client, answers(LITE_02))[0].dialect is LITE_02


def test_what_moq_rs_opens_with():
    """The opening of moq-rs, with an IETF version in its list and parameters that mean nothing here, is read."""
    offer = "20003003c0000000ff0dad02c0000000ff0dad01c0000000ff00000e0202c0000000ffffffff070b6d6f712d6c6974652d7273"
    (settled,) = feed(server_of(LITE_02, LITE_01), offer)
    assert settled == SessionNegotiated(LITE_02, None, ((2, 0xFFFFFFFF), (7, b"moq-lite-rs")))


def test_the_native_form_of_lite():
    """The form of the drafts of moq-lite is taken by the server and answered in kind, without a type."""
    server = server_of(LITE_02, LITE_01)
    (settled,) = feed(server, "00" + "0a" + "01" + WIRE[LITE_01] + "00")
    assert settled.dialect is LITE_01
    assert server.accept().hex() == "09" + WIRE[LITE_01] + "00"
    # Peers that have no other form answer to a name of their own.
    client = client_of(LITE_02, LITE_01, protocol="moql-01", path="/echo")
    assert client.opening.hex() == "00" + "11" + "01" + WIRE[LITE_01] + "01" + PATH
    assert feed(client, "09" + WIRE[LITE_01] + "00")[0].dialect is LITE_01


def test_one_alpn_for_two_versions():
    """Over `moq-00` the first bytes and the list distinguish gomoqt's version from moq-transfork-03."""
    for dialect in (TRANSFORK, DEVELOP):
        assert feed(server_of(TRANSFORK, DEVELOP, protocol="moq-00"), openings(dialect))[0].dialect is dialect


@pytest.mark.parametrize(("webtransport", "protocol"), [(False, "moq-00"), (True, "moq-00"), (True, None)])
def test_a_client_with_the_versions_by_default(webtransport, protocol):
    """Over `moq-00` it lists moqt-14 alone, in its form; without a subprotocol moq-lite, too, with the same options."""
    client = client_of(*DEFAULTS, protocol=protocol, webtransport=webtransport, path="/echo")
    listed = [WIRE[LITE_02], WIRE[LITE_01]] if protocol is None else []
    versions = f"{len(listed) + 1:02x}" + "".join(listed) + IETF_14
    opening = client.opening.hex()
    assert opening[:2] == "20"
    assert int(opening[2:6], 16) == len(opening[6:]) // 2
    assert opening[6:].startswith(versions)
    # PATH comes first, where no URI has it; then MAX_REQUEST_ID, which moq-lite skips.
    options = opening[6 + len(versions) :]
    assert options[2:].startswith("02" if webtransport else PATH + "02")


def test_a_server_with_the_versions_by_default():
    """It reads every form over `moq-00`: moqt-14's, moq-transfork-03's and gomoqt's."""
    for dialect in (TRANSFORK, DEVELOP):
        (settled,) = feed(server_of(*DEFAULTS, protocol="moq-00"), openings(dialect))
        assert settled == SessionNegotiated(dialect, "/echo", ((1, b"/echo"),))
    body = "01" + IETF_14 + "02" + PATH + "024064"
    (settled,) = feed(server_of(*DEFAULTS, protocol="moq-00"), f"20{len(body) // 2:04x}" + body)
    assert (settled.dialect.name, settled.path) == ("moqt-14", "/echo")
    assert settled.parameters == ((1, b"/echo"), (2, 100))


def test_no_subprotocol():
    """A WebTransport session without a subprotocol may be of any version that has a handshake; its URI has the path."""
    for dialect in WIRE:
        server = server_of(*ALL, protocol=None, webtransport=True)
        (settled,) = feed(server, openings(dialect))
        assert settled == SessionNegotiated(dialect, None, ((1, b"/echo"),))
    assert client_of(DEVELOP, protocol=None, webtransport=True, path="/echo").opening.hex() == openings(DEVELOP, "00")


def test_a_form_belongs_to_its_versions():
    """A version that is listed in a form that is not its own is not spoken."""
    with pytest.raises(RemoteProtocolError, match="no shared version"):
        feed(server_of(*ALL, protocol=None, webtransport=True), "20" + "000a" + "01" + WIRE[DEVELOP] + "00")
    with pytest.raises(RemoteProtocolError, match="no shared version"):
        feed(server_of(*ALL, protocol=None, webtransport=True), "00" + "01" + WIRE[LITE_02] + "00")


def test_disagreement_names_both_lists():
    """When nothing is shared, the error has both sides' versions and the code for it."""
    with pytest.raises(RemoteProtocolError) as caught:
        feed(server_of(LITE_02, LITE_01), "20" + "000c" + "02" + IETF_14 + "4063" + "00")
    assert str(caught.value) == (
        "no shared version: the client speaks 0xff00000e, 99; "
        "this side speaks moq-lite-02 (0xff0dad02), moq-lite-01 (0xff0dad01)"
    )
    assert (caught.value.scope, caught.value.code) == ("session", 0x15)
    with pytest.raises(RemoteProtocolError) as caught:
        feed(client_of(LITE_02), answers(LITE_01))
    assert str(caught.value) == ("the server chose version 0xff0dad01; this side offered moq-lite-02 (0xff0dad02)")
    assert caught.value.code == 0x15
    with pytest.raises(RemoteProtocolError, match="the client speaks none"):
        feed(server_of(LITE_02), "20" + "0002" + "00" + "00")


# -- the path -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("/echo", "/echo"),
        ("//echo", "/echo"),
        ("echo", "/echo"),
        ("/", "/"),
        ("", None),
        ("/a/b?jwt=//x", "/a/b?jwt=//x"),
    ],
)
def test_path(value, path):
    """What a client sends as its path has one slash in front, however it was written; an empty one is none."""
    raw = value.encode()
    wire = openings(DEVELOP, "01" + "01" + f"{len(raw):02x}" + raw.hex())
    assert feed(server_of(DEVELOP, protocol="moq-00"), wire)[0].path == path


@pytest.mark.parametrize("parameters", ["", "00"])
def test_no_path(parameters):
    """A client that sends no path, or not even a count of parameters, has none."""
    assert feed(server_of(DEVELOP, protocol="moq-00"), openings(DEVELOP, parameters))[0].path is None


def test_a_client_without_a_path_asks_for_the_root():
    """Over raw QUIC a client always sends a path: some servers do not answer without one."""
    assert client_of(DEVELOP, protocol="moq-00").opening.hex() == openings(DEVELOP, "01" + "01012f")


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [("02" + "01012f" * 2, "twice"), ("01" + "0101ff", "UTF-8"), ("01" + "0104" + "2f616263", "4 bytes")],
)
def test_bad_paths(parameters, problem):
    """A path that is there twice, is no text, or is too long breaks the session."""
    with pytest.raises(Malformed, match=problem) as caught:
        feed(server_of(DEVELOP, protocol="moq-00", limits=Limits(max_uri=3)), openings(DEVELOP, parameters))
    assert caught.value.scope == "session"


# -- protocols ------------------------------------------------------------------------------------------------


def test_protocols_to_offer():
    """Each protocol is offered once, in the order of the versions; some versions have none over WebTransport."""
    assert protocols(ALL, webtransport=False) == ("moq-lite-06", "moq-lite-03", "moql", "moql-01", "moq-00")
    assert protocols(ALL, webtransport=True) == ("moq-lite-06", "moq-lite-03", "moql")


@pytest.mark.parametrize(
    ("protocol", "webtransport", "found"),
    [
        ("moq-lite-06", False, [LITE_06]),
        ("moq-lite-03", True, [LITE_03]),
        ("moql", False, [LITE_02, LITE_01]),
        ("moql", True, [LITE_02, LITE_01]),
        ("moql-01", False, [LITE_01]),
        ("moql-01", True, []),
        ("moq-00", False, [TRANSFORK, DEVELOP]),
        ("moq-00", True, []),
        (None, True, [LITE_02, LITE_01, TRANSFORK, DEVELOP]),
        ("h3", False, []),
    ],
)
def test_candidates(protocol, webtransport, found):
    """What a protocol stands for."""
    assert list(candidates(ALL, protocol, webtransport=webtransport)) == found


def test_a_protocol_that_names_a_version_settles_it():
    """Where the layers below name one version there is no handshake."""
    settled = negotiation(*ALL, protocol="moq-lite-06")
    assert settled.dialect is LITE_06
    assert settled.handshake is None
    assert repr(settled) == "<Negotiation settled: moq-lite-06>"
    open_one = negotiation(*ALL, is_client=False)
    assert open_one.dialect is None
    assert repr(open_one) == "<Negotiation among moq-lite-02, moq-lite-01>"


@pytest.mark.parametrize(("protocol", "shown"), [("h3", "'h3'"), (None, "no protocol")])
def test_a_protocol_of_no_version(protocol, shown):
    """A protocol that stands for no offered version is refused with the names of those."""
    with pytest.raises(VersionUnsupported, match=shown) as caught:
        Negotiation([LITE_06], is_client=False, protocol=protocol, webtransport=True)
    assert caught.value.offered == ("moq-lite-06",)


def test_a_handshake_about_nothing():
    """A handshake needs a version that it can negotiate on."""
    with pytest.raises(LocalProtocolError):
        ClientHandshake((), LIMITS, form=HandshakeForm.UNFRAMED)


def test_limits():
    """The handshake is held to the limits of the session."""
    with pytest.raises(LimitExceeded) as caught:
        feed(server_of(LITE_02, limits=Limits(max_message=8)), openings(LITE_02)[:6])
    assert (caught.value.limit, caught.value.scope) == ("max_message", "session")
