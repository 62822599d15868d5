"""`glimmer-export build` with TensorRT-RTX itself, and what `inspect` shows of it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from glimmer_export.exporter.bundle.quantize import QuantizeOptions, quantize_bundle
from glimmer_export.exporter.config.read import config_file
from glimmer_export.exporter.config.targets import read_target
from glimmer_export.runtime.contract import (
    ENGINE_RECORD,
    EngineError,
    MissingExtraError,
    OptionError,
    read_engine_record,
    read_manifest,
)
from tests.bundle_factory import tree
from tests.calibrated import calibrated
from tests.exported import copy_bundle

AHEAD = ("--compiler", "tensorrt-rtx")


@pytest.fixture(scope="module")
def fp16(glimmer, tmp_path_factory) -> Path:
    """A bundle in FP16 for TensorRT, which the tests of this module fill with engines."""
    directory = tmp_path_factory.mktemp("build") / "bundle"
    quantize_bundle(calibrated(glimmer), directory, QuantizeOptions("fp16", "tensorrt"))
    return directory


@pytest.fixture
def built(cli, fp16) -> dict:
    """The report of a build for the T4, whose first run compiles."""
    return cli("build", fp16, "--target", "t4", *AHEAD, "--json").json


def test_a_build_and_its_report(built, fp16):
    record = read_engine_record(Path(built["directory"]))
    assert built["directory"].startswith(str(fp16 / "engines" / "tensorrt-rtx-"))
    assert built["directory"].endswith("-sm75")
    assert (built["target"], built["stand_in"]) == ("t4", False)
    assert list(built["engines"]) == list(read_manifest(fp16).graphs)
    for name, engine in built["engines"].items():
        assert engine["file"]["sha256"] == record.engines[name].file.sha256
        assert engine["file"]["bytes"] > 10_000
        assert engine["build_seconds"] > 0
        assert len(engine["profiles"]) == 2


def test_a_second_build_keeps_every_engine(cli, fp16, built):
    before = tree(fp16 / "engines")
    again = cli("build", fp16, "--target", "t4", *AHEAD, "--json")
    assert all(engine["reused"] and engine["because"] is None for engine in again.json["engines"].values())
    assert again.err == ""
    shown = cli("build", fp16, "--target", "t4", *AHEAD)
    assert shown.out.count("kept") == len(built["engines"])
    assert tree(fp16 / "engines") == before


def test_memory_and_reasons_are_said_before_a_build(cli, fp16, built):
    (Path(built["directory"]) / "decoder_step.engine").write_bytes(b"damaged")
    done = cli("build", fp16, "--target", "t4", *AHEAD)
    assert done.code == 0
    assert "decoder_step: built again, as it is damaged: expected" in done.err
    assert "Building 1 engines; this takes up to about 4" in done.err
    assert "of this machine's memory" in done.err


def test_lowered_batches_are_said_with_their_reason(cli, fp16, built, tmp_path, monkeypatch):
    assert [bound["most"] for bound in built["batch_bounds"]] == [1, 64, 1, 16]
    bundle = Path(shutil.copytree(fp16, tmp_path / "bundle"))
    target = read_target("t4")
    row = max(bound["row_bytes"] for bound in built["batch_bounds"])
    weights = sum(graph.num_bytes for graph in read_manifest(bundle).graphs.values())
    small = target.tensorrt.model_copy(update={"memory_gb": (weights + 3.5 * row) / 0.9e9})
    small_target = target.model_copy(update={"tensorrt": small})
    monkeypatch.setattr("glimmer_export.exporter.engines.build.read_target", lambda _: small_target)
    done = cli("build", bundle, "--target", "t4", *AHEAD, "--json")
    assert "Batches of 2 to 16 questions are lowered to at most 3: in " in done.err
    assert "and memory_gb of the target leaves" in done.err
    bounds = [bound for bound in done.json["batch_bounds"] if bound["rows"] == "questions"]
    assert [(bound["most"], bound["asked"], bound["limit"]) for bound in bounds] == [
        (1, 1, "memory_gb"), (3, 16, "memory_gb"),
    ]
    most = {
        name: max(shapes["max"][0] for profile in engine["profiles"] for shapes in profile.values())
        for name, engine in done.json["engines"].items()
    }
    assert {most[name] for name in most if name != "memory_encoder"} == {3}


def test_a_stand_in_is_marked(cli, fp16, built):
    done = cli("build", fp16, "--target", "h200", *AHEAD)
    assert done.code == 0, done.err
    assert "A stand-in: tensorrt_rtx" in done.out
    assert "compute capability 8.0, the nearest" in done.out
    engines = cli("inspect", fp16, "--json").json["engines"]
    assert {name[-4:]: record["stand_in"] for name, record in engines.items()} == {"sm75": False, "sm80": True}
    assert all(record["stale"] == [] for record in engines.values())
    shown = cli("inspect", fp16).out
    assert "h200 (a stand-in)" in shown
    assert "any of capability 7.5" in shown
    assert shown.count("of these graphs") == 2


def test_a_target_of_ones_own_takes_up_engines_that_serve_it(cli, fp16, built, tmp_path):
    path = shutil.copy(config_file("target", "t4"), tmp_path / "mine.yaml")
    bundle = Path(shutil.copytree(fp16, tmp_path / "bundle"))
    report = cli("build", bundle, "--target", path, *AHEAD, "--json").json
    assert report["target"] == "mine.yaml"
    assert all(engine["reused"] for engine in report["engines"].values())


def test_inspect_says_what_cannot_be_used(cli, fp16, built, tmp_path):
    bundle = Path(shutil.copytree(fp16, tmp_path / "bundle"))
    directory = bundle / "engines" / Path(built["directory"]).name
    record = json.loads((directory / ENGINE_RECORD).read_text(encoding="utf-8"))
    record["engines"]["decoder_step"]["graph_sha256"] = "0" * 64
    (directory / ENGINE_RECORD).write_text(json.dumps(record))
    (bundle / "engines" / "odd").mkdir()
    engines = cli("inspect", bundle, "--json").json["engines"]
    assert engines[directory.name]["stale"] == ["decoder_step"]
    assert "expected a file engines.json" in engines["odd"]["error"]
    shown = cli("inspect", bundle)
    assert shown.code == 0
    assert "to be built again: decoder_step" in shown.out


def test_a_bundle_without_engines_says_so(cli, glimmer):
    assert cli("inspect", glimmer.bundle, "--json").json["engines"] == {}
    assert "engines" not in cli("inspect", glimmer.bundle).out


def test_what_cannot_be_built_is_refused(refused, cli, glimmer, tmp_path, monkeypatch):
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    assert "FP32 GEMM is not supported" in refused(EngineError, "build", bundle, "--target", "t4", *AHEAD)
    assert "a machine with a GPU, found cpu" in refused(OptionError, "build", bundle, "--target", "cpu", *AHEAD)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert "glimmer-export[gpu-cu13]" in refused(MissingExtraError, "build", bundle, "--target", "t4")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    assert "glimmer-export[rtx]" in refused(MissingExtraError, "build", bundle, "--target", "t4", *AHEAD)
    assert cli("build", bundle, "--target", "tpu", *AHEAD).code == 2
    assert cli("build", bundle, "--target", "t4", "--compiler", "gcc").code == 2
