"""The `moq` wheel in a process of its own, told what to do line by line, and sessions of ours with it.

The wheel shares no line with this project. `tests/peers/moq_rs_agent.py` is the other end of the string.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

import moqt_trio as moqt

if TYPE_CHECKING:
    from tests.interop.processes import Child

needs_wheel = pytest.mark.skipif(
    importlib.util.find_spec("moq") is None,
    reason="the moq-rs wheel is not installed: pip install 'moqt-trio[interop]'",
)

VERSIONS = ["moq-lite-06", "moq-lite-05", "moq-lite-04", "moq-lite-03", "moq-lite-02", "moq-lite-01"]
SCHEMES = ["https", "moqt"]
ROLES = ["client", "server"]

WAIT = 10.0
"""Seconds that the wheel has for each thing that it is waited for: far more than it needs, on a busy machine too."""
SECONDS = 20.0
"""Seconds that a session may take; longer than `WAIT`, so that what fails is what was waited for."""


def payload(group: int, frame: int) -> bytes:
    """Returns the bytes that a test puts into one frame: some frames are empty, and some span many packets."""
    size = (group * 37 + frame * frame * 2111) % 20_000
    digest = hashlib.sha256(f"{group}/{frame}".encode()).digest()
    return (digest * (size // len(digest) + 1))[:size]


def payloads(group: int, frames: int) -> list[bytes]:
    """Returns the frames of one group."""
    return [payload(group, frame) for frame in range(frames)]


class Wheel:
    """A process of the wheel's that waits to be told what to do. Only one task at a time may wait for what it says.

    Attributes:
        child: The process.
        port: Where it listens.
        fingerprint: SHA-256 of its certificate, in hexadecimal.
        spoiled: True once a test failed: what it says later may be of that test's session.
    """

    def __init__(self, child: Child) -> None:
        self.child = child
        self.spoiled = False
        self._events: list[dict[str, Any]] = []
        listening = child.wait_event("listening")
        self.port: int = listening["port"]
        self.fingerprint: str = listening["fingerprint"]

    def tell(self, do: str, **arguments: object) -> None:
        """Gives a command; what comes of it is an event."""
        self.child.tell(json.dumps({"do": do, **arguments}))

    async def wait(self, event: str, **fields: object) -> dict[str, Any]:
        """Returns the next event of this name and with these fields; the others are kept for whoever wants them."""
        wanted = {"event": event, **fields}
        tried = 0
        while True:
            for index in range(tried, len(self._events)):
                if wanted.items() <= self._events[index].items():
                    return self._events.pop(index)
            tried = len(self._events)
            line = await trio.to_thread.run_sync(self.child.wait_line, lambda line: line.startswith("{"), WAIT)
            self._events.append(json.loads(line))

    def blame(self, error: BaseException) -> None:
        """Notes on a failure what the process said last, and that it is not to be used any more."""
        self.spoiled = True
        error.add_note(self.child.output[-4000:])

    @asynccontextmanager
    async def session(self) -> AsyncIterator[WheelSession]:
        """Takes the next session that it reports, and waits at the end of the block for that one's end."""
        event = await self.wait("session")
        number = event["number"]
        yield WheelSession(self, number, event["path"])
        await self.wait("closed", number=number)
        self._events = [item for item in self._events if item.get("session") != number]


@attrs.frozen
class WheelSession:
    """The wheel's end of one session.

    Attributes:
        wheel: The process.
        number: What it calls this session.
        path: What we asked it for, where it is the server and the version says so; else empty, or None.
    """

    wheel: Wheel
    number: int
    path: str | None

    def tell(self, do: str, **arguments: object) -> None:
        """Gives a command."""
        self.wheel.tell(do, session=self.number, **arguments)

    async def wait(self, event: str, **fields: object) -> dict[str, Any]:
        """Returns the next event of this name and with these fields."""
        return await self.wheel.wait(event, session=self.number, **fields)

    def write(self, path: str, sequence: int, frames: Iterable[bytes], do: str = "write") -> None:
        """Has it write a group."""
        self.tell(do, path=path, sequence=sequence, frames=[frame.hex() for frame in frames])

    async def settle(self) -> None:
        """Waits until it has done what it was told and what takes no time: to publish, to write, to finish."""
        self.tell("settle")
        await self.wait("settled")

    async def wait_frames(self, event: str, **fields: object) -> tuple[int, list[bytes]]:
        """Returns the sequence and the frames of the next group that it read, or fetched."""
        group = await self.wait(event, **fields)
        return group["sequence"], [bytes.fromhex(frame) for frame in group["frames"]]


@attrs.frozen
class Pairing:
    """Who is connected how.

    Attributes:
        version: What both speak.
        scheme: `https` for WebTransport, `moqt` for raw QUIC.
        role: Which side of the connection is ours.
    """

    version: str
    scheme: str
    role: str

    def __str__(self) -> str:
        return f"{self.version.removeprefix('moq-')}-{self.scheme}-{self.role}"

    @property
    def number(self) -> int:
        """1 … 6 for moq-lite-01 … -06."""
        return int(self.version[-2:])

    @asynccontextmanager
    async def sessions(
        self, wheel: Wheel, on_request: Callable[[moqt.SessionRequest], object] = lambda request: None
    ) -> AsyncIterator[tuple[moqt.Session, WheelSession]]:
        """Runs a session with the wheel, and yields both its ends. It has to be alive at the end of the block.

        Args:
            wheel: The process.
            on_request: Is shown the wheel's request, where we are the server.
        """
        try:
            with trio.fail_after(SECONDS):
                async with AsyncExitStack() as stack:
                    connected = self._client(wheel) if self.role == "client" else self._server(wheel, on_request)
                    async with connected as ours:
                        assert ours.version == self.version
                        assert ours.transport == {"https": "webtransport", "moqt": "quic"}[self.scheme]
                        yield ours, await stack.enter_async_context(wheel.session())
                        assert ours.closed is None
        except BaseException as error:
            wheel.blame(error)
            raise

    @asynccontextmanager
    async def _client(self, wheel: Wheel) -> AsyncIterator[moqt.Session]:
        url = f"{self.scheme}://localhost:{wheel.port}/test"
        async with moqt.connect(url, versions=[self.version], fingerprint=wheel.fingerprint) as session:
            yield session

    @asynccontextmanager
    async def _server(
        self, wheel: Wheel, on_request: Callable[[moqt.SessionRequest], object]
    ) -> AsyncIterator[moqt.Session]:
        accepted: list[moqt.Session] = []
        ready, done = trio.Event(), trio.Event()

        async def handle(request: moqt.SessionRequest) -> None:
            on_request(request)
            async with request.accept() as session:
                accepted.append(session)
                ready.set()
                await done.wait()

        router = moqt.Router({"/test": handle, "/default": handle}, default="/default")
        async with trio.open_nursery() as nursery:
            listener = await nursery.start(partial(moqt.serve, router, port=0, versions=[self.version]))
            url = f"{self.scheme}://localhost:{listener.port}/test"
            wheel.tell("connect", url=url, fingerprint=listener.fingerprint)
            await ready.wait()
            try:
                yield accepted[0]
            finally:
                done.set()
                await listener.aclose()


async def check_session_lives(ours: moqt.Session, theirs: WheelSession) -> None:
    """Has a further broadcast of the wheel's delivered here, and one of ours there."""
    frames = payloads(9, 3)
    theirs.tell("publish", path="wheel/after", track="t")
    theirs.write("wheel/after", 9, frames)
    await theirs.settle()
    async with ours.subscribe("wheel/after", "t", max_age=60) as subscription:
        group = await anext(subscription)
        assert (group.sequence, [bytes(frame) async for frame in group]) == (9, frames)
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=60)
    async with ours.publish("our/after", broadcast):
        theirs.tell("subscribe", path="our/after", track="t", max_age=60)
        await track.wait_subscribed()
        async with track.open_group(9) as writer:
            for frame in frames:
                await writer.send(frame)
        assert await theirs.wait_frames("group", path="our/after") == (9, frames)


PAIRINGS = [Pairing(version, scheme, role) for version in VERSIONS for scheme in SCHEMES for role in ROLES]
each_pairing = pytest.mark.parametrize("pairing", PAIRINGS, ids=str)


def pairings(*numbers: int) -> pytest.MarkDecorator:
    """Parametrizes a test with the pairings of some versions, by number."""
    return pytest.mark.parametrize("pairing", [item for item in PAIRINGS if item.number in numbers], ids=str)
