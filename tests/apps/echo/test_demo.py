"""The demonstration that `make echo` runs."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from apps.echo import demo

ROOT = Path(__file__).parents[3]
LISTENS = "print('https://localhost:1/echo', 'moqt://localhost:1/echo', flush=True)"
BLOCKS = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])"
WAITS = "signal.sigwait([signal.SIGINT])"


def script(monkeypatch, name, *lines):
    """Puts a Python script in the place of the server or the client."""
    monkeypatch.setattr(demo, name, (sys.executable, "-c", "\n".join(lines)))


class TestPort:
    @pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["udp", "tcp"])
    def test_taken(self, kind):
        """A port that is in use, over UDP or TCP, is passed over for one that is free."""
        with socket.socket(socket.AF_INET, kind) as other:
            other.bind(("127.0.0.1", 0))
            if kind == socket.SOCK_STREAM:
                other.listen()
            taken = other.getsockname()[1]
            chosen = demo.choose_port(taken)
            assert chosen != taken
            assert demo.is_free(chosen)

    def test_free(self):
        """A free port is taken as it is."""
        port = demo.choose_port()
        assert demo.choose_port(port) == port


class TestServer:
    def test_listens_and_ends(self, monkeypatch, capfd):
        """The block runs once both URLs were printed, and the server is interrupted after it."""
        script(monkeypatch, "SERVER", BLOCKS, LISTENS, WAITS)
        with demo.running_server(1):
            assert "server | https://localhost:1/echo" in capfd.readouterr().out

    def test_ends_early(self, monkeypatch):
        """A server that ends before it listens fails the demonstration, with its exit code."""
        script(monkeypatch, "SERVER", "raise SystemExit(7)")
        with pytest.raises(demo.DemoFailed, match="exit code 7 before it listened"), demo.running_server(1):
            pass

    def test_silent(self, monkeypatch):
        """A server that prints no URL in time fails the demonstration."""
        monkeypatch.setattr(demo, "START_TIMEOUT", 0.01)
        script(monkeypatch, "SERVER", BLOCKS, WAITS)
        with pytest.raises(demo.DemoFailed, match="printed no URLs"), demo.running_server(1):
            pass

    def test_bad_end(self, monkeypatch):
        """A server that is interrupted and does not exit with 0 fails the demonstration."""
        script(monkeypatch, "SERVER", BLOCKS, LISTENS, WAITS, "raise SystemExit(3)")
        with pytest.raises(demo.DemoFailed, match="exit code 3"), demo.running_server(1):
            pass

    def test_deaf(self, monkeypatch):
        """A server that does not end when interrupted is killed and fails the demonstration."""
        monkeypatch.setattr(demo, "STOP_TIMEOUT", 0.05)
        script(monkeypatch, "SERVER", BLOCKS, LISTENS, "signal.pause()")
        with pytest.raises(demo.DemoFailed, match="did not end within"), demo.running_server(1):
            pass


class TestClient:
    def test_arguments(self, monkeypatch, capfd):
        """The client is given the URL and a number of messages."""
        script(monkeypatch, "CLIENT", "import sys; print(sys.argv[1:])")
        demo.run_client("moqt://localhost:1/echo")
        assert "['--url', 'moqt://localhost:1/echo', '--count', '5']" in capfd.readouterr().out

    def test_failure(self, monkeypatch):
        """A client that lost a message fails the demonstration, which names its URL."""
        script(monkeypatch, "CLIENT", "raise SystemExit(1)")
        with pytest.raises(demo.DemoFailed, match="moqt://localhost:1/echo ended with exit code 1"):
            demo.run_client("moqt://localhost:1/echo")

    def test_stuck(self, monkeypatch):
        """A client that does not end in time is killed and fails the demonstration."""
        monkeypatch.setattr(demo, "CLIENT_TIMEOUT", 0.01)
        script(monkeypatch, "CLIENT", BLOCKS, WAITS)
        with pytest.raises(demo.DemoFailed, match="did not end"):
            demo.run_client("moqt://localhost:1/echo")


class TestMain:
    @pytest.mark.parametrize("status", [0, 1])
    def test_exit_code(self, monkeypatch, capfd, status):
        """It is 0 only when both clients exit with 0; a failure is one line on standard error."""
        script(monkeypatch, "SERVER", BLOCKS, LISTENS, WAITS)
        script(monkeypatch, "CLIENT", f"raise SystemExit({status})")
        assert demo.main() == status
        printed = capfd.readouterr()
        assert ("Every message came back" in printed.out) == (status == 0)
        assert len(printed.err.splitlines()) == status

    def test_for_real(self, tmp_path, monkeypatch):
        """The real server and client echo over both transports, and everything ends by itself with exit code 0."""
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        command = [sys.executable, "-m", "apps.echo.demo"]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        assert result.returncode == 0, result.stdout + result.stderr
        assert re.findall(r"client \| (\w+)://", result.stdout) == ["https", "moqt"]
