"""The moq-rs package in a process of its own that takes commands line by line, and sessions of ours with it.

moq-rs shares no line with this project. `tests/peers/moq_rs_agent.py` is the process.
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

needs_moq_rs = pytest.mark.skipif(
    importlib.util.find_spec("moq") is None,
    reason="the moq-rs package is not installed: pip install 'moqt-trio[interop]'",
)

VERSIONS = ["moq-lite-06", "moq-lite-05", "moq-lite-04", "moq-lite-03", "moq-lite-02", "moq-lite-01"]
SCHEMES = ["https", "moqt"]
ROLES = ["client", "server"]

WAIT = 10.0
"""Seconds that moq-rs has for each event: far more than it needs, on a busy machine too."""
SECONDS = 20.0
"""Seconds that a session may take; longer than `WAIT`, so that the event that is missing fails first."""


def payload(group: int, frame: int) -> bytes:
    """Returns the bytes that a test puts into one frame: some frames are empty, and some span many packets."""
    size = (group * 37 + frame * frame * 2111) % 20_000
    digest = hashlib.sha256(f"{group}/{frame}".encode()).digest()
    return (digest * (size // len(digest) + 1))[:size]


def payloads(group: int, frames: int) -> list[bytes]:
    """Returns the frames of one group."""
    return [payload(group, frame) for frame in range(frames)]


class MoqRs:
    """A process of moq-rs that waits for commands. Only one task at a time may wait for its events.

    Attributes:
        child: The process.
        port: Where it listens.
        fingerprint: SHA-256 of its certificate, in hexadecimal.
        failed: True once a test failed: its later events may be of that test's session.
    """

    def __init__(self, child: Child) -> None:
        self.child = child
        self.failed = False
        self._events: list[dict[str, Any]] = []
        listening = child.wait_event("listening")
        self.port: int = listening["port"]
        self.fingerprint: str = listening["fingerprint"]

    def tell(self, do: str, **arguments: object) -> None:
        """Sends a command; its result is an event."""
        self.child.tell(json.dumps({"do": do, **arguments}))

    async def wait(self, event: str, **fields: object) -> dict[str, Any]:
        """Returns the next event of this name and with these fields; other events are kept for later calls."""
        wanted = {"event": event, **fields}
        tried = 0
        while True:
            for index in range(tried, len(self._events)):
                if wanted.items() <= self._events[index].items():
                    return self._events.pop(index)
            tried = len(self._events)
            line = await trio.to_thread.run_sync(self.child.wait_line, lambda line: line.startswith("{"), WAIT)
            self._events.append(json.loads(line))

    def add_output_to(self, error: BaseException) -> None:
        """Adds the end of the process's output to an exception, and marks the process as not to be used any more."""
        self.failed = True
        error.add_note(self.child.output[-4000:])

    @asynccontextmanager
    async def session(self) -> AsyncIterator[MoqRsSession]:
        """Yields the next session that it reports, and waits for the end of that session at the end of the block."""
        event = await self.wait("session")
        number = event["number"]
        yield MoqRsSession(self, number, event["path"])
        await self.wait("closed", number=number)
        self._events = [item for item in self._events if item.get("session") != number]

    @asynccontextmanager
    async def joined(self, url: str, fingerprint: str) -> AsyncIterator[MoqRsSession]:
        """Yields a session that it opens with a server, which may last longer than the block."""
        self.tell("connect", url=url, fingerprint=fingerprint)
        event = await self.wait("session")
        yield MoqRsSession(self, event["number"], event["path"])

    @asynccontextmanager
    async def reporting(self) -> AsyncIterator[None]:
        """Bounds the block, and adds what the process has printed to its failure."""
        try:
            with trio.fail_after(SECONDS):
                yield
        except BaseException as error:
            self.add_output_to(error)
            raise


@attrs.frozen
class MoqRsSession:
    """moq-rs's end of one session.

    Attributes:
        moq_rs: The process.
        number: Its number for this session.
        path: The path that we asked for, where it is the server and the version has a path; else empty, or None.
    """

    moq_rs: MoqRs
    number: int
    path: str | None

    def tell(self, do: str, **arguments: object) -> None:
        """Sends a command."""
        self.moq_rs.tell(do, session=self.number, **arguments)

    async def wait(self, event: str, **fields: object) -> dict[str, Any]:
        """Returns the next event of this name and with these fields."""
        return await self.moq_rs.wait(event, session=self.number, **fields)

    def write(self, path: str, sequence: int, frames: Iterable[bytes], do: str = "write") -> None:
        """Sends the command to write a group."""
        self.tell(do, path=path, sequence=sequence, frames=[frame.hex() for frame in frames])

    async def settle(self) -> None:
        """Waits until it has done the commands before this one that take no time: publish, write, finish."""
        self.tell("settle")
        await self.wait("settled")

    async def wait_frames(self, event: str, **fields: object) -> tuple[int, list[bytes]]:
        """Returns the sequence and the frames of the next group that it read, or fetched."""
        group = await self.wait(event, **fields)
        return group["sequence"], [bytes.fromhex(frame) for frame in group["frames"]]


@attrs.frozen
class Pairing:
    """How the two sides are connected.

    Attributes:
        version: The version that both speak.
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
        self,
        moq_rs: MoqRs,
        on_request: Callable[[moqt.SessionRequest], object] = lambda request: None,
        *,
        view: moqt.OriginView | None = None,
    ) -> AsyncIterator[tuple[moqt.Session, MoqRsSession]]:
        """Runs a session with moq-rs, and yields both its ends. It has to be open at the end of the block.

        Args:
            moq_rs: The process.
            on_request: Called with moq-rs's request, where we are the server.
            view: What our session shares with others.
        """
        try:
            with trio.fail_after(SECONDS):
                async with AsyncExitStack() as stack:
                    connected = (
                        self._client(moq_rs, view) if self.role == "client" else self._server(moq_rs, on_request, view)
                    )
                    async with connected as ours:
                        assert ours.version == self.version
                        assert ours.transport == {"https": "webtransport", "moqt": "quic"}[self.scheme]
                        yield ours, await stack.enter_async_context(moq_rs.session())
                        assert ours.closed is None
        except BaseException as error:
            moq_rs.add_output_to(error)
            raise

    @asynccontextmanager
    async def _client(self, moq_rs: MoqRs, view: moqt.OriginView | None) -> AsyncIterator[moqt.Session]:
        url = f"{self.scheme}://localhost:{moq_rs.port}/test"
        async with moqt.connect(url, versions=[self.version], fingerprint=moq_rs.fingerprint, view=view) as session:
            yield session

    @asynccontextmanager
    async def _server(
        self, moq_rs: MoqRs, on_request: Callable[[moqt.SessionRequest], object], view: moqt.OriginView | None
    ) -> AsyncIterator[moqt.Session]:
        accepted: list[moqt.Session] = []
        ready, done = trio.Event(), trio.Event()

        async def handle(request: moqt.SessionRequest) -> None:
            on_request(request)
            async with request.accept(view=view) as session:
                accepted.append(session)
                ready.set()
                await done.wait()

        router = moqt.Router({"/test": handle, "/default": handle}, default="/default")
        async with trio.open_nursery() as nursery:
            listener = await nursery.start(partial(moqt.serve, router, port=0, versions=[self.version]))
            url = f"{self.scheme}://localhost:{listener.port}/test"
            moq_rs.tell("connect", url=url, fingerprint=listener.fingerprint)
            await ready.wait()
            try:
                yield accepted[0]
            finally:
                done.set()
                await listener.aclose()


PASSED_ON = {group: payloads(group, 4) for group in range(5)}
"""What a publisher of moq-rs writes for a viewer of moq-rs."""


async def check_passed_on(publisher: MoqRsSession, viewer: MoqRsSession) -> None:
    """Checks that what one has published is announced to the other, and arrives as it is written."""
    assert (await viewer.wait("announced", active=True))["path"] == "theirs/out"
    viewer.tell("subscribe", path="theirs/out", track="bytes", max_age=60)
    publisher.tell("demand", path="theirs/out", wanted=True)
    await publisher.wait("used")
    # A relay may ask for the track before the viewer has begun with its newest group.
    publisher.write("theirs/out", 0, PASSED_ON[0])
    received = dict([await viewer.wait_frames("group")])
    for sequence in range(1, len(PASSED_ON)):
        publisher.write("theirs/out", sequence, PASSED_ON[sequence])
    received |= dict([await viewer.wait_frames("group") for _ in range(1, len(PASSED_ON))])
    assert received == PASSED_ON


async def check_session_lives(ours: moqt.Session, theirs: MoqRsSession) -> None:
    """Checks that a further broadcast is delivered in each direction."""
    frames = payloads(9, 3)
    theirs.tell("publish", path="theirs/after", track="t")
    theirs.write("theirs/after", 9, frames)
    await theirs.settle()
    async with ours.subscribe("theirs/after", "t", max_age=60) as subscription:
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
