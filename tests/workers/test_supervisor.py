"""The life of workers: starting, dying and coming back, ending; and what a program is told."""

from __future__ import annotations

import os
import platform
import signal
import socket
import ssl
import sys
import threading
import time
from contextlib import AsyncExitStack

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.workers import supervisor
from tests.interop.processes import ChildFailed
from tests.machine import seconds
from tests.workers.clients import LINUX, SCHEMES, ask, program, workers


async def nothing(worker):
    """A main function that is never called."""


def ended(child, within=20.0):
    """Returns the exit code and the lines of standard error of a program that ends by itself."""
    return child.wait_ended(seconds(within)), child.errors


def is_free(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# -- arguments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, -1, 257, 10**9])
def test_a_count_out_of_range(count):
    """The message says which numbers are allowed, and which it was."""
    with pytest.raises(ValueError, match=f"count is a number of workers from 1 to 256, not {count}"):
        moqt.run_workers(count, nothing)


@pytest.mark.parametrize("count", ["3", None, 2.0])
def test_a_count_that_is_no_number(count):
    """The message says what is wanted."""
    with pytest.raises(TypeError, match="count is a whole number, not"):
        moqt.run_workers(count, nothing)


def test_other_arguments():
    """Each is checked before anything is bound."""
    with pytest.raises(TypeError, match=r"the main function is an async function, 'async def handler\(worker\)"):
        moqt.run_workers(2, None)
    with pytest.raises(ValueError, match="a port is a number from 0 to 65535, not 65536"):
        moqt.run_workers(2, nothing, None, 65536)
    with pytest.raises(TypeError, match="a host is a name or an address"):
        moqt.run_workers(2, nothing, 4443)
    with pytest.raises(TypeError, match="grace is a number of seconds"):
        moqt.run_workers(2, nothing, grace="5")
    with pytest.raises(ValueError, match="SIGINT, SIGKILL cannot be passed on"):
        moqt.run_workers(2, nothing, pass_on=[signal.SIGKILL, signal.SIGINT])


@pytest.mark.skipif(sys.platform == "linux", reason="this system has it")
def test_another_system():
    """The message names the system and the remedy."""
    with pytest.raises(RuntimeError, match=rf"need Linux.*this is {platform.system()}: serve from one process"):
        moqt.run_workers(2, nothing)


def test_another_system_as_it_says(monkeypatch):
    """The message names the system and the remedy, on this one as if it could not steer."""
    monkeypatch.setattr(supervisor, "can_steer", lambda: False)
    with pytest.raises(RuntimeError, match=rf"need Linux.*this is {platform.system()}: serve from one process"):
        moqt.run_workers(2, nothing)


@LINUX
async def test_within_trio():
    """It says that it takes the place of trio.run."""
    with pytest.raises(RuntimeError, match=r"call it in place of trio.run\(main\)"):
        moqt.run_workers(2, nothing)


@LINUX
def test_in_a_thread():
    """It says that it needs the main thread."""
    raised = []

    def call():
        try:
            moqt.run_workers(2, nothing)
        except RuntimeError as error:
            raised.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert raised == ["run_workers handles signals: call it in the main thread"]


@LINUX
async def test_what_serve_is_given_beside_a_worker():
    """Another host or port than the worker's is a mistake, and so is what is no worker."""
    worker = moqt.Worker(0, 1, host="127.0.0.1", port=4444, sockets=[], reset_key=bytes(32))
    with pytest.raises(ValueError, match="leave host and port out"):
        await moqt.serve(nothing, "127.0.0.1", 4445, worker=worker)
    with pytest.raises(TypeError, match="worker is what run_workers hands to each process"):
        await moqt.serve(nothing, worker=0)
    with pytest.raises(ValueError, match="it was not made by run_workers"):
        await moqt.link_workers(worker, moqt.Origin())


# -- starting ----------------------------------------------------------------------------------------------


@LINUX
@pytest.mark.parametrize("count", [1, 2, (os.cpu_count() or 1) + 2])
async def test_any_number(tmp_path, count):
    """One worker, two, and more than there are cores: each serves, and SIGTERM ends all with exit code 0."""
    with workers(tmp_path, count) as served:
        with trio.fail_after(seconds(60)):
            found = set()
            while len(found) < count:
                async with served.connect("moqt") as session:
                    found.add((await ask(session)).pid)
        assert found == set(served.pids.values())
        served.child.send_signal(signal.SIGTERM)
        assert ended(served.child) == (0, [])
        assert served.child.lines[-1] == '{"event": "ended", "by": "SIGTERM"}'
        assert is_free(served.port)


@LINUX
def test_a_port_in_use(tmp_path):
    """Of another program, and of the same program once more: one line, exit code 1, and the first one goes on."""
    with workers(tmp_path, 2) as served:
        with program(tmp_path, count=2, port=served.port) as second:
            code, errors = ended(second)
        wanted = f"cannot listen on 127.0.0.1:{served.port} (UDP): Address already in use"
        assert (code, errors) == (1, [f"OSError: [Errno 98] {wanted}"])
        served.child.send_signal(signal.SIGTERM)
        assert ended(served.child) == (0, [])


@LINUX
def test_a_tcp_port_in_use(tmp_path):
    """Worker 0 cannot serve TCP: one line that says so, and exit code 1."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with program(tmp_path, port=port, app=True) as child:
            code, errors = ended(child)
    wanted = f"[Errno 98] cannot listen on 127.0.0.1:{port} (TCP): Address already in use"
    assert (code, errors) == (1, [f"WorkerFailed: worker 0 could not start: {wanted}"])


@LINUX
def test_a_worker_that_cannot_start(tmp_path):
    """What an OSError says is the one line; a bug has its traceback, too, and is as final."""
    with program(tmp_path, fails="start") as child:
        assert ended(child) == (1, ["WorkerFailed: worker 0 could not start: the disk is gone"])
    with program(tmp_path, fails="bug") as child:
        code, errors = ended(child)
    assert code == 1
    assert errors[-1] == "WorkerFailed: worker 0 could not start: TypeError: a bug"
    assert errors.count("TypeError: a bug") == 1


@LINUX
def test_a_worker_that_keeps_dying(tmp_path):
    """It is started again five times at most, later each time, and then all end with a line that says why."""
    began = time.monotonic()
    with program(tmp_path, count=1, fails="later") as child:
        code, errors = ended(child, 40)
    assert code == 1
    wanted = "worker 0 ended 5 times in a row within 10 seconds of its start; the last time it ended with exit code 1"
    assert errors[-1] == f"WorkerFailed: {wanted}: ValueError: it breaks when it serves"
    assert len([line for line in child.lines if '"serving"' in line]) == 5
    assert time.monotonic() - began >= 3.5


@LINUX
def test_a_main_function_that_returns(tmp_path):
    """When it returns in one worker, all end, with exit code 0 and no signal."""
    with program(tmp_path, fails="returns") as child:
        assert ended(child) == (0, [])
        assert child.lines[-1] == '{"event": "ended", "by": null}'


# -- dying -------------------------------------------------------------------------------------------------


@LINUX
@SCHEMES
async def test_a_worker_that_is_killed(tmp_path, scheme):
    """It comes back on its socket. Its clients get an error and reconnect; those of the others notice nothing."""
    with workers(tmp_path) as served, trio.fail_after(seconds(60)):
        async with AsyncExitStack() as stack:
            sessions: dict[int, moqt.Session] = {}
            while len(sessions) < 3:
                session = await stack.enter_async_context(served.connect(scheme))
                sessions.setdefault((await ask(session)).index, session)
            before = dict(served.pids)
            os.kill(before[1], signal.SIGKILL)
            assert await trio.to_thread.run_sync(served.wait_serving) == 1
            # The client's next packet is answered by the worker that took the place.
            with pytest.raises(moqt.SessionClosed, match="no longer knows the connection"):
                await ask(sessions[1])
            for index in (0, 2):
                assert (await ask(sessions[index])).pid == before[index]
            found = set()
            while len(found) < 3:
                async with served.connect(scheme) as session:
                    found.add((await ask(session))[:2])
            assert found == set(served.pids.items())
            assert served.pids[1] != before[1]
        assert served.child.errors == ["worker 1 was killed by SIGKILL; it is started again"]


@LINUX
async def test_a_worker_that_gets_sigterm(tmp_path):
    """It ends cleanly and is started again; the program goes on."""
    with workers(tmp_path, 2) as served:
        before = served.pids[1]
        os.kill(before, signal.SIGTERM)
        assert await trio.to_thread.run_sync(served.wait_serving) == 1
        assert served.pids[1] != before
        assert served.child.errors == ["worker 1 was asked to end; it is started again"]
        served.child.send_signal(signal.SIGTERM)
        assert await trio.to_thread.run_sync(served.child.wait_ended) == 0


@LINUX
async def test_a_parent_that_is_killed(tmp_path):
    """Its workers end by themselves, and the port is free again."""
    with workers(tmp_path) as served:
        served.child.send_signal(signal.SIGKILL)
        with trio.fail_after(seconds(20)):
            while any(map(exists, served.pids.values())) or not is_free(served.port):  # noqa: ASYNC110 - other processes
                await trio.sleep(0.02)


# -- ending ------------------------------------------------------------------------------------------------


@LINUX
@SCHEMES
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
async def test_the_end(tmp_path, scheme, number):
    """Clients get a GOAWAY and have the grace; then their sessions are closed. Exit code 0, and no traceback."""
    with workers(tmp_path, grace=1.0) as served, trio.fail_after(seconds(30)):
        async with served.connect(scheme) as session:
            await ask(session)
            # Of a terminal, Ctrl-C goes to the workers too.
            for pid in served.pids.values() if number is signal.SIGINT else ():
                os.kill(pid, number)
            served.child.send_signal(number)
            began = trio.current_time()
            await session.wait_goaway()
            closed = await session.wait_closed()
            assert closed is None or closed.by_peer
            assert trio.current_time() - began >= 0.5
        assert await trio.to_thread.run_sync(served.child.wait_ended) == 0
        assert served.child.errors == []
        assert served.child.lines[-1] == f'{{"event": "ended", "by": "{number.name}"}}'
        assert not any(map(exists, served.pids.values()))


@LINUX
async def test_a_second_ctrl_c(tmp_path):
    """The grace ends at once."""
    with workers(tmp_path, grace=300.0) as served, trio.fail_after(seconds(30)):
        async with served.connect("moqt") as session:
            await ask(session)
            served.child.send_signal(signal.SIGINT)
            await session.wait_goaway()
            served.child.send_signal(signal.SIGINT)
            await session.wait_closed()
        assert await trio.to_thread.run_sync(served.child.wait_ended) == 0
        assert served.child.errors == []


@LINUX
def test_signals_that_are_passed_on(tmp_path):
    """Each worker gets it; one whose main function does not receive it any more ignores it."""
    with workers(tmp_path, pass_on=["SIGUSR1"]) as served:
        # The receivers are set up right after the listener.
        told = set()
        deadline = time.monotonic() + seconds(20)
        while len(told) < 3 and time.monotonic() < deadline:
            served.child.send_signal(signal.SIGUSR1)
            try:
                told.add(served.child.wait_event("passed", timeout=0.5)["index"])
            except ChildFailed:
                continue
        assert told == {0, 1, 2}
        served.child.send_signal(signal.SIGUSR1)
        served.child.send_signal(signal.SIGTERM)
        assert ended(served.child) == (0, [])


# -- TCP ---------------------------------------------------------------------------------------------------


@LINUX
async def test_tcp(tmp_path):
    """Worker 0 alone serves TCP, also after it was killed; HTTP/3 is served by every worker."""
    with workers(tmp_path, app=True) as served, trio.fail_after(seconds(30)):
        for _ in range(4):
            assert await get(served.port) == b"0"
        os.kill(served.pids[0], signal.SIGKILL)
        assert await trio.to_thread.run_sync(served.wait_serving) == 0
        assert await get(served.port) == b"0"


async def get(port):
    """Returns the body of an HTTPS answer."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", port, ssl_context=context, https_compatible=True)
    async with stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        received = b"".join([part async for part in stream])
    return received.rpartition(b"\r\n\r\n")[2].split(b"\r\n")[-1] or received.split(b"\r\n")[-4]
