"""A command whose packages are not installed says which extra brings them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from glimmer_export.exporter.cli.extras import EXTRAS, require
from glimmer_export.runtime.contract import MissingExtraError
from glimmer_export.runtime.store import Passage
from tests.bundle_factory import write_rows
from tests.corpus_files import write_parquet
from tests.exported import CORPUS, Exported, copy_bundle

ROOT = Path(__file__).resolve().parents[2]

WITHOUT = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

hidden = sys.argv.pop(1).split(",")
sys.meta_path.insert(0, Hidden())
sys.argv[0] = "glimmer-export"
from glimmer_export.exporter.cli import main
"""
EACH = """
import json
from contextlib import redirect_stderr, redirect_stdout
from io import BytesIO, TextIOWrapper
from traceback import print_exc

def said():
    return TextIOWrapper(BytesIO(), "utf-8", write_through=True)

done = []
for words in json.loads(sys.argv.pop(1)):
    sys.argv[1:] = words
    code = 0
    with redirect_stdout(said()), redirect_stderr(said()) as errors:
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        except Exception:
            print_exc()
            code = 1
    done.append((code, errors.buffer.getvalue().decode()))
print(json.dumps(done))
"""


def python_without(packages: str, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script where none of these packages can be imported; commas stand between them."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + script, packages, *map(str, arguments)], capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def run_without(packages: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command where none of these packages can be imported."""
    return python_without(packages, "main()", *arguments)


CASES = [
    ("typer", "help", "tools"),
    ("rich", "inspect", "tools"),
    ("pydantic", "export", "tools"),
    ("yaml", "init", "tools"),
    ("torch", "export", "export"),
    ("onnx", "export", "tools"),
    ("onnx_ir", "export", "tools"),
    ("onnxscript", "export", "export"),
    ("polygraphy", "parity", "tools"),
    ("torch", "init", "export"),
    ("torch", "convert", "export"),
    ("msgpack", "convert", "t5x"),
    ("tensorstore", "convert", "t5x"),
    ("onnxruntime", "ask", "cpu"),
    ("onnxruntime", "memory", "cpu"),
    ("pyarrow", "memory of Parquet", "parquet"),
    ("ray", "memory on ray", "ray"),
    ("tantivy", "memory tantivy", "retrieval"),
    ("onnxruntime", "memory encoder", "cpu"),
    ("onnx", "memory encoder", "tools"),
    ("torch", "export encoder", "export"),
    ("torch", "memory of a source", "export"),
    ("onnx", "calibrate", "tools"),
    ("onnx_ir", "calibrate", "tools"),
    ("onnxruntime", "calibrate", "cpu"),
    ("torch", "parity", "export"),
    ("torch", "train", "export"),
    ("matplotlib", "cost", "export"),
    ("matplotlib", "sensitivity", "export"),
    ("torch", "evaluate", "export"),
    ("matplotlib", "evaluate", "export"),
    ("onnxruntime", "sensitivity", "cpu"),
    ("onnx", "lint", "tools"),
    ("onnxruntime", "lint", "cpu"),
    ("onnx", "build", "tools"),
    ("tensorrt_rtx", "build", "rtx"),
    ("torch", "bench", "export"),
    ("transformers", "bench", "export"),
    ("optimum", "bench optimum", "optimum"),
    ("optuna", "tune", "tune"),
    ("starlette", "serve", "serve"),
    ("uvicorn", "serve", "serve"),
    ("prometheus_client", "serve", "serve"),
]
"""A package, the command that needs it, and the extra that brings it."""


def words_of(command: str, glimmer: Exported, folder: Path) -> list[object]:
    """A command line whose output, if it had one, would be `output` in the folder."""
    output = folder / "output"
    questions = write_rows(folder / "questions.jsonl", [{"question": "w1"}])
    corpus = write_rows(folder / "corpus.jsonl", CORPUS[:2])
    parquet = write_parquet(folder / "corpus.parquet", [Passage(1, "", "w1")])
    return {
        "help": ["--help"],
        "inspect": ["inspect", glimmer.bundle],
        "tune": ["tune", glimmer.checkpoint, "--corpus", corpus, "--questions", questions, "-o", output],
        "export": ["export", glimmer.checkpoint, "-o", output],
        "init": ["init", "--random", "small", "-o", output],
        "convert": ["convert", folder, "--from", "t5x", "-o", output],
        "ask": ["ask", glimmer.bundle, "--store", glimmer.store, "w1", "--backend", "onnxruntime-cpu"],
        "serve": ["serve", glimmer.bundle, "--store", glimmer.store, "--port", 0],
        "memory": ["memory", "build", glimmer.bundle, "--corpus", corpus, "-o", output],
        "memory of Parquet": ["memory", "build", glimmer.bundle, "--corpus", parquet, "-o", output],
        "memory on ray": ["memory", "build", glimmer.bundle, "--corpus", corpus, "-o", output, "--runner", "ray"],
        "memory tantivy": [
            "memory", "build", glimmer.bundle, "--corpus", corpus, "-o", output, "--index", "tantivy"
        ],
        "memory encoder": ["memory", "index", glimmer.store, "--encoder", folder / "encoder"],
        "export encoder": ["export-encoder", folder / "encoder", "-o", output],
        "memory of a source": ["memory", "index", glimmer.store, "--encoder", write_config(folder / "encoder")],
        "calibrate": ["calibrate", glimmer.bundle, "--store", glimmer.store, "--questions", questions],
        "parity": ["parity", glimmer.bundle, "--checkpoint", glimmer.checkpoint, "--questions", questions],
        "train": ["train", "--recipe", "demo", "-o", output],
        "cost": ["cost", "--model", "small", "--plot", output.with_suffix(".svg")],
        "sensitivity": [
            "sensitivity", glimmer.bundle, "--questions", questions, "--plot", output.with_suffix(".svg")
        ],
        "evaluate": [
            "evaluate", glimmer.checkpoint, "--corpus", corpus, "--questions", questions,
            "--plot", output.with_suffix(".svg"),
        ],
        "lint": ["lint", glimmer.bundle, "--target", "t4"],
        "build": ["build", glimmer.bundle, "--target", "t4", "--compiler", "tensorrt-rtx"],
        "bench": ["bench", "--checkpoint", glimmer.checkpoint, "--work", output],
        "bench optimum": [
            "bench", "--checkpoint", glimmer.checkpoint, "--work", output, "--peers", "optimum-fid-k2"
        ],
    }[command]


def write_config(directory: Path) -> Path:
    """As much of a Hugging Face encoder as tells it apart from an exported one."""
    directory.mkdir()
    (directory / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def ended(glimmer, tmp_path_factory) -> Callable[[str], dict[str, tuple[Path, int, str]]]:
    """How each command ended where a package is hidden: its folder, exit code and errors.

    All of a package are run by one process, one after the other: most of their time is that of its start.
    """

    @cache
    def run(package: str) -> dict[str, tuple[Path, int, str]]:
        folders = {command: tmp_path_factory.mktemp("hidden") for hidden, command, _ in CASES if hidden == package}
        words = [[str(word) for word in words_of(command, glimmer, folder)] for command, folder in folders.items()]
        done = python_without(package, EACH, json.dumps(words))
        assert done.returncode == 0, done.stderr
        ends = zip(folders.items(), json.loads(done.stdout), strict=True)
        return {command: (folder, code, errors) for (command, folder), (code, errors) in ends}

    return run


@pytest.mark.parametrize(("package", "command", "extra"), CASES)
def test_the_extra_is_named_and_nothing_is_written(ended, package, command, extra):
    folder, code, errors = ended(package)[command]
    assert code == 2, errors
    assert f"glimmer-export[{extra}]" in errors
    assert package in errors
    assert "Traceback" not in errors
    assert not (folder / "output").exists()


def test_a_device_answers_and_inspects_without_the_build_side(glimmer):
    build_side = "torch,transformers,onnx,onnx_ir,onnxscript,polygraphy,optimum,matplotlib"
    done = run_without(build_side, "inspect", glimmer.bundle, "--json")
    assert done.returncode == 0, done.stderr
    done = run_without(build_side, "ask", glimmer.bundle, "--store", glimmer.store, "w1", "--json")
    assert done.returncode == 0, done.stderr


def test_without_any_engine_the_first_ones_extra_is_named(glimmer):
    done = run_without("onnxruntime,openvino", "ask", glimmer.bundle, "--store", glimmer.store, "w1")
    assert done.returncode == 2, done.stderr
    assert "glimmer-export[cpu]" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_device_evaluates_a_bundle_without_torch(glimmer, tmp_path):
    questions = write_rows(tmp_path / "questions.jsonl", [{"question": "w1", "answers": ["w2"]}])
    asked = ("evaluate", glimmer.bundle, "--store", glimmer.store, "--questions", questions, "--json")
    done = run_without("torch,transformers,onnxscript,optimum,polygraphy,matplotlib", *asked)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["questions"] == 1


def test_a_device_builds_engines_without_torch(glimmer, tmp_path):
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    arguments = ("build", bundle, "--target", "jetson-orin-nano", "--compiler", "tensorrt-rtx", "--json")
    done = run_without("torch,onnx_ir", *arguments)
    assert done.returncode == 0, done.stderr
    assert list((bundle / "engines").iterdir())


def test_a_device_calibrates_without_torch(glimmer, tmp_path):
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    questions = write_rows(tmp_path / "questions.jsonl", [{"question": "w1"}])
    absent = "torch,transformers,onnxscript,optimum,polygraphy,matplotlib"
    done = run_without(absent, "calibrate", bundle, "--store", glimmer.store, "--questions", questions, "--json")
    assert done.returncode == 0, done.stderr
    assert (bundle / "calibration" / "ranges.json").is_file()


def test_every_optional_package_has_its_extra():
    extras = {
        "tools", "cpu", "openvino", "export", "parquet", "t5x", "ray", "retrieval", "dense", "kilt", "optimum", "train",
        "serve", "peers", "tune",
    }  # fmt: skip
    assert set(EXTRAS.values()) == extras


def test_a_file_in_optimums_namespace_is_not_taken_for_optimum(tmp_path, monkeypatch):
    from importlib.machinery import PathFinder

    def find_spec(name):
        return PathFinder.find_spec(name, [str(tmp_path)])

    (tmp_path / "optimum" / "commands" / "register").mkdir(parents=True)
    assert find_spec("optimum") is not None
    monkeypatch.setattr("glimmer_export.exporter.cli.extras.find_spec", find_spec)
    with pytest.raises(MissingExtraError, match=r"glimmer-export\[optimum\]"):
        require("optimum")
