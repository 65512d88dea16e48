"""The baseline: aioquic driven by Trio with every technique that made it faster, and no line of moqt_trio.

One socket and one connection on either side. A task reads the socket, up to 64 datagrams each time it wakes. Another
sleeps until it is woken or until the engine's timer is due, and writes what the engine has to send, once in each step
of the event loop. Applications are tasks that write to streams and wait for room. Private names of aioquic are used
freely.
"""

from __future__ import annotations

import datetime
import math
import os
import socket
import ssl
import time
from collections.abc import Callable

import trio
from aioquic.buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent, StreamDataReceived
from aioquic.quic.packet import pull_quic_header
from aioquic.quic.recovery import QuicPacketPacer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from .workloads import (
    BULK_FRAME_BYTES,
    BULK_FRAMES_PER_GROUP,
    HIGH_WATER_BYTES,
    LOW_OPEN_STREAMS,
    LOW_WATER_BYTES,
    MAX_OPEN_STREAMS,
    SMALL_FRAME_BYTES,
    SMALL_FRAMES_PER_GROUP,
    Window,
    child_arguments,
    round_trip_report,
    say,
    until_stdin_ends,
)

ALPN = "bench"
SOCKET_BUFFER_BYTES = 4 * 1024 * 1024
DATAGRAMS_PER_WAKE = 64


class BurstPacer(QuicPacketPacer):
    """A pacer whose bucket holds 2 ms of sending: the stock one holds 16 packets, less than one step of the loop."""

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        super().update_rate(congestion_window, smoothed_rtt)
        self.bucket_max = max(self.bucket_max, 0.002)


def tune(quic: QuicConnection) -> QuicConnection:
    """Return the connection, with the pacer above."""
    quic._loss._pacer = BurstPacer(max_datagram_size=quic._max_datagram_size)
    return quic


def server_configuration() -> QuicConfiguration:
    """Return a server's configuration with a certificate made for this run."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return QuicConfiguration(is_client=False, alpn_protocols=[ALPN], certificate=certificate, private_key=key)


def client_configuration(alpn: str = ALPN) -> QuicConfiguration:
    """Return a client's configuration. It accepts any certificate: both ends are of this program, on loopback."""
    return QuicConfiguration(is_client=True, alpn_protocols=[alpn], server_name="localhost", verify_mode=ssl.CERT_NONE)


def open_socket(port: int) -> socket.socket:
    """Return a UDP socket on loopback with large buffers."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    sock.bind(("127.0.0.1", port))
    return sock


class Driver:
    """One connection over one socket.

    Args:
        sock: A bound socket.
        quic: The client's connection; None on a server, which makes one when a client's first packet comes.
    """

    def __init__(self, sock: socket.socket, quic: QuicConnection | None = None) -> None:
        self.sock = sock
        self._quic = quic
        self.connected = trio.Event()
        self.closed = trio.Event()
        self.bytes_received = 0
        self.streams_ended = 0
        self.on_stream_end: Callable[[], None] | None = None
        self._parked: trio.lowlevel.Task | None = None
        self._dirty = False
        self._scope = trio.CancelScope()
        self._room: tuple[Callable[[], bool], trio.Event] | None = None

    @property
    def quic(self) -> QuicConnection:
        assert self._quic is not None
        return self._quic

    async def read_socket(self, configuration: QuicConfiguration | None = None) -> None:
        """Read until the connection is over."""
        receive = self.sock.recvfrom
        while not self.closed.is_set():
            await trio.lowlevel.wait_readable(self.sock)
            now = trio.current_time()
            for _ in range(DATAGRAMS_PER_WAKE):
                try:
                    data, address = receive(65536)
                except BlockingIOError:
                    break
                if self._quic is None:
                    if configuration is None:
                        continue
                    header = pull_quic_header(Buffer(data=data), host_cid_length=configuration.connection_id_length)
                    self._quic = tune(
                        QuicConnection(
                            configuration=configuration, original_destination_connection_id=header.destination_cid
                        )
                    )
                self._quic.receive_datagram(data, address, now)
            if self._quic is not None:
                self._take_events()
                self.wake()

    def _take_events(self) -> None:
        quic = self.quic
        while (event := quic.next_event()) is not None:
            self.handle(event)

    def handle(self, event: QuicEvent) -> None:
        """Called for each event of the engine."""
        if isinstance(event, StreamDataReceived):
            self.bytes_received += len(event.data)
            if event.end_stream:
                self.streams_ended += 1
                if self.on_stream_end is not None:
                    self.on_stream_end()
        elif isinstance(event, HandshakeCompleted):
            self.connected.set()
        elif isinstance(event, ConnectionTerminated):
            self.closed.set()

    def wake(self) -> None:
        """Let the writing task send the engine's output in its next step."""
        if self._parked is None:
            self._dirty = True
        else:
            trio.lowlevel.reschedule(self._parked)
            self._parked = None

    async def write_socket(self) -> None:
        """Send what the engine has, and keep its timer, until the connection is over."""
        while not self.closed.is_set():
            timer = self._quic.get_timer() if self._quic is not None else None
            with trio.CancelScope(deadline=math.inf if timer is None else timer) as self._scope:
                while not self.closed.is_set():
                    await self._park()
                    self._flush()
            if self._scope.cancelled_caught and self._quic is not None:
                now = trio.current_time()
                timer = self._quic.get_timer()
                if timer is not None and timer <= now:
                    self._quic.handle_timer(now)
                    self._take_events()
                self._flush()

    async def _park(self) -> None:
        if self._dirty:
            self._dirty = False
            await trio.lowlevel.checkpoint()
            return

        def abort(_: Callable[[], None]) -> trio.lowlevel.Abort:
            self._parked = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._parked = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def _flush(self) -> None:
        quic = self.quic
        send = self.sock.sendto
        try:
            for data, address in quic.datagrams_to_send(trio.current_time()):
                send(data, address)
        except BlockingIOError:
            pass
        timer = quic.get_timer()
        if timer is not None and timer < self._scope.deadline:
            self._scope.deadline = timer
        # Checked after the flush, because aioquic forgets finished streams there.
        if self._room is not None and self._room[0]():
            self._room[1].set()
            self._room = None

    async def wait_room(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready` returns True; it is called after every flush."""
        self.wake()
        event = trio.Event()
        self._room = (ready, event)
        await event.wait()

    def send_stream(self, data: bytes) -> int:
        """Send a unidirectional stream of these bytes, and return its id."""
        stream_id = self.quic.get_next_available_stream_id(is_unidirectional=True)
        self.quic.send_stream_data(stream_id, data, end_stream=True)
        self.wake()
        return stream_id


async def publish_streams(driver: Driver, frame: bytes, frames_per_stream: int) -> None:
    """Write streams of several frames for as long as the connection lives, pausing only where there is no room."""
    quic = driver.quic
    streams = quic._streams

    def queued() -> int:
        return sum(len(stream.sender._buffer) for stream in streams.values())

    def room() -> bool:
        return len(streams) <= LOW_OPEN_STREAMS and queued() <= LOW_WATER_BYTES

    while True:
        if len(streams) >= MAX_OPEN_STREAMS or queued() >= HIGH_WATER_BYTES:
            await driver.wait_room(room)
        stream_id = quic.get_next_available_stream_id(is_unidirectional=True)
        written = 0
        for index in range(frames_per_stream):
            quic.send_stream_data(stream_id, frame, end_stream=index == frames_per_stream - 1)
            written += len(frame)
            if written >= LOW_WATER_BYTES:
                written = 0
                if queued() >= HIGH_WATER_BYTES:
                    await driver.wait_room(room)


async def answer_pings(driver: Driver, frame: bytes) -> None:
    """Answer every stream with a stream, from a task of its own."""
    answered = 0
    while True:
        arrived = trio.Event()
        driver.on_stream_end = arrived.set
        if answered == driver.streams_ended:
            await arrived.wait()
        while answered < driver.streams_ended:
            answered += 1
            driver.send_stream(frame)


async def publish(workload: str) -> None:
    """Serve one connection."""
    sock = open_socket(0)
    driver = Driver(sock)
    with sock:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(driver.read_socket, server_configuration())
            nursery.start_soon(driver.write_socket)
            say(port=sock.getsockname()[1], fingerprint="")

            async def application() -> None:
                await driver.connected.wait()
                if workload == "bulk":
                    await publish_streams(driver, os.urandom(BULK_FRAME_BYTES), BULK_FRAMES_PER_GROUP)
                elif workload == "groups":
                    await publish_streams(driver, os.urandom(SMALL_FRAME_BYTES), 1)
                elif workload == "frames":
                    await publish_streams(driver, os.urandom(SMALL_FRAME_BYTES), SMALL_FRAMES_PER_GROUP)
                else:
                    await answer_pings(driver, os.urandom(SMALL_FRAME_BYTES))

            nursery.start_soon(application)
            await until_stdin_ends()
            nursery.cancel_scope.cancel()


async def ping(driver: Driver, window: Window) -> dict[str, float]:
    """Return the times of round trips, one after the other."""
    frame = os.urandom(SMALL_FRAME_BYTES)
    seconds: list[float] = []
    start = time.perf_counter()
    while (sent := time.perf_counter()) < start + window.warmup + window.duration:
        answered = trio.Event()
        driver.on_stream_end = answered.set
        driver.send_stream(frame)
        await answered.wait()
        if sent > start + window.warmup:
            seconds.append(time.perf_counter() - sent)
    return round_trip_report(seconds)


async def subscribe(workload: str, port: int, window: Window) -> dict[str, float]:
    """Connect, count, and return the figures."""
    sock = open_socket(0)
    quic = tune(QuicConnection(configuration=client_configuration()))
    driver = Driver(sock, quic)
    with sock:
        async with trio.open_nursery() as nursery:
            quic.connect(("127.0.0.1", port), trio.current_time())
            nursery.start_soon(driver.read_socket)
            nursery.start_soon(driver.write_socket)
            driver.wake()
            await driver.connected.wait()
            if workload == "pingpong":
                result = await ping(driver, window)
            elif workload == "bulk":
                result = {"value": await window.rate(lambda: driver.bytes_received) * 8 / 1e6}
            elif workload == "groups":
                result = {"value": await window.rate(lambda: driver.streams_ended)}
            else:
                result = {"value": await window.rate(lambda: driver.bytes_received) / SMALL_FRAME_BYTES}
            nursery.cancel_scope.cancel()
    return result


def main() -> None:
    """Run one side of one workload."""
    arguments = child_arguments("One side of one workload on aioquic alone.")
    if arguments.role == "publish":
        trio.run(publish, arguments.workload)
    else:
        window = Window(arguments.warmup, arguments.duration)
        say(**trio.run(subscribe, arguments.workload, arguments.port, window))


if __name__ == "__main__":
    main()
