"""The echo server as a program: what it prints, how it ends, and how it fails."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time

import pytest

import moqt_trio as moqt
from tests.apps.echo.programs import SCHEMES, outcome, run_client, running_client, running_server
from tests.interop.processes import ROOT, Child

ENDLESS = ["--count", "100000", "--interval", "0.05"]
SIGNALS = [signal.SIGINT, signal.SIGTERM]


def test_announces_itself():
    """It prints the URL of each transport, its certificate's fingerprint and where its page is, and nothing else until
    it is stopped."""
    with running_server("--host", "127.0.0.1") as server:
        assert server.process.lines == [
            f"listening on https://127.0.0.1:{server.port}/echo",
            f"listening on moqt://127.0.0.1:{server.port}/echo",
            f"fingerprint sha256 {server.fingerprint}",
            f"page for browsers https://127.0.0.1:{server.port}/",
        ]
        assert bytes.fromhex(server.fingerprint) in moqt.DevelopmentCertificates().fingerprints()


@pytest.mark.parametrize("number", SIGNALS)
def test_stops_without_clients(number):
    """A signal ends an idle server at once, with 0."""
    with running_server() as server:
        began = time.monotonic()
        server.process.send_signal(number)
        result = outcome(server.process)
    assert time.monotonic() - began < 3.0
    assert (result.code, result.errors) == (0, [])
    assert result.lines[4:] == ["shutting down; clients have 5 s to leave"]


@pytest.mark.parametrize("number", SIGNALS)
def test_stops_with_clients(number):
    """A signal makes the server ask its clients to leave: what they sent comes back, they say why they stopped, and
    the server exits with 0 without waiting for the whole grace."""
    with running_server() as server:
        clients = [running_client("--url", url, *ENDLESS) for url in server.urls.values()]
        with clients[0] as web, clients[1] as raw:
            for client in (web, raw):
                client.wait_line(lambda line: line.startswith("2: hello 2"))
            began = time.monotonic()
            server.process.send_signal(number)
            result = outcome(server.process)
            assert time.monotonic() - began < 4.0
            assert (result.code, result.errors) == (0, [])
            for client in (web, raw):
                ended = outcome(client)
                assert ended.code == 1
                (line,) = ended.errors
                stopped = re.fullmatch(r"echo client: the server is shutting down; stopped after (\d+) messages", line)
                assert stopped is not None, line
                assert ended.summary.startswith(f"sent {stopped[1]}, echoed {stopped[1]}, lost 0, ")


def test_stops_with_clients_that_cannot_be_asked():
    """Where the version has no GOAWAY the session is closed instead, and both sides end in an orderly way."""
    with running_server("--versions", "moq-lite-03", "--log-level", "info") as server:
        clients = [running_client("--url", url, *ENDLESS) for url in server.urls.values()]
        with clients[0] as web, clients[1] as raw:
            for client in (web, raw):
                client.wait_line(lambda line: line.startswith("2: hello 2"))
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            result = outcome(server.process)
            assert time.monotonic() - began < 4.0
            assert result.code == 0
            assert not [line for line in result.errors if re.search(" (ERROR|WARNING) ", line)]
            for client in (web, raw):
                ended = outcome(client)
                assert ended.code == 1
                (line,) = ended.errors
                assert re.match("echo client: the (session was closed by the peer|server ended the echo)", line)


def test_second_signal():
    """A client that does not leave is waited for, but a second signal ends that at once, still with 0."""
    with running_server() as server, running_client("--url", server.urls["moqt"], *ENDLESS) as client:
        client.wait_line(lambda line: line.startswith("2: hello 2"))
        client.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            server.process.send_signal(signal.SIGINT)
            server.process.wait_line(lambda line: line.startswith("shutting down"))
            server.process.send_signal(signal.SIGINT)
            result = outcome(server.process)
            assert time.monotonic() - began < 4.0
        finally:
            client.send_signal(signal.SIGCONT)
    assert (result.code, result.errors) == (0, [])


def test_versions_and_log():
    """It speaks the versions it was given, and its log at the level `info` says who came, with what, over what."""
    with running_server("--versions", "moq-lite-04,moq-lite-05", "--log-level", "info") as server:
        for scheme in SCHEMES:
            with running_client("--url", server.urls[scheme], "--count", "1") as client:
                result = outcome(client)
                assert result.code == 0
                assert re.search(r": moq-lite-0[45] over ", result.lines[0])
        server.process.send_signal(signal.SIGTERM)
        log = "\n".join(outcome(server.process).errors)
    assert re.search(r"INFO apps\.echo\.server: session moq-lite-0[45] over webtransport from \('", log)
    assert re.search(r"INFO apps\.echo\.server: session moq-lite-0[45] over quic from \('", log)


def test_certificate_files_are_read_again(tmp_path):
    """SIGHUP makes it use the certificate that its files have now; files that cannot be used change nothing."""
    first, second = (moqt.development_certificate(["localhost"]) for _ in range(2))
    paths = [tmp_path / name for name in ("server.crt", "server.key")]

    def write(certificate):
        paths[0].write_bytes(certificate.certificate_pem())
        paths[1].write_bytes(certificate.private_key_pem())

    def is_used(certificate):
        pin = certificate.fingerprint.hex()
        return run_client("--url", server.urls["moqt"], "--count", "1", "--fingerprint", pin).code == 0

    write(first)
    with running_server("--cert", str(paths[0]), "--key", str(paths[1])) as server:
        assert is_used(first)
        write(second)
        server.process.send_signal(signal.SIGHUP)
        assert is_used(second)
        paths[0].write_text("hello")
        server.process.send_signal(signal.SIGHUP)
        assert is_used(second)
        server.process.send_signal(signal.SIGTERM)
        (line,) = outcome(server.process).errors
    assert f"ERROR apps.echo.server: the certificate stays as it was: {paths[0]} holds no certificate in PEM" in line


def test_hangup_without_certificate_files():
    """SIGHUP does not end a server that was given no certificate files either."""
    with running_server() as server:
        server.process.send_signal(signal.SIGHUP)
        assert run_client("--url", server.urls["moqt"], "--count", "1").code == 0
        server.process.send_signal(signal.SIGTERM)
        assert outcome(server.process).code == 0


def test_port_in_use():
    """A port that is taken ends a second server with 1 and one line that says what to do; the first one goes on."""
    with running_server() as server:
        command = [sys.executable, "-m", "apps.echo.server", "--port", server.port]
        second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=20)
        assert (second.returncode, second.stdout) == (1, "")
        assert re.fullmatch(
            rf"echo server: cannot listen on \S+:{server.port} \(TCP\): Address already in use; "
            r"choose another port with --port, or let --port 0 pick one\n",
            second.stderr,
        )
        with running_client("--url", server.urls["moqt"], "--count", "1") as client:
            assert outcome(client).code == 0


def test_an_address_of_another_machine():
    """An address that this machine does not have ends the server with 1 and one line that names it."""
    command = [sys.executable, "-m", "apps.echo.server", "--host", "192.0.2.1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=20)
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch(r"echo server: cannot listen on 192\.0\.2\.1:4443 \(TCP\): .+\n", result.stderr)


def test_a_store_that_cannot_be_trusted(tmp_path):
    """A certificate store that others can write to ends the server with 1 and one line that says what to do."""
    store = tmp_path / "moqt-trio"
    store.mkdir()
    store.chmod(0o777)
    with Child("-m", "apps.echo.server", "--port", "0", environment={"XDG_STATE_HOME": str(tmp_path)}) as process:
        result = outcome(process)
    assert (result.code, result.lines) == (1, [])
    (line,) = result.errors
    assert line == f"echo server: other accounts can write to {store}: empty it and run chmod 700 on it"
