"""`glimmer-export lint`: its exit codes, and findings as text and as JSON."""

from __future__ import annotations

import json

import pytest

from glimmer_export.exporter.bundle.quantize import QuantizeOptions, quantize_bundle
from glimmer_export.exporter.config.read import config_names
from glimmer_export.runtime.contract import BundleError
from tests.calibrated import calibrated
from tests.exported import copy_bundle


@pytest.mark.parametrize("target", config_names("target"))
def test_an_exported_bundle_has_nothing_to_find(cli, glimmer, target):
    assert f"graphs for {target}: nothing found" in cli("lint", glimmer.bundle, "--target", target).out


def test_nothing_to_find_is_an_empty_list(cli, glimmer):
    assert cli("lint", glimmer.bundle, "--target", "t4", "--json").json == []


def test_int8_for_a_cpu_is_no_int8_for_tensorrt(cli, glimmer, tmp_path):
    bundle = tmp_path / "int8"
    quantize_bundle(calibrated(glimmer), bundle, QuantizeOptions("int8", "cpu", cpu="x86-vnni"))
    assert cli("lint", bundle, "--target", "cpu").code == 0
    done = cli("lint", bundle, "--target", "jetson-orin-agx", "--json")
    assert done.code == 1
    findings = json.loads(done.out)
    assert {finding["rule"] for finding in findings} >= {"qdq-signed", "qdq-zero-point"}
    assert all(set(finding) == {"graph", "node", "rule", "source", "found", "fix", "text"} for finding in findings)
    shown = cli("lint", bundle, "--target", "jetson-orin-agx")
    assert shown.code == 1
    assert all(finding["text"] in shown.out for finding in findings)
    assert shown.out.splitlines()[-1].endswith(f"graphs for jetson-orin-agx: {len(findings)} findings")


def test_the_compiler_makes_a_difference(cli, glimmer):
    assert cli("lint", glimmer.bundle, "--target", "t4").code == 0
    done = cli("lint", glimmer.bundle, "--target", "t4", "--compiler", "tensorrt-rtx", "--json")
    assert done.code == 1
    assert {finding["rule"] for finding in json.loads(done.out)} == {"fp32-product"}
    assert cli("lint", glimmer.bundle, "--target", "jetson-orin-agx", "--compiler", "tensorrt-rtx").code == 0


def test_bad_input_exits_with_2(cli, refused, glimmer, tmp_path):
    refused(BundleError, "lint", tmp_path, "--target", "t4")
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    (bundle / "graphs" / "decoder_step.onnx").write_bytes(b"no graph")
    refused(BundleError, "lint", bundle, "--target", "t4")
    assert cli("lint", glimmer.bundle, "--target", "t5").code == 2
    assert cli("lint", glimmer.bundle).code == 2
