"""No code of ours catches whatever comes: what a library raises is told apart by its classes, and a bug is seen."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = ("calibration", "exporter", "runtime")
BLANKET = {"Exception", "BaseException"}
ALLOWED = {
    "runtime/arguments.py, described": "a caller's own object may raise anything as it describes itself for a message",
    "runtime/serving/guard.py, __call__": "a request that fails is logged and answered by 500, and the server goes on",
    "runtime/serving/streams.py, __call__": "the same, of a stream, whose status has been sent",
    "runtime/serving/worker.py, _run": "what ends the one worker is kept, and ends the server with its own error",
    "runtime/serving/worker.py, _answer": "what a batch raises goes to those who asked, and the worker goes on",
    "exporter/bench/gpu/kernels.py, count_kernels": "what a profiler lacks on a machine ends no measurement",
    "exporter/bench/gpu/ours.py, open_each": "an engine that does not open is recorded, and the others are measured",
    "exporter/bench/gpu/runner.py, _child": "whatever a step raises is its result, and the next step begins",
    "exporter/bench/gpu/parts/first.py, _rtx": "what does not work is the finding, and is recorded",
    "exporter/bench/gpu/parts/first.py, _every_graph": "the same",
    "exporter/bench/gpu/parts/decoder_steps.py, _step": "the same",
    "exporter/bench/gpu/parts/peers.py, _side_by_side": "the same",
}
"""Where a handler catches everything and does not raise it again -> why. A library's classes are listed instead."""


def blanket_handlers(source: str) -> list[str]:
    """The functions that have a handler of whatever comes which does not end by raising just that again."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and _catches_all(node.type) and not _raises_again(node):
            around = [one for one in functions if one.lineno <= node.lineno <= (one.end_lineno or 0)]
            found.append(max(around, key=lambda one: one.lineno).name if around else "the module")
    return found


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
        f"{path.relative_to(ROOT).as_posix()}, {name}"
        for path in files for name in blanket_handlers(path.read_text(encoding="utf-8"))
    }
    assert found == {place for place in ALLOWED if place.startswith(f"{folder}/")}


@pytest.mark.parametrize("handler", [
    "except Exception as error:\n    print(error)", "except BaseException:\n    pass", "except:\n    pass",
    "except (ValueError, Exception):\n    pass", "except BaseException as error:\n    raise ValueError from error",
])
def test_such_a_handler_is_seen(handler):
    assert blanket_handlers(f"try:\n    pass\n{handler}\n") == ["the module"]
    assert not blanket_handlers("try:\n    pass\nexcept BaseException:\n    print(1)\n    raise\n")
