"""`glimmer-export quantize --weight-only`: which products have few bits, what the bundle says, what is refused."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict

import onnx
import pytest

from glimmer_export.calibration.policy import Policy
from glimmer_export.exporter.bundle.quantize import QuantizeOptions, quantize_bundle
from glimmer_export.exporter.bundle.weight_only import WeightOnlyOptions
from glimmer_export.exporter.config.read import read_config
from glimmer_export.runtime import Session
from glimmer_export.runtime.backends.registry import backend_kinds
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import (
    MANIFEST,
    BackendError,
    BundleError,
    EngineError,
    OptionError,
    read_manifest,
    record_to_json,
)
from tests.calibrated import calibrated
from tests.cli.conftest import snapshot
from tests.exported import QUESTIONS


@pytest.fixture
def bundle(glimmer, tmp_path):
    return shutil.copytree(calibrated(glimmer), tmp_path / "bundle")


@pytest.fixture(scope="module")
def narrow(glimmer, tmp_path_factory):
    """The decoder's weights in 4 bits, all else as it was; read only."""
    place = tmp_path_factory.mktemp("narrow") / "w4"
    quantize_bundle(glimmer.bundle, place, QuantizeOptions("fp32", "cpu", weight_only=WeightOnlyOptions("int4")))
    return place


def block_products(bundle, name="decoder_step"):
    """By node its attributes."""
    path = Bundle.open(bundle).graph_path(name)
    return {
        node.name: {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        for node in onnx.load(path, load_external_data=False).graph.node if node.op_type == "MatMulNBits"
    }


@pytest.mark.parametrize(("weights", "token"), [("int4", "w4"), ("int8", "w8")])
@pytest.mark.parametrize("precision", [None, "int8"])
def test_the_bundle_says_how_it_was_made_and_answers(cli, glimmer, bundle, precision, weights, token):
    asked = () if precision is None else ("--precision", precision)
    before = snapshot(bundle)
    report = cli("quantize", bundle, *asked, "--weight-only", weights, "--accuracy-level", "1", "--json").json
    place = bundle.with_name("-".join(["bundle", *([precision] if precision else []), token, "cpu"]))
    assert (report["bundle"], snapshot(bundle)) == (str(place), before)
    manifest = Bundle.open(place).manifest
    bits = int(token[1:])
    assert asdict(manifest.quantization.weight_only) == {
        "graphs": ("decoder_step",), "bits": bits, "block_size": 32, "accuracy_level": 1, "algorithm": "k-quant",
        "eight_bit": read_config("policy", "int8", Policy).eight_bit if bits == 4 else (),
    }
    products = block_products(place)
    expected = {
        name: 8 if "lm_head" in name or "EncDecAttention.o/" in name else bits for name in products
    }  # as the policy has it
    assert report["graphs"]["decoder_step"]["blocks"] == expected
    assert {name: product["bits"] for name, product in products.items()} == expected
    assert {8, bits} == {*expected.values()}
    assert "lm_head/MatMul" in products
    assert {(product["block_size"], product["accuracy_level"]) for product in products.values()} == {(32, 1)}
    graph = onnx.load(Bundle.open(place).graph_path("decoder_step"), load_external_data=False).graph
    matrices = {item.name for item in graph.initializer if len(item.dims) == 2 and item.data_type == 1}
    assert not [node.name for node in graph.node if node.op_type in ("MatMul", "Gemm") and {*node.input} & matrices]
    others = {name: entry.precision for name, entry in manifest.graphs.items() if name != "decoder_step"}
    assert set(others.values()) == {precision or "fp32"}
    assert manifest.graphs["decoder_step"].precision == (f"int8-{token}" if precision else token)
    source = read_manifest(bundle).graphs["decoder_step"]
    assert manifest.graphs["decoder_step"].weight_bytes < source.weight_bytes
    assert manifest.graphs["decoder_step"].num_parameters == source.num_parameters
    with Session.open(place, glimmer.store, threads=1) as session:
        answers = session.answer_many(QUESTIONS)
    assert all(answer.error is None for answer in answers)
    shown = " ".join(re.sub("[│┃]", " ", cli("inspect", place).out).split())
    assert f"weights of {bits} bits" in shown
    assert "in blocks of 32 by k-quant, accuracy level 1: decoder_step" in shown


def test_no_table_of_ranges_is_needed_beside_fp32(glimmer, narrow):
    """Every graph and codec of the bundle is there."""
    before, after = read_manifest(glimmer.bundle), read_manifest(narrow)
    assert not before.calibration
    assert (after.codecs, list(after.graphs)) == (before.codecs, list(before.graphs))
    assert after.quantization.method is None


def test_some_products_of_four_bits_have_eight_and_some_stay(cli, bundle, tmp_path):
    report = cli(
        "quantize", bundle, "--weight-only", "int4", "-o", tmp_path / "out", "--eight-bit", r"\.wi", "--keep",
        r"\.wo/", "--json",
    ).json
    products = block_products(tmp_path / "out")
    assert {name: product["bits"] for name, product in products.items()} == report["graphs"]["decoder_step"]["blocks"]
    assert {product["bits"] for name, product in products.items() if ".wi" in name} == {8}
    assert {product["bits"] for name, product in products.items() if ".SelfAttention." in name} == {4}
    assert not [name for name in products if ".wo/" in name]
    assert [name for name in report["graphs"]["decoder_step"]["kept"] if ".wo/" in name]
    assert read_manifest(tmp_path / "out").quantization.weight_only.eight_bit[-1] == r"\.wi"


def test_a_policy_names_what_has_eight_bits(cli, bundle, tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "description: x\nequalize: {feed_forward: null, values: null, norms: null, heads: null}\ntoken_scales: []\n"
        "keep: []\nlazy_layer: true\nembeddings: true\neight_bit: [lm_head]\n", encoding="utf-8",
    )
    done = cli("quantize", bundle, "--weight-only", "int4", "-o", tmp_path / "out", "--policy", policy)
    assert done.code == 0, done.err
    assert block_products(tmp_path / "out")["lm_head/MatMul"]["bits"] == 8
    assert read_manifest(tmp_path / "out").quantization.weight_only.eight_bit == ("lm_head",)


def test_other_graphs_where_they_are_named(cli, bundle, tmp_path):
    done = cli("quantize", bundle, "--weight-only", "int8", "--weight-graphs", "live_stage_b, decoder_step", "-o",
               tmp_path / "out")
    assert done.code == 0, done.err
    manifest = read_manifest(tmp_path / "out")
    assert {name for name, graph in manifest.graphs.items() if graph.precision == "w8"} == {
        *manifest.quantization.weight_only.graphs
    }
    assert all(block_products(tmp_path / "out", name) for name in manifest.quantization.weight_only.graphs)
    assert {name.split(".")[0] for name in manifest.quantization.weight_only.graphs} == {"live_stage_b", "decoder_step"}


def test_gptq_asks_real_questions(cli, glimmer, bundle, tmp_path):
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"question": text}) + "\n" for text in QUESTIONS), encoding="utf-8")
    asked = ("--algorithm", "gptq", "--questions", questions, "--store", glimmer.store, "--threads", "1")
    logits = {}
    ways = {"rtn": ("int4", "--algorithm", "rtn"), "gptq": ("int4", *asked), "eight bits": ("int8",)}
    for name, way in ways.items():
        done = cli("quantize", bundle, "-o", tmp_path / name, "--accuracy-level", "1", "--weight-only", *way)
        assert done.code == 0, done.err
        report = cli(
            "parity", tmp_path / name, "--reference", bundle, "--store", glimmer.store, "--questions", questions,
            "--threads", "1", "--json",
        ).json
        logits[name] = report["graphs"]["decoder_step"]["snr_db"]
    assert read_manifest(tmp_path / "gptq").quantization.weight_only.algorithm == "gptq"
    assert logits["gptq"] > logits["rtn"] + 1
    assert logits["eight bits"] > logits["rtn"] + 10


def test_equal_inputs_give_equal_bytes(narrow, glimmer, tmp_path):
    quantize_bundle(
        glimmer.bundle, tmp_path / "again", QuantizeOptions("fp32", "cpu", weight_only=WeightOnlyOptions("int4"))
    )
    assert snapshot(narrow) == snapshot(tmp_path / "again")


WRONG = {
    "another target": (("--target", "tensorrt"), "10.14"),
    "a float of 16 bits": (("--precision", "fp16"), "fp32 or int8"),
    "a graph that is none": (("--weight-graphs", "decoder"), "found decoder"),
    "eight bits of nothing": (("--eight-bit", "nobody"), "which names none"),
    "no expression": (("--eight-bit", "("), "regular expression"),
    "no questions": (("--algorithm", "gptq"), "--questions"),
    "graphs of no precision": (("--graphs", "decoder_step"), "--weight-graphs"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_go_together_is_refused(refused, bundle, tmp_path, name):
    options, expected = WRONG[name]
    message = refused(OptionError, "quantize", bundle, "--weight-only", "int4", "-o", tmp_path / "out", *options)
    assert expected in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [
    ("--algorithm", "rtn"), ("--accuracy-level", "1"), ("--eight-bit", "lm_head"), ("--weight-graphs", "decoder_step"),
    ("--precision", "fp32"), ("--samples", "3"),
])
def test_how_without_what_is_refused(refused, bundle, options):
    assert "--weight-only" in refused(OptionError, "quantize", bundle, *options)


def test_a_quantised_bundle_is_refused(refused, narrow):
    assert "quantised already" in refused(BundleError, "quantize", narrow, "--weight-only", "int4")


@pytest.mark.parametrize("backend", [kind.name for kind in backend_kinds() if not kind.few_bit_weights])
def test_a_backend_that_cannot_run_it_refuses_by_name(narrow, glimmer, backend):
    with pytest.raises(BackendError, match=rf"backend {backend}.*decoder_step with weights of 4 bits.*MatMulNBits"):
        Session.open(narrow, glimmer.store, backend=backend)


def test_no_engine_is_built_of_it(cli, refused, narrow, tmp_path):
    bundle = shutil.copytree(narrow, tmp_path / "copy")
    refused(EngineError, "build", bundle, "--target", "t4", "--compiler", "tensorrt-rtx")
    assert "found com.microsoft.MatMulNBits" in cli("lint", bundle, "--target", "t4").out.replace("\n", " ")


DAMAGE = {
    "another graph": (lambda entry: entry.update(graphs=["live_stage_a"]), "decoder_step of 4 bits"),
    "other bits": (lambda entry: entry.update(bits=8), "decoder_step of 4 bits"),
    "bits that are none": (lambda entry: entry.update(bits=3), "weight_only"),
    "another block": (lambda entry: entry.update(block_size=64), "block_size"),
    "another level": (lambda entry: entry.update(accuracy_level=2), "accuracy_level"),
    "another algorithm": (lambda entry: entry.update(algorithm="awq"), "algorithm"),
    "unknown field": (lambda entry: entry.update(group=1), "group"),
    "missing field": (lambda entry: entry.pop("algorithm"), "algorithm"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_wrong_entry_is_refused(narrow, tmp_path, name):
    damage, expected = DAMAGE[name]
    data = json.loads((narrow / MANIFEST).read_text(encoding="utf-8"))
    damage(data["quantization"]["weight_only"])
    (tmp_path / MANIFEST).write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(BundleError, match=expected):
        read_manifest(tmp_path)


def test_weights_of_few_bits_that_the_entry_does_not_state_are_refused(narrow, tmp_path):
    data = json.loads((narrow / MANIFEST).read_text(encoding="utf-8"))
    data["quantization"]["weight_only"] = None
    (tmp_path / MANIFEST).write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(BundleError, match=r"decoder_step of 4 bits, found no graph"):
        read_manifest(tmp_path)


def test_the_entry_is_read_as_it_was_written(narrow, tmp_path):
    manifest = read_manifest(narrow)
    (tmp_path / MANIFEST).write_text(record_to_json(manifest), encoding="utf-8")
    assert read_manifest(tmp_path) == manifest
