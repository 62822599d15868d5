"""On a device: virtual environments without torch, one with the runtime alone and one with the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable

import pytest

from tests.exported import QUESTIONS, Exported

QUESTION = QUESTIONS[0]
BUILD_SIDE = ["onnx", "onnxscript", "optimum", "polygraphy", "pydantic", "rich", "torch", "transformers"]

IMPORT_RUNTIME = """
import importlib.util, json, sys
from glimmer_export import runtime
print(json.dumps({
    "installed": [name for name in json.loads(sys.argv[1]) if importlib.util.find_spec(name)],
    "imported": [name for name in json.loads(sys.argv[1]) if name in sys.modules],
    "file": runtime.__file__,
}))
"""

ANSWER = """
import json, sys
from glimmer_export.runtime import Session
with Session.open(sys.argv[1], store=sys.argv[2]) as session:
    answer = session.answer(sys.argv[3])
print(json.dumps({
    "answer": answer.answer,
    "token_ids": answer.token_ids,
    "passages": [item.passage.id for item in answer.passages],
    "selected": answer.selected,
}))
"""


@pytest.fixture(scope="module")
def answerable(exported: Callable[[str], Exported]) -> Exported:
    """Random weights, exported as the options' defaults have it."""
    return exported("glimmer, exact algebra")


def test_runtime_imports_without_the_build_side(runtime_venv):
    found = json.loads(runtime_venv.python(IMPORT_RUNTIME, json.dumps(BUILD_SIDE)))
    assert found["installed"] == []
    assert found["imported"] == []
    assert "site-packages" in found["file"]


def test_runtime_answers_as_it_does_here(runtime_venv, answerable):
    expected = answerable.session.answer(QUESTION)
    found = json.loads(runtime_venv.python(ANSWER, answerable.bundle, answerable.store, QUESTION))
    assert found["passages"]
    assert found == {
        "answer": expected.answer,
        "token_ids": list(expected.token_ids),
        "passages": [item.passage.id for item in expected.passages],
        "selected": list(expected.selected),
    }


def test_command_names_the_missing_extra(runtime_venv):
    done = subprocess.run(
        [runtime_venv.program("glimmer-export"), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "glimmer-export[tools]" in done.stderr
    assert "Traceback" not in done.stderr


def test_command_line_on_a_device_builds_a_store_and_answers(tools_venv, answerable, tmp_path):
    bundle, store = answerable.bundle, tmp_path / "store"
    assert "live_stage_a" in json.loads(tools_venv.glimmer("inspect", bundle, "--json"))["graphs"]
    tools_venv.glimmer("memory", "build", bundle, "--corpus", answerable.corpus, "-o", store)
    answer = json.loads(tools_venv.glimmer("ask", bundle, "--store", store, QUESTION, "--json"))
    assert answer["passages"]
    calibrated, questions = shutil.copytree(bundle, tmp_path / "calibrated"), tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"question": QUESTION}), encoding="utf-8")
    report = tools_venv.glimmer("calibrate", calibrated, "--store", store, "--questions", questions, "--json")
    assert json.loads(report)["samples"] == 1
    absent = json.dumps(["torch", "transformers", "optimum", "onnxscript"])
    assert json.loads(tools_venv.python(IMPORT_RUNTIME, absent))["installed"] == []


def test_command_line_on_a_device_names_the_extra_that_exports(tools_venv, answerable, tmp_path):
    command = [tools_venv.program("glimmer-export"), "export", answerable.bundle, "-o", tmp_path / "bundle"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "glimmer-export[export]" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
