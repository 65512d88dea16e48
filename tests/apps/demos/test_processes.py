"""The server as a child process: how the programs that show the service find it a port, start it and stop it."""

from __future__ import annotations

import socket
import sys

import pytest

from apps.demos import processes

LISTENS = "print('https://localhost:1/echo', 'moqt://localhost:1/echo', flush=True)"
BLOCKS = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])"
WAITS = "signal.sigwait([signal.SIGINT])"


@pytest.fixture
def serves(monkeypatch):
    """Puts a Python script in the place of the server."""

    def put(*lines):
        monkeypatch.setattr(processes, "SERVER", (sys.executable, "-c", "\n".join(lines)))

    return put


class TestPort:
    @pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["udp", "tcp"])
    def test_taken(self, kind, capsys):
        """A port that is in use, over UDP or TCP, is passed over for one that is free, and a line says so."""
        with socket.socket(socket.AF_INET, kind) as other:
            other.bind(("127.0.0.1", 0))
            if kind == socket.SOCK_STREAM:
                other.listen()
            taken = other.getsockname()[1]
            chosen = processes.choose_port(taken)
            assert chosen != taken
            assert processes.is_free(chosen)
        assert capsys.readouterr().out == f"echo   | port {taken} is in use: taking {chosen} instead\n"

    def test_free(self, capsys):
        """A free port is taken as it is, without a word."""
        port = processes.choose_port()
        capsys.readouterr()
        assert processes.choose_port(port) == port
        assert capsys.readouterr().out == ""


class TestServer:
    def test_listens_and_ends(self, serves, capfd):
        """The block runs once both URLs were printed, and the server is interrupted after it."""
        serves(BLOCKS, LISTENS, WAITS)
        with processes.running_server(1):
            assert "server | https://localhost:1/echo" in capfd.readouterr().out

    def test_options(self, serves):
        """The server is given the port and the options; its lines go where they are asked for."""
        serves(BLOCKS, LISTENS, "import sys; print(sys.argv[1:], flush=True)", WAITS)
        lines: list[str] = []
        with processes.running_server(7, "--versions", "moq-lite-06", heard=lines.append):
            pass
        assert lines[1] == "['--port', '7', '--versions', 'moq-lite-06']\n"

    def test_ends_early(self, serves):
        """A server that ends before it listens is a failure that has its exit code."""
        serves("raise SystemExit(7)")
        with pytest.raises(processes.ProcessFailed, match="exit code 7 before it listened"):
            processes.running_server(1).__enter__()

    def test_silent(self, serves, monkeypatch):
        """A server that prints no URL in time is a failure."""
        monkeypatch.setattr(processes, "START_TIMEOUT", 0.01)
        serves(BLOCKS, WAITS)
        with pytest.raises(processes.ProcessFailed, match="printed no URLs"):
            processes.running_server(1).__enter__()

    def test_bad_end(self, serves):
        """A server that is interrupted and does not exit with 0 is a failure."""
        serves(BLOCKS, LISTENS, WAITS, "raise SystemExit(3)")
        with pytest.raises(processes.ProcessFailed, match="exit code 3"), processes.running_server(1):
            pass

    def test_does_not_end(self, serves, monkeypatch):
        """A server that does not end when interrupted is killed, and is a failure."""
        monkeypatch.setattr(processes, "STOP_TIMEOUT", 0.05)
        serves(BLOCKS, LISTENS, "signal.pause()")
        with pytest.raises(processes.ProcessFailed, match="did not end within"), processes.running_server(1):
            pass
