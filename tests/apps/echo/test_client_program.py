"""The echo client as a program: what it prints, which certificates it trusts, and how it fails."""

from __future__ import annotations

import datetime as dt
import re
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import moqt_trio as moqt
from tests.apps.echo.programs import SCHEMES, outcome, run_client, run_clients, running_client, running_server
from tests.interop.processes import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SUMMARY = r"sent (\d+), echoed (\d+), lost (\d+), round trip p50 \d+\.\d\d ms, p99 \d+\.\d\d ms"


@pytest.fixture(scope="module")
def server():
    """An echo server with a development certificate and every version."""
    with running_server() as server:
        yield server


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_version_at_once(server, scheme):
    """Clients of every version talk to one server at the same time, and each prints its own messages, each with its
    round-trip time, then the summary, and exits with 0."""
    runs = [
        ["--url", server.urls[scheme], "--version", version, "--message", f"in {version}", "--count", "3"]
        for version in moqt.version_names()
    ]
    carrier = {"https": "webtransport", "moqt": "quic"}[scheme]
    for version, result in zip(moqt.version_names(), run_clients(*runs), strict=True):
        assert result.code == 0
        assert result.errors == []
        assert result.lines[0] == f"connected to {server.urls[scheme]}: {version} over {carrier}"
        assert result.echoed == [f"{number}: in {version}" for number in range(3)]
        assert re.fullmatch(SUMMARY, result.summary)[1] == "3"
        assert len(result.lines) == 5


def test_addresses(server):
    """The server is there on both loopback addresses, and its certificate is trusted there as it is on localhost."""
    hosts = ["127.0.0.1", "[::1]"] if socket.has_ipv6 else ["127.0.0.1"]
    urls = [f"{scheme}://{host}:{server.port}/echo" for scheme, host in zip(SCHEMES, hosts, strict=False)]
    for result in run_clients(*(["--url", url, "--count", "1"] for url in urls)):
        assert (result.code, result.echoed) == (0, ["0: hello 0"])


def test_defaults(server):
    """Without a message the client says hello, a quarter of a second apart."""
    with running_client("--url", server.urls["moqt"], "--count", "3") as client:
        client.wait_line(lambda line: line.startswith("0: hello 0  ("))
        began = time.monotonic()
        client.wait_line(lambda line: line.startswith("2: hello 2  ("))
        elapsed = time.monotonic() - began
        assert outcome(client).code == 0
    # Two intervals lie between, less what the first echo was late by.
    assert elapsed > 0.3


class TestStandardInput:
    def test_pipe(self, server):
        """Lines of a pipe are sent as they come, blank ones too, until the pipe ends."""
        with running_client("--url", server.urls["https"], "--interval", "0") as client:
            client.tell("first")
            client.wait_line(lambda line: line.startswith("0: first  ("))
            for line in ("", "häßlich 🌸", "no end"):
                client.tell(line)
            client.end_input()
            result = outcome(client)
        assert result.code == 0
        assert result.errors == ["sending the lines of standard input"]
        assert result.echoed == ["0: first", "1: ", "2: häßlich 🌸", "3: no end"]

    def test_asked_for(self, server):
        """`--message -` sends lines and `--count` bounds them, though the pipe stays open."""
        with running_client("--url", server.urls["moqt"], "--message", "-", "--count", "2") as client:
            for line in ("a", "b", "c"):
                client.tell(line)
            result = outcome(client)
        assert (result.code, result.echoed, result.errors) == (0, ["0: a", "1: b"], [])

    def test_empty(self, server):
        """An empty input is a failure in one clear line."""
        with running_client("--url", server.urls["moqt"], "--message", "-") as client:
            client.end_input()
            result = outcome(client)
        assert result.code == 1
        assert result.errors == ["echo client: there is nothing to send: standard input is empty"]


@attrs.frozen
class Authority:
    """A certificate authority of this test's own, and a certificate of a server that it has signed.

    Attributes:
        cafile: The authority, in PEM.
        certfile: The certificate for localhost, in PEM.
        keyfile: Its key, in PEM.
        fingerprint: Its SHA-256.
    """

    cafile: str
    certfile: str
    keyfile: str
    fingerprint: bytes


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    """An authority that no system trusts."""
    directory: Path = tmp_path_factory.mktemp("authority")
    now = dt.datetime.now(dt.UTC)
    own_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    own_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    base = (
        x509.CertificateBuilder()
        .issuer_name(own_name)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
    )
    root = (
        base.subject_name(own_name)
        .public_key(own_key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(own_key, hashes.SHA256())
    )
    certificate = (
        base.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(own_key, hashes.SHA256())
    )
    paths = [directory / name for name in ("authority.crt", "server.crt", "server.key")]
    pem = serialization.Encoding.PEM
    paths[0].write_bytes(root.public_bytes(pem))
    paths[1].write_bytes(certificate.public_bytes(pem))
    paths[2].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return Authority(*map(str, paths), certificate.fingerprint(hashes.SHA256()))


class TestTrust:
    def test_authority(self, authority):
        """A server with a certificate of its own is trusted by its authority or its fingerprint, and by nothing else,
        on localhost as elsewhere."""
        with running_server("--cert", authority.certfile, "--key", authority.keyfile) as server:
            assert server.fingerprint == authority.fingerprint.hex()
            urls = server.urls
            trusting = [
                ["--url", urls["https"], "--cafile", authority.cafile],
                ["--url", urls["moqt"], "--cafile", authority.cafile],
                ["--url", urls["https"], "--fingerprint", authority.fingerprint.hex(":").upper()],
            ]
            refusing = [["--url", urls["https"], "--fingerprint", "ab" * 32], ["--url", urls["moqt"]]]
            results = run_clients(*([*options, "--count", "1"] for options in trusting + refusing))
        assert [result.code for result in results] == [0, 0, 0, 1, 1]
        for result in results[3:]:
            assert result.lines == []
            (line,) = result.errors
            assert line.startswith(f"echo client: the certificate of localhost:{server.port} is not trusted: ")
            assert "--fingerprint HEX" in line
        assert authority.fingerprint.hex() in results[3].errors[0]

    def test_development_certificate(self, server, authority, tmp_path):
        """A development certificate is trusted on localhost by the account that made it; another account names its
        fingerprint, and an authority that has not signed it does not help."""
        flags = [[], ["--fingerprint", server.fingerprint], ["--cafile", authority.cafile]]
        url = server.urls["https"]
        elsewhere = {"XDG_STATE_HOME": str(tmp_path)}
        results = run_clients(*(["--url", url, "--count", "1", *each] for each in flags), environment=elsewhere)
        assert [result.code for result in results] == [1, 0, 1]
        assert all("is not trusted" in results[index].errors[0] for index in (0, 2))
        assert run_client("--url", url, "--count", "1").code == 0


class TestFailure:
    @pytest.fixture
    def closed_port(self):
        """A port that nothing listens on: another kind of socket holds its number."""
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as holder:
            holder.bind(("127.0.0.1", 0))
            yield holder.getsockname()[1]

    def test_no_server(self, closed_port):
        """Where nothing listens the client says so, and does not wait for its timeout: the test is over before that."""
        urls = [f"{scheme}://localhost:{closed_port}/echo" for scheme in SCHEMES]
        results = run_clients(*(["--url", url, "--count", "1", "--timeout", "60"] for url in urls))
        for result in results:
            assert (result.code, result.lines) == (1, [])
            assert result.errors == [
                f"echo client: no server at localhost:{closed_port}; is the server running? "
                "Start it with: python -m apps.echo.server"
            ]

    def test_no_answer(self):
        """Where something listens that does not answer, the client gives up after its timeout."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            where = f"127.0.0.1:{silent.getsockname()[1]}"
            result = run_client("--url", f"moqt://{where}/echo", "--count", "1", "--timeout", "0.5")
        assert (result.code, result.lines, len(result.errors)) == (1, [], 1)
        assert re.search(rf"{where} .*within 0\.5 s.*; is the server running\?", result.errors[0])
        # gomoqt's server of early 2025 completes QUIC's handshake, and is silent to that of any other version.
        assert result.errors[0].endswith("answers only --version gomoqt-develop")

    def test_unknown_path(self, server):
        """A path that the server does not have is named, with the one that it has."""
        urls = [url.replace("/echo", "/nowhere") for url in server.urls.values()]
        for result in run_clients(*(["--url", url, "--count", "1"] for url in urls)):
            assert (result.code, result.lines) == (1, [])
            assert result.errors == ["echo client: the server has no path '/nowhere'; the echo service is at '/echo'"]

    def test_no_shared_version(self):
        """Without a version in common the client names what it offered, and what the server speaks: in the reply to
        a WebTransport request, or in the words that end the QUIC handshake."""
        with running_server("--versions", "moq-lite-05,moq-lite-03") as server:
            runs = (["--url", server.urls[scheme], "--count", "1", "--version", "moq-lite-06"] for scheme in SCHEMES)
            web, raw = run_clients(*runs)
        said = f"echo client: localhost:{server.port} speaks none of the offered versions (moq-lite-06)"
        assert (web.code, web.lines, web.errors) == (1, [], [f"{said}: this server speaks moq-lite-05, moq-lite-03"])
        assert (raw.code, raw.lines) == (1, [])
        assert raw.errors == [f"{said}: this server speaks moq-lite-05, moq-lite-03"]

    def test_server_killed(self):
        """A server that dies in mid-run is given up after the timeout, and what is missing counts as lost.

        That the kernel reports its port as closed proves nothing.
        """
        options = ("--count", "1000", "--interval", "0.05", "--timeout", "1.5")
        with (
            running_server() as server,
            running_client("--url", server.urls["https"], *options) as web,
            running_client("--url", server.urls["moqt"], *options) as raw,
        ):
            for client in (web, raw):
                client.wait_line(lambda line: line.startswith("3: hello 3"))
            server.process.send_signal(signal.SIGKILL)
            began = time.monotonic()
            for client in (web, raw):
                result = outcome(client)
                assert result.code == 1
                assert result.errors == ["echo client: nothing has come back for 1.5 s"]
                sent, echoed, lost = map(int, re.fullmatch(SUMMARY, result.summary).groups())
                assert echoed >= 4
                assert 0 < lost == sent - echoed
        assert time.monotonic() - began < 8.0

    def test_server_frozen(self):
        """A server that answers no more is given up after the timeout, in the middle of sending."""
        with (
            running_server() as server,
            running_client(
                "--url", server.urls["moqt"], "--count", "1000", "--interval", "0.05", "--timeout", "0.7"
            ) as client,
        ):
            client.wait_line(lambda line: line.startswith("3: hello 3"))
            server.process.send_signal(signal.SIGSTOP)
            try:
                result = outcome(client)
            finally:
                server.process.send_signal(signal.SIGCONT)
        assert result.code == 1
        assert result.errors == ["echo client: nothing has come back for 0.7 s"]
        sent, echoed, lost = map(int, re.fullmatch(SUMMARY, result.summary).groups())
        assert 0 < lost == sent - echoed < 100

    def test_output_whose_reader_has_ended(self, server):
        """When the reader of the output ends, as `head` does, the client ends too, and prints no error."""
        command = [sys.executable, "-m", "apps.echo.client", "--url", server.urls["moqt"]]
        with subprocess.Popen(
            [*command, "--count", "1000", "--interval", "0.01"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as client:
            assert client.stdout is not None
            assert client.stdout.readline().startswith("connected to")
            client.stdout.close()
            assert client.wait(10.0) == 1
            assert client.stderr.read() == ""


class TestInterrupt:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_in_mid_run(self, server, number):
        """A signal ends the client with the summary of what came back so far, and the exit code 130."""
        with running_client("--url", server.urls["https"], "--count", "1000", "--interval", "0.05") as client:
            client.wait_line(lambda line: line.startswith("3: hello 3"))
            client.send_signal(number)
            result = outcome(client, timeout=5.0)
        assert (result.code, result.errors) == (130, [])
        assert re.fullmatch(SUMMARY, result.summary)

    def test_while_waiting_for_a_line(self, server):
        """A client that waits for standard input ends at once, though no line comes."""
        with running_client("--url", server.urls["moqt"], "--message", "-") as client:
            client.wait_line(lambda line: line.startswith("connected to"))
            client.send_signal(signal.SIGINT)
            result = outcome(client, timeout=5.0)
        assert (result.code, result.errors, result.summary) == (130, [], "sent 0, echoed 0, lost 0")

    def test_while_connecting(self):
        """A client that still connects ends at once."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            with running_client("--url", f"moqt://127.0.0.1:{silent.getsockname()[1]}/echo", "--count", "1") as client:
                silent.settimeout(10.0)
                silent.recv(2000)
                client.send_signal(signal.SIGINT)
                result = outcome(client, timeout=5.0)
        assert (result.code, result.errors, result.lines) == (130, [], ["sent 0, echoed 0, lost 0"])
