"""`docs/topics/architecture.md` names files and packages that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "moqt_trio"
PAGE = (ROOT / "docs" / "topics" / "architecture.md").read_text(encoding="utf-8")
ANSWERS = re.findall(r"^\| (.+\?) \| (.+) \|$", PAGE, re.MULTILINE)


def exists(name: str) -> bool:
    """Tells whether a path leads somewhere, from the repository's root or from the package."""
    return (ROOT / name).is_file() or (PACKAGE / name).is_file()


def test_every_file_exists():
    """Each file that the page names is there."""
    named = re.findall(r"`([\w/.]+\.(?:py|md))`", PAGE)
    assert len(named) > len(ANSWERS)
    assert [name for name in named if not exists(name)] == []


def test_every_question_is_answered_by_one_file():
    """Each question has one answer, which is a file, and no question is there twice."""
    assert len(ANSWERS) >= 15
    assert [answer for _, answer in ANSWERS if not re.fullmatch(r"`[\w/.]+\.py`", answer)] == []
    assert len({question for question, _ in ANSWERS}) == len(ANSWERS)


def test_every_package_is_in_the_picture():
    """Each package and each module of the base is in the picture of the layers, and nothing else is."""
    picture = PAGE.partition("```\n")[2].partition("```")[0]
    packages = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    base = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert set(re.findall(r"\b(\w+)/(?=[\s│])", picture)) - {"apps"} == packages
    assert set(picture.splitlines()[-1].removesuffix("the base").split()) == base
