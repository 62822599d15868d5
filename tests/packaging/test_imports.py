"""What an import brings in, each seen in a process of its own."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.optimum_line import HAS_OPTIMUM, needs_optimum

ROOT = Path(__file__).resolve().parents[2]

IMPORTED = """
import json, sys
{script}
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""

HELP = """
sys.argv = ["glimmer-export", "--help"]
import contextlib, io
from glimmer_export.exporter.cli import main
with contextlib.redirect_stdout(io.StringIO()) as shown:
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, stop.code
assert "Usage" in shown.getvalue()
"""

EVERY_MODULE = """
import importlib, json, pkgutil, sys
package = importlib.import_module(sys.argv[1])
failed = {}
for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".", onerror=lambda name: None):
    if module.name.endswith(".__main__"):
        continue
    try:
        importlib.import_module(module.name)
    except Exception as error:
        failed[module.name] = repr(error)
print(json.dumps(failed))
"""

OF_OPTIMUM = {"glimmer_export.exporter.cli.optimum_command", "glimmer_export.exporter.huggingface.optimum_export"}
"""What only optimum imports, or who uses it."""
BUILD_SIDE = {
    "onnx", "onnxscript", "optimum", "polygraphy", "pydantic", "rich", "torch", "transformers", "typer", "yaml",
}
HEAVY = {
    "matplotlib", "onnx", "onnxruntime", "onnxscript", "optimum", "polygraphy", "pyarrow", "sentencepiece", "torch",
    "transformers",
}


def python(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.fail(done.stderr, pytrace=False)
    return done.stdout.splitlines()[-1]


def packages_imported_by(script: str) -> set[str]:
    return set(json.loads(python(IMPORTED.format(script=script))))


def test_runtime_brings_in_nothing_of_the_build_side():
    imported = packages_imported_by("from glimmer_export import runtime")
    assert "runtime" in imported
    engines = {"cuda", "onnxruntime", "tensorrt", "tensorrt_rtx"}
    assert not imported & (BUILD_SIDE | engines | {"exporter", "calibration"})


@pytest.mark.parametrize("module", ["calibration", "glimmer_export.calibration.calibrate", "glimmer_export.calibration.ranges_file"])
def test_calibration_brings_in_no_torch(module):
    assert not packages_imported_by(f"import {module}") & {"exporter", "onnx", "torch", "transformers"}


def test_calibrating_a_bundle_brings_in_no_torch():
    assert not packages_imported_by("import glimmer_export.exporter.bundle.calibrate") & {"onnxscript", "torch", "transformers"}


@pytest.mark.parametrize("module", ["glimmer_export.exporter.answering", "glimmer_export.exporter.engines", "glimmer_export.exporter.lint", "glimmer_export.exporter.memory"])
def test_what_a_device_runs_brings_in_no_torch(module):
    assert not packages_imported_by(f"import {module}") & {"onnx_ir", "onnxscript", "torch", "transformers"}


@pytest.mark.parametrize("script", ["import glimmer_export.exporter.cli", HELP], ids=["import", "help"])
def test_command_line_starts_without_heavy_imports(script):
    assert not packages_imported_by(script) & HEAVY


@needs_optimum
def test_optimum_cli_starts_without_our_heavy_imports():
    imported = packages_imported_by("import optimum.commands.register.register_glimmer_export")
    assert "exporter" in imported
    assert not imported & (BUILD_SIDE | HEAVY) - {"optimum"}


@pytest.mark.parametrize("package", ["exporter", "calibration", "runtime"])
def test_every_module_imports(package):
    failed = json.loads(python(EVERY_MODULE, package))
    if not HAS_OPTIMUM:
        assert {name for name in failed if "optimum" in failed[name]} <= OF_OPTIMUM
        failed = {name: error for name, error in failed.items() if name not in OF_OPTIMUM}
    assert failed == {}


@pytest.mark.parametrize("package", ["exporter", "calibration", "runtime"])
def test_every_folder_of_modules_is_a_package(package):
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    assert sorted(folder for folder in folders if not (folder / "__init__.py").is_file()) == []


def test_contract_is_the_standard_library_and_numpy():
    allowed = sys.stdlib_module_names | {"numpy", "runtime"}
    for path in (ROOT / "runtime" / "contract").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.partition(".")[0] in allowed, f"{path.name} imports {name}"
                assert not name.startswith("runtime") or name.startswith("glimmer_export.runtime.contract"), f"{path.name}: {name}"
