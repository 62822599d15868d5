"""What an import brings in, each seen in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from glimmer_export.exporter.cli.optimum_register import REGISTRATION
from tests.optimum_line import HAS_OPTIMUM, needs_optimum

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("exporter", "calibration", "runtime")

IMPORTED = """
import json, sys
{script}
print(json.dumps(sorted(sys.modules)))
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
print(json.dumps([failed, sorted(sys.modules)]))
"""

OF_OPTIMUM = {"glimmer_export.exporter.cli.optimum_command", "glimmer_export.exporter.huggingface.optimum_export"}
"""What only optimum imports, or who uses it."""
BUILD_SIDE = {
    "onnx", "onnxscript", "optimum", "polygraphy", "pydantic", "rich", "torch", "transformers", "typer", "yaml",
}
INTERPRETER = {"__main__", "_distutils_hack", "_virtualenv", "site", "sitecustomize"}
"""What Python itself brings in as it starts."""
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
    """Top-level packages, and our own three as `glimmer_export.runtime` and so on."""
    modules = json.loads(python(IMPORTED.format(script=script)))
    return {".".join(name.split(".")[: 2 if name.startswith("glimmer_export.") else 1]) for name in modules}


def test_runtime_brings_in_nothing_of_the_build_side():
    imported = packages_imported_by("from glimmer_export import runtime")
    assert "glimmer_export.runtime" in imported
    engines = {"cuda", "onnxruntime", "tensorrt", "tensorrt_rtx"}
    assert not imported & (BUILD_SIDE | engines | {"glimmer_export.exporter", "glimmer_export.calibration"})


@pytest.mark.parametrize("module", ["calibration", "calibration.calibrate", "calibration.ranges_file"])
def test_calibration_brings_in_no_torch(module):
    imported = packages_imported_by(f"import glimmer_export.{module}")
    assert not imported & {"glimmer_export.exporter", "onnx", "torch", "transformers"}


def test_calibrating_a_bundle_brings_in_no_torch():
    imported = packages_imported_by("import glimmer_export.exporter.bundle.calibrate")
    assert not imported & {"onnxscript", "torch", "transformers"}


@pytest.mark.parametrize("module", ["answering", "engines", "lint", "memory"])
def test_what_a_device_runs_brings_in_no_torch(module):
    imported = packages_imported_by(f"import glimmer_export.exporter.{module}")
    assert not imported & {"onnx_ir", "onnxscript", "torch", "transformers"}


def test_serving_brings_in_no_more_than_its_extra():
    imported = packages_imported_by("import glimmer_export.runtime.serving")
    assert {"pydantic", "starlette", "uvicorn"} <= imported
    assert not imported & ((BUILD_SIDE | HEAVY) - {"pydantic"} | {"glimmer_export.exporter", "httpx"})


@pytest.mark.parametrize("script", ["import glimmer_export.exporter.cli", HELP], ids=["import", "help"])
def test_command_line_starts_without_heavy_imports(script):
    assert not packages_imported_by(script) & HEAVY


@needs_optimum
def test_optimum_cli_starts_without_our_heavy_imports():
    imported = packages_imported_by(REGISTRATION)
    assert "glimmer_export.exporter" in imported
    assert not imported & (BUILD_SIDE | HEAVY) - {"optimum"}


@cache
def every_module_imported(package: str) -> tuple[dict[str, str], set[str]]:
    """What fails when all modules of one of our packages are imported in one process, and what is loaded then."""
    failed, loaded = json.loads(python(EVERY_MODULE, f"glimmer_export.{package}"))
    return failed, set(loaded)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_imports(package):
    failed, _ = every_module_imported(package)
    if not HAS_OPTIMUM:
        assert {name for name in failed if "optimum" in failed[name]} <= OF_OPTIMUM
        failed = {name: error for name, error in failed.items() if name not in OF_OPTIMUM}
    assert failed == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_of_modules_is_a_package(package):
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    assert sorted(folder for folder in folders if not (folder / "__init__.py").is_file()) == []


def test_no_package_is_imported_by_its_folders_name():
    """Found by it as well, a class would exist twice, and one would be no instance of the other."""
    loaded = set().union(*(every_module_imported(package)[1] for package in PACKAGES))
    assert {"glimmer_export.exporter.cli.run", "glimmer_export.runtime.session"} <= loaded
    assert not loaded & {*PACKAGES}


def test_contract_brings_in_the_standard_library_and_numpy():
    imported = packages_imported_by("import glimmer_export.runtime.contract")
    assert imported - sys.stdlib_module_names - INTERPRETER == {"glimmer_export.runtime", "glimmer_export", "numpy"}


def test_the_front_door_alone_brings_in_the_standard_library():
    imported = packages_imported_by("import glimmer_export")
    assert imported - sys.stdlib_module_names - INTERPRETER == {"glimmer_export.runtime", "glimmer_export"}
