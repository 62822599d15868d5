"""A command whose packages are not installed says which extra brings them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from glimmer_export.exporter.cli.extras import EXTRAS, require
from glimmer_export.runtime.contract import MissingExtraError
from glimmer_export.runtime.store import Passage
from tests.bundle_factory import write_rows
from tests.corpus_files import write_parquet
from tests.exported import CORPUS, copy_bundle

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
main()
"""


def run_without(packages: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command where none of these packages can be imported; commas stand between them."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, packages, *map(str, arguments)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize(
    ("package", "command", "extra"),
    [
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
        ("onnx", "calibrate", "tools"),
        ("onnx_ir", "calibrate", "tools"),
        ("onnxruntime", "calibrate", "cpu"),
        ("torch", "parity", "export"),
        ("torch", "train-demo", "export"),
        ("matplotlib", "cost", "export"),
        ("matplotlib", "sensitivity", "export"),
        ("onnxruntime", "sensitivity", "cpu"),
        ("onnx", "lint", "tools"),
        ("onnxruntime", "lint", "cpu"),
        ("onnx", "build", "tools"),
        ("tensorrt_rtx", "build", "rtx"),
        ("torch", "bench", "export"),
        ("transformers", "bench", "export"),
        ("optimum", "bench optimum", "optimum"),
    ],
)
def test_the_extra_is_named_and_nothing_is_written(glimmer, tmp_path, package, command, extra):
    output = tmp_path / "output"
    questions = write_rows(tmp_path / "questions.jsonl", [{"question": "w1"}])
    corpus = write_rows(tmp_path / "corpus.jsonl", CORPUS[:2])
    parquet = write_parquet(tmp_path / "corpus.parquet", [Passage(1, "", "w1")])
    arguments = {
        "help": ["--help"],
        "inspect": ["inspect", glimmer.bundle],
        "export": ["export", glimmer.checkpoint, "-o", output],
        "init": ["init", "--random", "small", "-o", output],
        "convert": ["convert", tmp_path, "--from", "t5x", "-o", output],
        "ask": ["ask", glimmer.bundle, "--store", glimmer.store, "w1"],
        "memory": ["memory", "build", glimmer.bundle, "--corpus", corpus, "-o", output],
        "memory of Parquet": ["memory", "build", glimmer.bundle, "--corpus", parquet, "-o", output],
        "memory on ray": ["memory", "build", glimmer.bundle, "--corpus", corpus, "-o", output, "--runner", "ray"],
        "memory tantivy": [
            "memory", "build", glimmer.bundle, "--corpus", corpus, "-o", output, "--index", "tantivy"
        ],
        "memory encoder": ["memory", "index", glimmer.store, "--encoder", tmp_path / "encoder"],
        "calibrate": ["calibrate", glimmer.bundle, "--store", glimmer.store, "--questions", questions],
        "parity": ["parity", glimmer.bundle, "--checkpoint", glimmer.checkpoint, "--questions", questions],
        "train-demo": ["train-demo", "-o", output],
        "cost": ["cost", "--model", "small", "--plot", output.with_suffix(".svg")],
        "sensitivity": [
            "sensitivity", glimmer.bundle, "--questions", questions, "--plot", output.with_suffix(".svg")
        ],
        "lint": ["lint", glimmer.bundle, "--target", "t4"],
        "build": ["build", glimmer.bundle, "--target", "t4", "--compiler", "tensorrt-rtx"],
        "bench": ["bench", "--checkpoint", glimmer.checkpoint, "--work", output],
        "bench optimum": [
            "bench", "--checkpoint", glimmer.checkpoint, "--work", output, "--peers", "optimum-fid-k2"
        ],
    }[command]
    done = run_without(package, *arguments)
    assert done.returncode == 2, done.stderr
    assert f"glimmer-export[{extra}]" in done.stderr
    assert package in done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()


def test_a_device_answers_and_inspects_without_the_build_side(glimmer):
    build_side = "torch,transformers,onnx,onnx_ir,onnxscript,polygraphy,optimum,matplotlib"
    done = run_without(build_side, "inspect", glimmer.bundle, "--json")
    assert done.returncode == 0, done.stderr
    done = run_without(build_side, "ask", glimmer.bundle, "--store", glimmer.store, "w1", "--json")
    assert done.returncode == 0, done.stderr


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
    extras = {"tools", "cpu", "export", "parquet", "t5x", "ray", "retrieval", "dense", "kilt", "optimum"}
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
