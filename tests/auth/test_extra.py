"""What each name of `moqt_trio.auth` needs: the extra is asked for by name, and the others do without it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import moqt_trio.auth


def run(program: str) -> str:
    """Returns what a program prints in a process in which joserfc and httpx are not installed."""
    lines = f"import sys\nsys.modules['joserfc'] = sys.modules['httpx'] = None\n{program}"
    return subprocess.run([sys.executable, "-c", lines], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", ["TokenAuth", "TokenKey", "AuthClient"])
def test_what_needs_it(name):
    """The error names the extra."""
    found = run(f"try:\n    from moqt_trio.auth import {name}\nexcept ImportError as error:\n    print(error)")
    assert "pip install moqt-trio[auth]" in found


def test_what_does_not():
    """A relay that is public, and an auth server with a decision of its own, need none; nor does a grant."""
    others = sorted(set(moqt_trio.auth.__all__) - {"TokenAuth", "TokenKey", "AuthClient"})
    program = f"from moqt_trio import Grant\nfrom moqt_trio.auth import {', '.join(others)}\nprint(AuthServer, Grant)"
    assert run(program) == "<class 'moqt_trio.auth.AuthServer'> <class 'moqt_trio.Grant'>\n"


def test_the_package_alone():
    """Importing the package loads none of its modules; it shows its names, and has no others."""
    assert (
        run("import moqt_trio.auth\nprint([name for name in sys.modules if name.startswith('moqt_trio.auth.')])")
        == "[]\n"
    )
    assert dir(moqt_trio.auth) == moqt_trio.auth.__all__ == sorted(moqt_trio.auth.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Token'"):
        _ = moqt_trio.auth.Token
