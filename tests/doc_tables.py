"""What the tables of the reference say, read from the source: bounds and codes."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from typing import TYPE_CHECKING

import attrs

from moqt_trio import codes, limits

if TYPE_CHECKING:
    from types import ModuleType

PER_SECOND = {"request_rate", "max_refusals_per_second", "max_resets_per_second"}


def docstrings(module: ModuleType, owner: str) -> dict[str, str]:
    """Returns the text below each field or member of a class, on one line."""
    [body] = [
        node.body
        for node in ast.parse(inspect.getsource(module)).body
        if isinstance(node, ast.ClassDef) and node.name == owner
    ]
    found = {}
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.Assign | ast.AnnAssign) and isinstance(text, ast.Expr):
            target = field.targets[0] if isinstance(field, ast.Assign) else field.target
            found[ast.unparse(target)] = " ".join(ast.literal_eval(text.value).split())
    return found


def first_clause(text: str) -> str:
    """Returns a text up to its first full stop or semicolon."""
    return re.split(r"\.(?= [A-Z])|\.$|; ", text)[0]


def with_unit(name: str, value: float, meaning: str) -> str:
    """Returns a default as the table has it: `64 KiB`, `10 s`, `200 a second`, or a count."""
    if meaning.startswith("Bytes"):
        for size, unit in ((limits.MIB, "MiB"), (limits.KIB, "KiB")):
            if value % size == 0:
                return f"{value // size:g} {unit}"
        return f"{value:,} bytes"
    if meaning.startswith("Seconds"):
        return f"{value:g} s"
    return f"{value:,g} a second" if name in PER_SECOND else f"{value:,}"


def limit_rows() -> list[tuple[str, str, str]]:
    """Returns the name, the default and the meaning of each bound."""
    meanings = docstrings(limits, "Limits")
    rows = []
    for field in attrs.fields(limits.Limits):
        meaning = first_clause(meanings[field.name])
        rows.append((f"`{field.name}`", with_unit(field.name, field.default, meaning), meaning))
    return rows


def code_rows(owner: type[codes.SessionCode] | type[codes.StreamCode]) -> list[tuple[str, str, str]]:
    """Returns the name, the number and the meaning of each code."""
    meanings = docstrings(codes, owner.__name__)
    return [(f"`{code.name}`", f"{code.value:#x}", meanings[code.name].removesuffix(".")) for code in owner]


def table_rows(page: str) -> list[tuple[str, ...]]:
    """Returns the cells of each row of a page's tables, without their heads."""
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in page.splitlines() if line[:1] == "|"
    ]
    rules = [at for at, row in enumerate(rows) if set(row[0]) <= set("-|")]
    return [row for at, row in enumerate(rows) if at not in rules and at + 1 not in rules]
