"""The command lines: what `--help` says, and the error for a bad value."""

from __future__ import annotations

import re
import socket

import pytest
import trio

import moqt_trio as moqt
from apps.echo import client, server

MAINS = {"client": client.main, "server": server.main}


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    """A terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")


def exit_code(main, *arguments):
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return end.value.code


@pytest.mark.parametrize(
    ("program", "flags"),
    [
        (
            "client",
            ["--url", "--count", "--interval", "--message", "--version", "--timeout", "--fingerprint", "--cafile"],
        ),
        ("server", ["--host", "--port", "--cert", "--key", "--origins", "--versions", "--log-level"]),
    ],
)
def test_help_teaches(program, flags, capsys):
    """Help fits a terminal of 80 columns in plain ASCII, and has every flag, examples that parse, and exit codes."""
    assert exit_code(MAINS[program], "--help") == 0
    text = capsys.readouterr().out
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 80
    for flag in flags:
        assert re.search(rf"^  {flag} ", text, re.MULTILINE), flag
    for name in moqt.version_names():
        assert name in text
    assert f"python -m apps.echo.{program}\n" in text or f"python -m apps.echo.{program} --" in text
    assert "exit codes: 0 " in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--count", "0"], "--count: a count is a whole number from 1 on, not '0'"),
        (["--count", "many"], "not 'many'"),
        (["--count", "\u0663"], "not '\u0663'"),
        (["--interval", "-1"], "--interval: give a number of seconds from 0 on, not '-1'"),
        (["--interval", "nan"], "not 'nan'"),
        (["--interval", "soon"], "not 'soon'"),
        (["--timeout", "0"], "--timeout: give a number of seconds above 0, not '0'"),
        (["--version", "moq-lite-99"], "--version: unknown version 'moq-lite-99'; choose from moq-lite-06,"),
        (["--version", ","], "no version in ','"),
        (["--fingerprint", "abc"], "64 hexadecimal digits, or 32 pairs with colons between, not 'abc'"),
        (["--cafile", "no/such/file"], "--cafile: cannot read 'no/such/file': No such file or directory"),
        (["--cafile", __file__, "--fingerprint", "ab" * 32], "--fingerprint: not allowed with argument --cafile"),
        (["--url", "ftp://localhost/echo"], "the URL 'ftp://localhost/echo' must start with https://"),
        (["--url", "moqt:///echo"], "the URL 'moqt:///echo' names no host"),
        (["--url", "https://localhost:x/"], "not a URL: 'https://localhost:x/'"),
        (["--url", "https://[::1/"], "not a URL: 'https://[::1/'"),
        (["--loud"], "unrecognized arguments: --loud"),
    ],
)
def test_client_values(arguments, said, capsys):
    """A bad value ends the client with 2 before it connects, and the last line names it."""
    count = [] if "--count" in arguments else ["--count", "1"]
    assert exit_code(client.main, *arguments, *count) == 2
    printed = capsys.readouterr()
    assert said in printed.err.splitlines()[-1]
    assert not printed.out


def test_client_authorities_that_are_none(tmp_path, capsys):
    """A file without a certificate is refused by its name, before anything is sent."""
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    assert exit_code(client.main, "--count", "1", "--cafile", str(path)) == 2
    assert f"{path} holds no certificate in PEM" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "65536"], "--port: a port is a number from 0 to 65535, not '65536'"),
        (["--port", "http"], "not 'http'"),
        (["--versions", "moq-lite-06,draft"], "--versions: unknown version 'draft'; choose from moq-lite-06,"),
        (["--log-level", "chatty"], "--log-level: invalid choice: 'chatty'"),
        (["--cert", "server.crt"], "--cert and --key go together"),
        (["--key", "server.key"], "--cert and --key go together"),
        (["--cert", "no/such.crt", "--key", "no/such.key"], "cannot read the certificate no/such.crt"),
    ],
)
def test_server_values(arguments, said, capsys):
    """A bad value ends the server with 2 before it listens, and the last line names it."""
    assert exit_code(server.main, *arguments) == 2
    printed = capsys.readouterr()
    assert said in printed.err.splitlines()[-1]
    assert not printed.out


@pytest.mark.parametrize("failure", [socket.gaierror(-2, "unknown"), None], ids=["unknown", "no name"])
def test_server_host(failure, monkeypatch, capsys):
    """A host that is none ends the server with 1 and one line that names it."""

    async def look_up(*arguments, **options):
        raise failure

    if failure is not None:
        monkeypatch.setattr(trio.socket, "getaddrinfo", look_up)
    assert server.main(["--host", "two..dots", "--port", "0"]) == 1
    assert capsys.readouterr().err == (
        "echo server: the host 'two..dots' is unknown; give an address or a name of this machine with --host\n"
    )
