"""The table that `make echo-all` prints: every version over both transports."""

from __future__ import annotations

import re
import signal
import sys

import pytest

import moqt_trio as moqt
from apps.demos import processes, versions
from apps.demos.versions import Cell, heading, read_cell, row
from tests.interop.processes import Child

LISTENS = "print('https://localhost:1/echo', 'moqt://localhost:1/echo', flush=True)"
BLOCKS = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])"
WAITS = "signal.sigwait([signal.SIGINT])"
SUMMARY = "sent 2, echoed 2, lost 0, round trip p50 1.50 ms, p99 2.00 ms"


@pytest.fixture
def programs(monkeypatch):
    """Puts a server that only listens, and a Python script as the client, in the place of the real ones."""

    def put(*client):
        monkeypatch.setattr(processes, "SERVER", (sys.executable, "-c", "\n".join([BLOCKS, LISTENS, WAITS])))
        monkeypatch.setattr(processes, "CLIENT", (sys.executable, "-c", "\n".join(client)))

    return put


class TestCell:
    def test_everything_came_back(self):
        """The numbers are those of the line that the client ends with."""
        assert read_cell(2, 0, f"connected\n0: hello\n{SUMMARY}\n", "") == Cell(2, 2, 1.5)

    @pytest.mark.parametrize(
        ("last", "echoed", "p50"),
        [
            ("sent 2, echoed 1, lost 1, round trip p50 3.25 ms, p99 3.25 ms", 1, 3.25),
            ("sent 2, echoed 1, lost 1, wrong 1, round trip p50 3.25 ms, p99 3.25 ms", 1, 3.25),
            ("sent 2, echoed 0, lost 2", 0, None),
            ("connected to moqt://localhost/echo", 0, None),
            ("", 0, None),
        ],
    )
    def test_something_is_missing(self, last, echoed, p50):
        """What did come back counts; the problem has the exit code and the last lines of what the client said."""
        errors = "".join(f"line {number}\n\n" for number in range(7))
        said = [f"line {number}" for number in range(2, 7)]
        problem = (f"exit code 1, {echoed} of 2 messages came back", *said)
        assert read_cell(2, 1, last, errors) == Cell(2, echoed, p50, problem)

    def test_fewer_than_were_asked_for(self):
        """A client that is content with less than it was asked to send has failed all the same."""
        cell = read_cell(3, 0, SUMMARY, "")
        assert cell.problem == ("exit code 0, 2 of 3 messages came back",)


class TestTable:
    def test_columns(self):
        """The columns stand below each other, whatever the names and the numbers are."""
        versions = ["a-long-version-name", "short"]
        lines = heading(versions).splitlines()
        lines.append(row(versions[0], [Cell(10, 10, 1.234), Cell(10, 10, 1234.5)], versions))
        lines.append(row(versions[1], [Cell(10, 3, 2.0, ("lost",)), Cell(10, 0, None, ("refused",))], versions))
        assert lines == [
            "                               WebTransport                raw QUIC",
            "version                  echoed         p50      echoed         p50",
            "a-long-version-name       10/10     1.23 ms       10/10  1234.50 ms",
            "short                      3/10      failed        0/10      failed",
        ]


class TestMain:
    def test_complete(self, programs, capfd):
        """When every message came back it exits with 0, and each cell was a client with its version and transport."""
        programs("import sys; print(sys.argv[1:], file=sys.stderr)", f"print({SUMMARY!r})")
        assert versions.main(["--count", "2", "--versions", "moq-lite-06,gomoqt-develop"]) == 0
        printed = capfd.readouterr()
        assert re.findall(r"^(\S+) +2/2 +1\.50 ms +2/2 +1\.50 ms$", printed.out, re.MULTILINE) == [
            "moq-lite-06",
            "gomoqt-develop",
        ]
        assert printed.err == ""

    def test_all_versions(self, programs, capfd):
        """Without a choice there is a row for every version that exists, those that have to be named included."""
        programs(f"print({SUMMARY!r})")
        assert versions.main(["--count", "2"]) == 0
        names = moqt.version_names(opt_in=True)
        rows = capfd.readouterr().out.splitlines()[-len(names) :]
        assert [line.split()[0] for line in rows] == list(names)

    def test_failing_cell(self, programs, capfd):
        """A cell that fails says why below the table, and does not keep the others from running."""
        failing = "'moqt:' in sys.argv[2] and 'moq-lite-05' in sys.argv"
        programs(
            "import sys",
            f"if {failing}: sys.exit('no such luck')",
            "assert sys.argv[1:7:2] == ['--url', '--version', '--count']",
            f"print({SUMMARY!r})",
        )
        assert versions.main(["--count", "2", "--versions", "moq-lite-06,moq-lite-05,moq-lite-04"]) == 1
        printed = capfd.readouterr()
        assert re.search(r"^moq-lite-05 +2/2 +1\.50 ms +0/2 +failed$", printed.out, re.MULTILINE)
        assert re.search(r"^moq-lite-04 +2/2 +1\.50 ms +2/2 +1\.50 ms$", printed.out, re.MULTILINE)
        assert printed.err.splitlines() == [
            "moq-lite-05 over raw QUIC:",
            "  exit code 1, 0 of 2 messages came back",
            "  no such luck",
        ]

    def test_stuck_client(self, programs, capfd, monkeypatch):
        """A client that does not end is killed, and its cell has failed."""
        monkeypatch.setattr(processes, "CLIENT_TIMEOUT", 0.05)
        programs(BLOCKS, WAITS)
        assert versions.main(["--versions", "moq-lite-06"]) == 1
        assert "did not end within" in capfd.readouterr().err

    def test_no_server(self, programs, capfd, monkeypatch):
        """A server that does not listen is a failure in one line."""
        programs("")
        monkeypatch.setattr(processes, "SERVER", (sys.executable, "-c", "raise SystemExit(7)"))
        assert versions.main(["--versions", "moq-lite-06"]) == 1
        assert capfd.readouterr().err == "versions: the server ended with exit code 7 before it listened\n"

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--count", "0"], "--count: a count is a whole number from 1 on, not '0'"),
            (["--versions", "moq-lite-99"], "--versions: unknown version 'moq-lite-99'; choose from moq-lite-06,"),
            (["--versions", ","], "no version in ','"),
        ],
    )
    def test_bad_values(self, arguments, said, capsys):
        """A bad value ends the program with 2, and the last line names it."""
        with pytest.raises(SystemExit) as end:
            versions.main(arguments)
        assert end.value.code == 2
        assert said in capsys.readouterr().err.splitlines()[-1]

    def test_for_real(self):
        """The real server and clients fill every cell: one old version, and one that has to be named."""
        options = ["--count", "3", "--versions", "gomoqt-develop,moq-lite-06-wip"]
        with Child("-m", "apps.demos.versions", *options) as process:
            assert process.wait_ended(60) == 0, process.output
            last = process.lines[-2:]
        assert [re.sub(r"\d+\.\d\d ms", "_", line).split() for line in last] == [
            ["gomoqt-develop", "3/3", "_", "3/3", "_"],
            ["moq-lite-06-wip", "3/3", "_", "3/3", "_"],
        ]

    def test_interrupted(self):
        """An interrupt ends the program with 130 and without a traceback, and with it its children."""
        with Child("-m", "apps.demos.versions", "--count", "100000", "--versions", "moq-lite-06") as process:
            process.wait_line(lambda line: line.startswith("version "))
            process.send_signal(signal.SIGINT)
            assert process.wait_ended(30) == 130, process.output
            assert process.errors == []
