"""`python -m moqt_trio.certificates`."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys

import pytest

import moqt_trio as moqt
from moqt_trio.certificates.certificate import development_certificate
from moqt_trio.cli.certificates import main


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def saved(tmp_path):
    """Saves a certificate, and returns its path."""

    def save(**options):
        certificate = development_certificate(**options)
        (tmp_path / "server.crt").write_bytes(certificate.certificate_pem())
        return str(tmp_path / "server.crt"), certificate

    return save


def run(*arguments):
    try:
        return main(arguments)
    except SystemExit as end:
        return end.code


def test_create(capsys):
    """Without arguments it makes the certificate that a server of this account shows."""
    assert run("create") == 0
    certificate = moqt.DevelopmentCertificates().stored()
    out = capsys.readouterr().out
    assert certificate.fingerprint.hex() in out
    assert f"{certificate.fingerprint.hex()}.key" in out
    assert run("create") == 0
    assert moqt.DevelopmentCertificates().current() != certificate
    assert certificate.fingerprint in moqt.DevelopmentCertificates().fingerprints()


def test_create_files(tmp_path, capsys):
    """With --out it makes a pair of files, for the hosts and the days that are asked for."""
    assert run("create", "cam.example", "192.0.2.7", "--days", "3", "--out", str(tmp_path / "cam.v1")) == 0
    certificate = moqt.Certificate.load(tmp_path / "cam.v1.crt", tmp_path / "cam.v1.key")
    assert certificate.hosts == ("cam.example", "192.0.2.7")
    assert 2.9 < certificate.days_left() < 3
    assert (tmp_path / "cam.v1.key").stat().st_mode & 0o077 == 0
    assert "cam.example 192.0.2.7" in capsys.readouterr().out


def test_create_keeps_files(tmp_path, capsys):
    """A file that exists is not overwritten."""
    (tmp_path / "cam.key").write_text("mine")
    assert run("create", "--out", str(tmp_path / "cam")) == 2
    assert "exists" in capsys.readouterr().err
    assert (tmp_path / "cam.key").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["create", "cam.example"], "--out"),
        (["create", "--days", "3"], "--out"),
        (["create", "no host", "--out", "x"], "DNS name"),
        (["create", "--days", "15", "--out", "x"], "14 days"),
        (["create", "--out", "/nowhere/at/all"], "cannot write"),
        (["show", "/nowhere"], "cannot read"),
        (["show"], "create"),
        (["fingerprint"], "create"),
        (["days-left", "--at-least", "soon"], "invalid float"),
        ([], "required"),
        (["burn"], "invalid choice"),
    ],
)
def test_mistakes(arguments, says, capsys, tmp_path, monkeypatch):
    """Each mistake is said in words, on standard error, with exit code 2."""
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.out == ""


def test_show(saved, capsys):
    """It names the hosts, the validity and the fingerprint in both notations."""
    path, certificate = saved(hosts=["cam.example", "::1"])
    assert run("show", path) == 0
    out = capsys.readouterr().out
    assert "cam.example ::1" in out
    assert certificate.fingerprint.hex() in out
    assert certificate.fingerprint_text in out
    assert f"{certificate.not_after:%Y-%m-%d}" in out


def test_show_the_accounts_own(capsys):
    """Without a file it speaks of the account's certificate, and makes none."""
    assert run("show") == 2
    certificate = moqt.DevelopmentCertificates().current()
    assert run("show") == 0
    assert run("fingerprint") == 0
    assert capsys.readouterr().out.splitlines()[-1] == certificate.fingerprint.hex()


def test_expired(saved, capsys):
    """A certificate that has expired is 1."""
    path, _ = saved(now=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    assert run("show", path) == 1
    assert "it expired" in capsys.readouterr().out
    assert run("days-left", path) == 1
    assert float(capsys.readouterr().out) < -1000


@pytest.mark.parametrize(("days", "code"), [(0, 0), (2, 0), (4, 1)])
def test_days_left(saved, capsys, days, code):
    """The days are printed alone, and are enough or not."""
    path, _ = saved(days=3)
    assert run("days-left", path, "--at-least", str(days)) == code
    assert capsys.readouterr().out == "3.0\n"


def test_as_a_program():
    """It runs as a program, without a warning, and its help shows examples and exit codes."""
    command = [sys.executable, "-W", "error", "-m", "moqt_trio.certificates", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stderr == ""
    assert "examples:" in result.stdout
    assert "exit codes:" in result.stdout
