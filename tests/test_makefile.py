"""What the targets of the Makefile would run, for a clone with nothing in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FAKE = """\
#!/bin/sh
echo {version}
"""


def commands(clone: Path, *arguments: str) -> str:
    """Returns what make would run in a directory that has nothing but the Makefile and what a test put there."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, clone)
    # The tests may run under make themselves, which passes its variables and options on.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHON", "VENV", "TESTS", "MFLAGS") and not name.startswith("MAKE")
    }
    environment["PYENV_ROOT"] = str(clone / "pyenv")
    result = subprocess.run(
        ["make", "--dry-run", *arguments],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return result.stdout


def fake_python(path: Path, version: str) -> str:
    """Makes a program that says it is a Python of this version; returns its path."""
    path.parent.mkdir(parents=True)
    path.write_text(FAKE.format(version=version))
    path.chmod(0o755)
    return str(path)


pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.mark.parametrize("target", ["echo", "echo-all"])
def test_echo_installs_no_tools(tmp_path, target):
    """The echo installs the library, without the extras, and says so first."""
    found = commands(tmp_path, target)
    assert "--editable ." in found
    assert "dev,interop" not in found
    assert found.index("make: installing") < found.index("--editable")


def test_named_python(tmp_path):
    """A Python that is named runs the tests in an environment of its own beside a .venv of another version."""
    other = fake_python(tmp_path / "bin" / "python3.77", "3.77")
    assert f"\n{other} -m venv .venv\n" in commands(tmp_path, "test", f"PYTHON={other}")
    fake_python(tmp_path / ".venv" / "bin" / "python", "3.11")
    assert "\n.venv-3.77/bin/python -m pytest" in commands(tmp_path, "test", f"PYTHON={other}")
    assert "\n.venv/bin/python -m pytest" in commands(tmp_path, "test")
    same = fake_python(tmp_path / "bin2" / "python3.11", "3.11")
    assert "\n.venv/bin/python -m pytest" in commands(tmp_path, "test", f"PYTHON={same}")


def test_python_of_pyenv(tmp_path):
    """A named Python that is not on PATH is found among pyenv's."""
    fake_python(tmp_path / ".venv" / "bin" / "python", "3.11")
    hidden = fake_python(tmp_path / "pyenv" / "versions" / "3.77.1" / "bin" / "python3.77", "3.77")
    found = commands(tmp_path, "test", "PYTHON=python3.77")
    assert f"\n{hidden} -m venv .venv-3.77\n" in found
    assert "\n.venv-3.77/bin/python -m pytest" in found


def test_chosen_tests(tmp_path):
    """TESTS names a part of the suite, WORKERS how many of its files run at a time."""
    assert commands(tmp_path, "test", "TESTS=tests/wire").endswith(" -m pytest -n 2 --dist loadfile tests/wire\n")
    assert " -m pytest -n 5 " in commands(tmp_path, "test", "WORKERS=5")
