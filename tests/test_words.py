"""Errors say what came: what was found is never told by what it is not, as "others" or "such" would."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EMPTY = {"another", "other", "others", "other files", "something else", "such"}
PACKAGES = ("exporter", "calibration", "runtime")
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def said(tree: ast.AST) -> list[str]:
    """Every text that an error may give as `found`, the alternatives of a choice among them."""
    found = [
        keyword.value for node in ast.walk(tree) if isinstance(node, ast.Call) for keyword in node.keywords
        if keyword.arg == "found"
    ]
    branches = [
        part for value in found for part in ((value.body, value.orelse) if isinstance(value, ast.IfExp) else (value,))
    ]
    return [part.value for part in branches if isinstance(part, ast.Constant) and isinstance(part.value, str)]


@pytest.mark.parametrize("package", PACKAGES)
def test_what_was_found_is_named(package):
    empty = [
        f"{path.relative_to(ROOT)}: {text}" for path in MODULES if path.is_relative_to(ROOT / package)
        for text in said(ast.parse(path.read_text(encoding="utf-8"))) if text in EMPTY
    ]
    assert not empty


def test_an_empty_word_would_be_seen():
    tree = ast.parse('raise StoreError("a", expected="b", found="others" if odd else "none", fix="c")')
    assert said(tree) == ["others", "none"]
