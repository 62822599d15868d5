"""`glimmer-export quantize`: what it writes, and what it refuses by name, with exit code 2 and nothing written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from glimmer_export.calibration.ranges import TensorRange
from glimmer_export.calibration.ranges_file import read_ranges, write_ranges
from glimmer_export.exporter.config.yaml_file import configs_directory
from glimmer_export.runtime import Session
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import (
    MANIFEST,
    BundleError,
    BundleManifest,
    CalibrationError,
    FileEntry,
    OptionError,
    OutputError,
    boundaries_of,
    boundary_of,
    read_manifest,
    record_to_json,
)
from glimmer_export.runtime.cpu_kind import cpu_kind
from tests.calibrated import calibrated
from tests.cli.conftest import snapshot
from tests.cli.test_missing_extras import run_without
from tests.exported import QUESTIONS, Exported, copy_bundle


@pytest.fixture
def bundle(glimmer: Exported, tmp_path: Path) -> Path:
    return Path(shutil.copytree(calibrated(glimmer), tmp_path / "bundle"))


PRECISIONS = ["int8", "fp16", "int8-fp16"]
FP16 = onnx.TensorProto.FLOAT16


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_bundle_says_how_it_was_made_and_answers(cli, glimmer, bundle, precision, target):
    before = snapshot(bundle)
    gpu = ["--gpu", "none"] if target == "tensorrt" else []  # else no product of so small a decoder is INT8
    report = cli("quantize", bundle, "--precision", precision, "--target", target, *gpu, "--json").json
    place = bundle.with_name(f"bundle-{precision}-{target}")
    assert Path(report["bundle"]) == place
    assert snapshot(bundle) == before
    source, manifest = Bundle.open(bundle).manifest, Bundle.open(place).manifest
    entry = manifest.quantization
    assert (entry.target, entry.cpu_kind) == (target, cpu_kind() if target == "cpu" else None)
    assert (entry.method, entry.keep, manifest.calibration) == ("max", (), ())
    assert {graph.precision for graph in manifest.graphs.values()} == {precision}
    assert list(report["graphs"]) == list(source.graphs)
    assert manifest.memory_digest == source.memory_digest
    assert manifest.checkpoint_digest == source.checkpoint_digest
    for name, graph in manifest.graphs.items():
        before_it = source.graphs[name]
        assert graph.num_parameters == before_it.num_parameters
        for tensor, other in zip(
            (*graph.inputs, *graph.outputs), (*before_it.inputs, *before_it.outputs), strict=True
        ):
            crosses = "fp16" in precision and boundary_of(tensor.name) is not None
            assert tensor == replace(other, dtype="float16" if crosses else other.dtype)
        done, written = report["graphs"][name], onnx.load(place / graph.files[0].path).graph
        halves = {item.name for item in written.initializer if item.name.endswith(".codes") and item.data_type == FP16}
        looks_up = name in {"memory_encoder", "decoder_step"}
        # The policy keeps all of the memory encoder's one layer in float.
        assert bool(done["int8"]) == ("int8" in precision and name != "memory_encoder")
        assert len(halves) == len(done["half_tables"]) == ("int8" in precision and looks_up)
        assert ("QuantizeLinear" in {node.op_type for node in written.node}) == bool(done["int8"])
    with Session.open(place, glimmer.store, threads=1) as session:
        assert all(answer.error is None for answer in session.answer_many(QUESTIONS))


def test_what_was_scaled_in_place_is_reported(cli, bundle, tmp_path):
    """Values stand in the decoder's caches, states enter `cross_kv`: no weight before them takes the factors."""
    graphs = cli("quantize", bundle, "-o", tmp_path / "out", "--json").json["graphs"]
    assert {name: len(graph["scaled"]) for name, graph in graphs.items()} == {
        "memory_encoder": 0, "live_stage_a": 0, "live_stage_b": 0, "cross_kv": 4, "decoder_step": 4
    }
    assert all(name.endswith("Attention.o/MatMul") for name in graphs["decoder_step"]["scaled"])
    assert all(graph["notes"] == [] for graph in graphs.values())


def test_a_position_bias_that_fp16_rounds_is_named(cli, bundle, tmp_path, monkeypatch):
    """To the reader and in `--json`; these tables are small, so the bar is lowered."""
    monkeypatch.setattr("glimmer_export.calibration.fp16.MAX_BIAS", 0.0)
    shown = cli("quantize", bundle, "-o", tmp_path / "one", "--precision", "fp16", "--target", "tensorrt")
    assert shown.code == 0
    assert "relative_attention_bias" in shown.out
    report = cli("quantize", bundle, "-o", tmp_path / "two", "--precision", "int8-fp16", "--json").json
    for graph in ("memory_encoder", "live_stage_a", "live_stage_b", "decoder_step"):
        (note,) = report["graphs"][graph]["notes"]
        assert "relative_attention_bias.table: position bias reaches" in note


def test_the_options_are_recorded(cli, bundle, tmp_path):
    output = tmp_path / "out"
    done = cli(
        "quantize", bundle, "-o", output, "--graphs", "live_stage_b, decoder_step", "--keep", r"\.wo/", "--keep",
        "lm_head", "--method", "percentile", "--cpu", "arm",
    )
    assert done.code == 0, done.err
    assert "live_stage_b" in done.out
    manifest = read_manifest(output)
    entry = manifest.quantization
    assert (entry.cpu_kind, entry.method, entry.keep) == ("arm", "percentile", (r"\.wo/", "lm_head"))
    precisions = {name: graph.precision for name, graph in manifest.graphs.items()}
    assert precisions == {
        name: "int8" if name in ("live_stage_b", "decoder_step") else "fp32" for name in manifest.graphs
    }
    graph = onnx.load(output / "graphs" / "decoder_step.onnx").graph
    floats = [node.name for node in graph.node if node.op_type == "MatMul" and ".wo/" in node.name]
    stored = {item.name for item in graph.initializer if item.data_type == onnx.TensorProto.INT8}
    assert floats
    assert stored
    assert not any("wo" in name.split(".") or "lm_head" in name for name in stored)


def test_a_graph_left_alone_is_the_exported_one(cli, bundle, tmp_path):
    assert cli("quantize", bundle, "-o", tmp_path / "out", "--graphs", "decoder_step").code == 0
    for name in ("memory_encoder", "live_stage_a", "live_stage_b"):
        before, after = (onnx.load(path / "graphs" / f"{name}.onnx").graph for path in (bundle, tmp_path / "out"))
        assert [node.op_type for node in before.node] == [node.op_type for node in after.node]


def test_overwrite(cli, bundle, tmp_path):
    output = tmp_path / "out"
    assert cli("quantize", bundle, "-o", output).code == 0
    assert cli("quantize", bundle, "-o", output, "--precision", "fp16", "--target", "tensorrt", "--overwrite").code == 0
    assert read_manifest(output).quantization.target == "tensorrt"


def test_equal_inputs_give_equal_bytes(cli, bundle, tmp_path):
    for name in ("one", "two"):
        assert cli("quantize", bundle, "-o", tmp_path / name, "--precision", "int8-fp16").code == 0
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")


def test_a_device_quantises_without_the_torch_side(bundle, tmp_path):
    absent = "torch,transformers,onnxscript"
    done = run_without(absent, "quantize", bundle, "-o", tmp_path / "out", "--precision", "int8-fp16")
    assert done.returncode == 0, done.stderr
    assert Bundle.open(tmp_path / "out").manifest.quantization.target == "cpu"


def test_an_uncalibrated_bundle_is_refused(refused, glimmer, tmp_path):
    bundle = copy_bundle(glimmer, tmp_path / "plain")
    message = refused(CalibrationError, "quantize", bundle)
    assert "glimmer-export calibrate" in message


@pytest.mark.parametrize("command", ["quantize", "calibrate"])
def test_a_quantised_bundle_is_refused(cli, refused, glimmer, bundle, tmp_path, command):
    assert cli("quantize", bundle, "-o", tmp_path / "int8").code == 0
    rest = () if command == "quantize" else ("--questions", questions(tmp_path), "--store", glimmer.store)
    errors = BundleError if command == "quantize" else CalibrationError
    assert "the FP32" in refused(errors, command, tmp_path / "int8", *rest)


def questions(directory: Path) -> Path:
    path = directory / "questions.jsonl"
    path.write_text("".join(json.dumps({"question": text}) + "\n" for text in QUESTIONS), encoding="utf-8")
    return path


def test_the_table_of_other_graphs_is_refused(refused, exported, bundle):
    """The manifest vouches for the table, but the table was made of other graphs."""
    other = calibrated(exported("glimmer, exact algebra"))
    replace_table(bundle, lambda work: shutil.copytree(other / "calibration", work / "calibration"))
    assert "calibrate" in refused(CalibrationError, "quantize", bundle)


def test_a_changed_table_is_refused(refused, bundle):
    path = next(path for path in (bundle / "calibration").iterdir() if path.suffix != ".json")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "SHA-256" in refused(BundleError, "quantize", bundle)


def replace_table(bundle: Path, write: Callable[[Path], object]) -> None:
    shutil.rmtree(bundle / "calibration")
    write(bundle)
    files = sorted(path for path in (bundle / "calibration").iterdir())
    order = [Path(entry.path).name for entry in read_manifest(bundle).calibration]
    files.sort(key=lambda path: order.index(path.name))
    entries = tuple(
        FileEntry.of(bundle, path) for path in files
    )
    change_manifest(bundle, calibration=entries)


def change_manifest(bundle: Path, **changes: object) -> None:
    manifest = read_manifest(bundle)
    changed = BundleManifest(**{**vars(manifest), **changes})
    (bundle / MANIFEST).write_text(record_to_json(changed), encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--keep", "(wo"], "--keep: expected a regular expression, found '(wo'"),
        (["--graphs", "decoder_step,encoder"], "--graphs: expected some of memory_encoder"),
        (["--graphs", ""], "--graphs"),
        (["--gpu", "t4"], "--gpu: expected no GPU for --target cpu, found t4"),
        (["--gpu", "cpu", "--target", "tensorrt"], "--gpu: expected a machine with a GPU, found cpu"),
        (["--cpu", "arm", "--target", "tensorrt"], "--cpu: expected none for --target tensorrt, found arm"),
        (["--policy", "int3"], "policy 'int3': expected one of int8, naive"),
        (["--policy", "no/such.yaml"], "policy 'no/such.yaml'"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(refused, bundle, arguments, expected):
    assert expected in refused(OptionError, "quantize", bundle, *arguments)


@pytest.mark.parametrize("option", ["--precision", "--target", "--cpu", "--method"])
def test_an_unknown_choice_is_a_usage_error(cli, bundle, option):
    done = cli("quantize", bundle, option, "int2")
    assert (done.code, done.out) == (2, "")
    assert "int2" in done.err
    assert not list(bundle.parent.glob("bundle-*"))


def test_an_output_that_exists_is_refused(refused, bundle, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    refused(OutputError, "quantize", bundle, "-o", tmp_path / "out")
    refused(OutputError, "quantize", bundle, "-o", bundle, "--overwrite")


def test_a_bundle_that_is_none_is_refused(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(BundleError, "quantize", tmp_path / "empty")


NAIVE = "naive.yaml"


def policy_file(directory: Path, change: Callable[[dict], object]) -> Path:
    data = yaml.safe_load((configs_directory() / "precision" / NAIVE).read_text(encoding="utf-8"))
    change(data)
    path = directory / "policy.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


POLICY_CORRUPTIONS: dict[str, tuple[Callable[[dict], object], str]] = {
    "unknown key": (lambda data: data.update(bits=4), "bits"),
    "missing key": (lambda data: data.pop("keep"), "keep"),
    "unknown place": (lambda data: data["equalize"].update(scores=0.5), "equalize.scores"),
    "missing place": (lambda data: data["equalize"].pop("norms"), "equalize.norms"),
    "strength a string": (lambda data: data["equalize"].update(norms="0.5"), "equalize.norms"),
    "strength above one": (lambda data: data["equalize"].update(norms=1.5), "equalize.norms"),
    "strength below zero": (lambda data: data["equalize"].update(heads=-0.1), "equalize.heads"),
    "strength not a number": (lambda data: data["equalize"].update(heads=float("nan")), "found NaN in .* heads"),
    "keep a string": (lambda data: data.update(keep="wo"), "keep"),
    "keep of numbers": (lambda data: data.update(keep=[1]), "keep.0"),
    "bad expression": (lambda data: data.update(keep=["wo", "("]), "keep.1: .*no regular expression"),
    "bad token expression": (lambda data: data.update(token_scales=["[a"]), "token_scales.0: .*no regular expression"),
    "empty expression": (lambda data: data.update(keep=[""]), "keep.0"),
    "flag a string": (lambda data: data.update(lazy_layer="yes please"), "lazy_layer"),
    "flag a number": (lambda data: data.update(embeddings=1), "embeddings"),
    "no description": (lambda data: data.update(description=""), "description"),
}


@pytest.mark.parametrize("name", POLICY_CORRUPTIONS)
def test_a_damaged_policy_is_refused(refused, bundle, tmp_path, name):
    import re

    change, expected = POLICY_CORRUPTIONS[name]
    message = refused(OptionError, "quantize", bundle, "--policy", policy_file(tmp_path, change))
    assert re.search(expected, message), message


@pytest.mark.parametrize("content", ["", "- a list", "{unclosed", "just text", "a: *nothing", b"\xff\xfe"])
def test_a_policy_that_is_no_mapping_is_refused(refused, bundle, tmp_path, content):
    path = tmp_path / "policy.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert str(path) in refused(OptionError, "quantize", bundle, "--policy", path)


def test_a_policy_file_of_ones_own(cli, bundle, tmp_path):
    path = policy_file(tmp_path, lambda data: data.update(keep=["."]))
    report = cli("quantize", bundle, "-o", tmp_path / "out", "--policy", path, "--json").json
    assert all(not graph["int8"] for graph in report["graphs"].values())


class TestFp16Ranges:
    """A table that says what FP16 cannot hold, where no rescale can help: it stays in FP32, and that is said."""

    @staticmethod
    def enlarge(bundle: Path, graph: str, part: str, factor: float) -> str:
        """Multiply the range of the tensors with `part` in their name; returns the first's name."""
        table = read_ranges(bundle, read_manifest(bundle))
        names = [name for name in table.graphs[graph] if part in name]
        assert names
        for name in names:
            old = table.graphs[graph][name]
            table.graphs[graph][name] = TensorRange(
                old.minimum * factor, old.maximum * factor, old.count, old.limit * factor, old.histogram,
                None if old.channel_amax is None else old.channel_amax * np.float32(factor),
            )
        replace_table(bundle, lambda work: write_ranges(work, table))
        return names[0]

    @pytest.mark.parametrize("precision", ["fp16", "int8-fp16"])
    def test_scores_beside_a_mask(self, cli, bundle, tmp_path, precision):
        graph = onnx.load(bundle / "graphs" / "live_stage_b.onnx").graph
        softmax = next(node for node in graph.node if node.op_type == "Softmax")
        add = next(node for node in graph.node if softmax.input[0] in node.output)
        scores = next(name for name in add.input if "bias" not in name)
        self.enlarge(bundle, "live_stage_b", scores, 2.0**14)
        options = ("--precision", precision, "--target", "tensorrt", "--json")
        report = cli("quantize", bundle, "-o", tmp_path / "out", *options).json
        assert any(f"{scores} reaches" in line for line in report["graphs"]["live_stage_b"]["kept_fp32"])

    @pytest.mark.parametrize("precision", ["fp16", "int8-fp16"])
    def test_keys_and_values_between_graphs(self, cli, glimmer, bundle, tmp_path, precision):
        large = "past_key_values.1.encoder.value"
        self.enlarge(bundle, "cross_kv", large, 2.0**12)  # FP16 holds it, with less than a factor of two left
        options = ("--precision", precision, "--target", "tensorrt", "--json")
        graphs = cli("quantize", bundle, "-o", tmp_path / "out", *options).json["graphs"]
        said = f"{large}: goes to other graphs in FP32, as it reaches"
        assert any(note.startswith(said) for note in graphs["cross_kv"]["notes"])
        assert not any("FP32" in note for name in ("live_stage_b", "decoder_step") for note in graphs[name]["notes"])
        manifest = read_manifest(tmp_path / "out")
        assert set(boundaries_of(manifest.io())) - set(manifest.fp16_boundaries) == {large}
        with Session.open(tmp_path / "out", glimmer.store, threads=1) as session:
            answers = session.answer_many(QUESTIONS)
        assert all(answer.answer is not None for answer in answers)
