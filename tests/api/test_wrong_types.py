"""An argument of a wrong type, or without a meaning, is an error at once that says what is wanted."""

from __future__ import annotations

import inspect

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.testing import session_pair
from tests.api.test_blame import listening
from tests.http.serving import CERTIFICATE

URL = "moqt://localhost:1/"


class AnyHandler:
    async def __call__(self, request):
        pass

    async def method(self, request):
        pass

    def plain(self, request):
        pass


def plain(request):
    pass


async def generator(request):
    yield


def annotated(request) -> trio.abc.AsyncResource:
    pass


SESSION_MISTAKES = {
    "publish a track": (lambda s: s.publish("a", moqt.Broadcast().track("t")), "a path and a Broadcast"),
    "publish without a path": (lambda s: s.publish(moqt.Broadcast(), "a"), "a path is a text such as 'room/alice'"),
    "publish a name": (lambda s: s.publish("a", "b"), "a Broadcast"),
    "a hop": (lambda s: s.publish("a", moqt.Broadcast(), hops=["1"]), "a hop id or a cost is a whole number"),
    "a prefix": (lambda s: s.announcements(None), "a path is a text"),
    "a path of bytes": (lambda s: s.subscribe(b"a", "t"), "a path is a text"),
    "a list of parts": (lambda s: s.subscribe(["a", "b"], "t"), "a path is a text"),
    "a track": (lambda s: s.subscribe("a", moqt.Broadcast().track("t")), "a track is asked for by its name"),
    "a name of bytes": (lambda s: s.fetch("a", b"t", 0), "a track is asked for by its name"),
    "a priority": (lambda s: s.subscribe("a", "t", priority="high"), "priority is a whole number"),
    "a fraction": (lambda s: s.subscribe("a", "t", priority=1.5), "priority is a whole number"),
    "an age": (lambda s: s.subscribe("a", "t", max_age=None), "max_age is a number of seconds"),
    "a group": (lambda s: s.subscribe("a", "t", start_group="5"), "start_group is a whole number"),
    "a sequence": (lambda s: s.fetch("a", "t", None), "sequence is a whole number"),
    "a code": (lambda s: s.close("bye"), "a session's code is a whole number"),
    "a reason": (lambda s: s.close(0, b"bye"), "a session's reason is a text"),
}


@pytest.mark.parametrize("mistake", SESSION_MISTAKES)
async def test_mistakes_with_a_session(mistake):
    """A wrong type is a TypeError in the call that has it, and says what is wanted."""
    call, wanted = SESSION_MISTAKES[mistake]
    async with session_pair() as (client, _):
        with pytest.raises(TypeError, match=wanted):
            call(client)
        assert client.closed is None


PAYLOADS = ["text", None, 5, [1, 2], 1.5]


async def result_of(call, value):
    result = call(value)
    return await result if inspect.isawaitable(result) else result


@pytest.mark.parametrize("payload", PAYLOADS, ids=repr)
@pytest.mark.parametrize("way", ["send", "send_nowait", "write", "write_nowait", "send_datagram"])
async def test_payloads(way, payload):
    """What is no bytes is refused by every way to write a frame, which writes nothing; the track goes on."""
    track = moqt.Broadcast().track("t")
    async with track.open_group() as group:
        call = getattr(group if way.startswith("send") and way != "send_datagram" else track, way)
        with pytest.raises(
            TypeError, match="a payload is of bytes" + (r".*'text'\.encode\(\)" if payload == "text" else "")
        ):
            await result_of(call, payload)
        assert "0 frames" in repr(group)
    assert track.latest == 0


@pytest.mark.parametrize("payload", [b"x", bytearray(b"x"), memoryview(b"x")], ids=lambda value: type(value).__name__)
async def test_bytes_of_any_type(payload):
    """Bytes of every type are written."""
    track = moqt.Broadcast().track("t")
    async with track.open_group() as group:
        await group.send(payload)
    await track.write(payload)
    track.send_datagram(payload)


@pytest.mark.parametrize("timestamp", ["0", 1.5])
async def test_timestamps(timestamp):
    """A time in seconds is no timestamp."""
    track = moqt.Broadcast().track("t")
    with pytest.raises(TypeError, match="a timestamp, in units of the track's timescale, is a whole number"):
        await track.write(b"x", timestamp)


TRACKS = {
    "name": ({"name": b"t"}, "name is a text"),
    "priority": ({"name": "t", "priority": None}, "priority is a whole number"),
    "max_age": ({"name": "t", "max_age": "5"}, "max_age is a number of seconds"),
    "timescale": ({"name": "t", "timescale": 1000.0}, "timescale is a whole number"),
}


@pytest.mark.parametrize("what", TRACKS)
def test_tracks(what):
    """So are wrong types of a track's values."""
    values, wanted = TRACKS[what]
    with pytest.raises(TypeError, match=wanted):
        moqt.Broadcast().track(**values)


async def echo(request):
    pass


SERVERS = {
    "a dict": ([{"/": echo}], {}, r"serve\(Router\("),
    "a coroutine": ([None], {}, "async def handler"),
    "a plain function": ([plain], {}, r"write async def plain\(request\)"),
    "a plain method": ([AnyHandler().plain], {}, r"write async def plain\(request\)"),
    "a generator": ([generator], {}, "without 'yield'"),
    "an annotation": ([annotated], {}, "async function"),
    "a class": ([AnyHandler], {}, "async function"),
    "a port first": ([echo, 4443], {}, "the port comes after it"),
    "a port as text": ([echo, "localhost", "4443"], {}, "a port is a number"),
    "a file": ([echo], {"certificate": "x.pem"}, r"Certificate\.load\('cert.pem', 'key.pem'\).*CertificateFiles"),
    "files": ([echo], {"certificate": ("x.pem", "y.pem")}, r"Certificate\.load"),
    "limits": ([echo], {"limits": {"max_frame": 5}}, r"Limits\(max_frame"),
    "an app": ([echo], {"app": "module:app"}, "ASGI application"),
    "an origin": ([echo], {"origins": "https://example.org"}, "list"),
}


@pytest.mark.parametrize("what", SERVERS)
async def test_serving(what):
    """`serve` refuses what cannot serve before it binds anything."""
    arguments, named, wanted = SERVERS[what]
    with trio.fail_after(5), pytest.raises(TypeError, match=wanted):
        await moqt.serve(*arguments, **named)


def test_routers():
    """A router refuses a handler that is not async, and takes whatever may return what an async function returns."""
    handler = AnyHandler()
    moqt.Router({"/a": handler, "/b": handler.method, "/c": lambda request: echo(request), "/d": echo})
    with pytest.raises(TypeError, match=r"the handler of '/echo' is an async function; write async def plain"):
        moqt.Router({"/echo": plain})
    with pytest.raises(TypeError, match="dict of handlers"):
        moqt.Router(echo)


CLIENTS = {
    "no URL": ([None], {}, "a URL is a text"),
    "bytes": ([b"https://localhost/"], {}, "a URL is a text"),
    "limits": ([URL], {"limits": 5}, "limits are an object"),
    "a fingerprint": ([URL], {"fingerprint": 5}, "a fingerprint is 64 hexadecimal digits"),
}


@pytest.mark.parametrize("what", CLIENTS)
async def test_connecting(what):
    """So does `connect`, and `stay_connected` likewise."""
    arguments, named, wanted = CLIENTS[what]
    with pytest.raises(TypeError, match=wanted):
        async with moqt.connect(*arguments, **named):
            pass
    with pytest.raises(TypeError, match=wanted):
        await moqt.stay_connected(*arguments, echo, **named)


async def test_staying_connected():
    """A handler has to be async there, too, and the retries are a Backoff."""
    with pytest.raises(TypeError, match=r"write async def plain\(session\)"):
        await moqt.stay_connected(URL, plain)
    with pytest.raises(TypeError, match="a Backoff"):
        await moqt.stay_connected(URL, echo, retry=5)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("moq-lite-6", "moq-lite-06"), ("moq-lite-07", "moq-lite-0"), ("transfork-03", "moq-transfork-03"), ("h3", None)],
)
async def test_unknown_versions(name, nearest):
    """An unknown version names the nearest one, and lists the others best first, by the names to write."""
    with pytest.raises(ValueError, match=f"unknown version '{name}'") as caught:
        async with moqt.connect(URL, versions=[name]):
            pass
    said = str(caught.value)
    assert said.endswith("library speaks " + ", ".join(moqt.version_names(opt_in=True)))
    assert (f"did you mean '{nearest}" in said) if nearest else "did you mean" not in said


@pytest.mark.parametrize("scheme", ["https", "moqt"])
async def test_no_shared_version(scheme):
    """Two sides without a shared version: the message lists versions, and none of the protocols below them."""
    async with trio.open_nursery() as nursery:

        async def run(task_status):
            await moqt.serve(
                echo,
                "localhost",
                0,
                certificate=CERTIFICATE,
                versions=["moq-lite-02", "moq-lite-04"],
                task_status=task_status,
            )

        listener = await nursery.start(run)
        url = f"{scheme}://localhost:{listener.port}/"
        with pytest.raises(moqt.VersionUnsupported) as caught:
            async with moqt.connect(url, fingerprint=CERTIFICATE.fingerprint, versions=["moq-lite-06", "moq-lite-05"]):
                pass
        nursery.cancel_scope.cancel()
    said = str(caught.value)
    assert caught.value.offered == ("moq-lite-06", "moq-lite-05")
    assert "moq-lite-06, moq-lite-05" in said
    assert not {"h3", "moql"} & set(said.replace(",", " ").replace("(", " ").replace(")", " ").split())
    if scheme == "https":
        assert "this server speaks moq-lite-02, moq-lite-04" in said


async def test_untrusted_certificate():
    """An untrusted certificate names both remedies."""
    async with listening(echo) as listener:
        with pytest.raises(moqt.CertificateInvalid, match=r"fingerprint=.*Listener\.fingerprint.*cafile="):
            async with moqt.connect(listener.urls[0]):
                pass


async def test_unwritable_state_directory(tmp_path, monkeypatch):
    """A state directory that cannot be written names the remedies: another directory, or a certificate."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(moqt.CertificateUnusable, match=r"XDG_STATE_HOME.*serve\(certificate="):
        await moqt.serve(echo, "localhost", 0)
