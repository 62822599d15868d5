"""No code of ours catches whatever comes: what a library raises is told apart by its classes, and a bug is seen."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = ("calibration", "exporter", "optimum", "runtime")
BLANKET = {"Exception", "BaseException"}
ALLOWED: dict[str, str] = {}
"""Of the handlers that catch everything and do not raise it again: where one stands -> why. None need do so."""


def blanket_handlers(source: str) -> list[int]:
    """Lines of the handlers of whatever comes that do not end by raising just that again."""
    return [
        node.lineno for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ExceptHandler) and _catches_all(node.type) and not _raises_again(node)
    ]


def _catches_all(kind: ast.expr | None) -> bool:
    names = [kind] if not isinstance(kind, ast.Tuple) else kind.elts
    return any(name is None or (isinstance(name, ast.Name) and name.id in BLANKET) for name in names)


def _raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


@pytest.mark.parametrize("folder", CODE)
def test_nothing_catches_whatever_comes(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for path in files for line in blanket_handlers(path.read_text(encoding="utf-8"))
    }
    assert found == {place for place in ALLOWED if place.startswith(f"{folder}/")}


@pytest.mark.parametrize("handler", [
    "except Exception as error:\n    print(error)", "except BaseException:\n    pass", "except:\n    pass",
    "except (ValueError, Exception):\n    pass", "except BaseException as error:\n    raise ValueError from error",
])
def test_such_a_handler_is_seen(handler):
    assert blanket_handlers(f"try:\n    pass\n{handler}\n") == [3]
    assert not blanket_handlers("try:\n    pass\nexcept BaseException:\n    print(1)\n    raise\n")
