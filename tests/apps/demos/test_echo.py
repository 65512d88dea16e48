"""The demonstration that `make echo` runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from apps.demos import echo as demo
from apps.demos import processes

ROOT = Path(__file__).parents[3]
LISTENS = "print('https://localhost:1/echo', 'moqt://localhost:1/echo', flush=True)"
BLOCKS = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])"
WAITS = "signal.sigwait([signal.SIGINT])"


def script(monkeypatch, name, *lines):
    """Puts a Python script in the place of the server or the client."""
    monkeypatch.setattr(processes, name, (sys.executable, "-c", "\n".join(lines)))


class TestClient:
    def test_arguments(self, monkeypatch, capfd):
        """The client is given the URL and a number of messages."""
        script(monkeypatch, "CLIENT", "import sys; print(sys.argv[1:])")
        demo.run_client("moqt://localhost:1/echo")
        assert "['--url', 'moqt://localhost:1/echo', '--count', '5']" in capfd.readouterr().out

    def test_failure(self, monkeypatch):
        """A client that lost a message fails the demonstration, which names its URL."""
        script(monkeypatch, "CLIENT", "raise SystemExit(1)")
        with pytest.raises(processes.ProcessFailed, match="moqt://localhost:1/echo ended with exit code 1"):
            demo.run_client("moqt://localhost:1/echo")

    def test_stuck(self, monkeypatch):
        """A client that does not end in time is killed and fails the demonstration."""
        monkeypatch.setattr(processes, "CLIENT_TIMEOUT", 0.01)
        script(monkeypatch, "CLIENT", BLOCKS, WAITS)
        with pytest.raises(processes.ProcessFailed, match="did not end"):
            demo.run_client("moqt://localhost:1/echo")


class TestMain:
    @pytest.mark.parametrize("status", [0, 1])
    def test_exit_code(self, monkeypatch, capfd, status):
        """It is 0 only when both clients exit with 0; a failure is one line on standard error."""
        script(monkeypatch, "SERVER", BLOCKS, LISTENS, WAITS)
        script(monkeypatch, "CLIENT", f"raise SystemExit({status})")
        assert demo.main() == status
        printed = capfd.readouterr()
        assert ("every message came back" in printed.out) == (status == 0)
        assert len(printed.err.splitlines()) == status

    def test_for_real(self, tmp_path, monkeypatch):
        """The real server and client echo over both transports, and everything ends by itself with exit code 0."""
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        command = [sys.executable, "-m", "apps.demos.echo"]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        assert result.returncode == 0, result.stdout + result.stderr
        assert re.findall(r"client \| connected to (\w+)://", result.stdout) == ["https", "moqt"]

    def test_labels(self, monkeypatch, capfd):
        """Each line says which program it is from, those of standard error, too."""
        noise = "import sys; print('this', flush=True); print('that', file=sys.stderr, flush=True)"
        script(monkeypatch, "SERVER", BLOCKS, noise, LISTENS, WAITS)
        script(monkeypatch, "CLIENT", noise)
        assert demo.main() == 0
        printed = capfd.readouterr()
        for lines, word in ((printed.out, "this"), (printed.err, "that")):
            labels = {line.partition("|")[0].strip() for line in lines.splitlines() if line}
            assert labels == {"echo", "server", "client"} - ({"echo"} if word == "that" else set())
            assert lines.count(f"server | {word}\n") == 1
            assert lines.count(f"client | {word}\n") == 2
