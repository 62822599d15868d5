"""What a manifest says of precision and quantisation: read back as written, and refused by name where it is wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import MANIFEST, BundleError, QuantizationEntry, read_manifest, record_to_json
from tests.bundle_factory import rewrite
from tests.exported import Exported, copy_bundle

CPU = {"target": "cpu", "cpu_kind": "x86-vnni", "method": "max", "policy": "int8", "residual_scales": {}, "keep": []}
TENSORRT = {
    "target": "tensorrt", "cpu_kind": None, "method": "percentile", "policy": None,
    "residual_scales": {"live_stage_b": 0.0625},
    "keep": ["/wo/", r"^decoder_step/.*\.o/"],
}


@pytest.fixture
def bundle(glimmer: Exported, tmp_path: Path) -> Path:
    return copy_bundle(glimmer, tmp_path / "bundle")


@pytest.mark.parametrize("entry", [CPU, TENSORRT])
def test_the_entry_is_read_as_it_was_written(bundle, entry):
    rewrite(bundle / MANIFEST, quantization=entry)
    manifest = Bundle.open(bundle).manifest
    assert manifest.quantization == QuantizationEntry(**{**entry, "keep": tuple(entry["keep"])})
    (bundle / MANIFEST).write_text(record_to_json(manifest), encoding="utf-8")
    assert read_manifest(bundle) == manifest


ENTRY_CORRUPTIONS: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], object], str]] = {
    "unknown target": (CPU, lambda entry: entry.update(target="tpu"), "the target cpu with a kind .* found tpu"),
    "cpu of no kind": (CPU, lambda entry: entry.update(cpu_kind=None), "with a kind of CPU"),
    "cpu of an unknown kind": (CPU, lambda entry: entry.update(cpu_kind="riscv"), "found cpu, riscv"),
    "tensorrt with a cpu": (TENSORRT, lambda entry: entry.update(cpu_kind="arm"), "found tensorrt, arm"),
    "target of another type": (CPU, lambda entry: entry.update(target=1), "target"),
    "method of another type": (CPU, lambda entry: entry.update(method=["max"]), "method"),
    "keep a string": (CPU, lambda entry: entry.update(keep="wo"), "keep"),
    "keep of numbers": (CPU, lambda entry: entry.update(keep=[1]), "keep"),
    "unknown field": (CPU, lambda entry: entry.update(bits=8), "bits"),
    "missing field": (CPU, lambda entry: entry.pop("residual_scales"), "residual_scales"),
    "scale odd": (TENSORRT, lambda entry: entry["residual_scales"].update(live_stage_b=0.3), "power of two"),
    "scale above one": (TENSORRT, lambda entry: entry["residual_scales"].update(live_stage_b=2.0), "power of two"),
    "scale zero": (TENSORRT, lambda entry: entry["residual_scales"].update(live_stage_b=0.0), "power of two"),
    "scale negative": (TENSORRT, lambda entry: entry["residual_scales"].update(live_stage_b=-0.5), "power of two"),
    "scale a string": (TENSORRT, lambda entry: entry["residual_scales"].update(live_stage_b="0.5"), "live_stage_b"),
    "scale of no graph": (TENSORRT, lambda entry: entry["residual_scales"].update(encoder=0.5), "scale of encoder"),
}


@pytest.mark.parametrize("name", ENTRY_CORRUPTIONS)
def test_a_wrong_entry_is_refused(bundle, name):
    valid, damage, expected = ENTRY_CORRUPTIONS[name]
    entry = copy.deepcopy(valid)
    damage(entry)
    rewrite(bundle / MANIFEST, quantization=entry)
    with pytest.raises(BundleError, match=expected):
        Bundle.open(bundle)


@pytest.mark.parametrize("entry", ["int8", [], 0, True])
def test_an_entry_that_is_no_record_is_refused(bundle, entry):
    rewrite(bundle / MANIFEST, quantization=entry)
    with pytest.raises(BundleError, match="quantization"):
        Bundle.open(bundle)


@pytest.mark.parametrize("precision", ["int4", "", "FP16", "fp16-int8", 8, None])
def test_a_precision_that_no_graph_has_is_refused(bundle, precision):
    graphs = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))["graphs"]
    graphs["live_stage_b"]["precision"] = precision
    rewrite(bundle / MANIFEST, graphs=graphs)
    with pytest.raises(BundleError, match="precision"):
        Bundle.open(bundle)


@pytest.mark.parametrize("field", ["quantization", "calibration"])
def test_a_manifest_without_the_field_is_refused(bundle, field):
    data = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    del data[field]
    (bundle / MANIFEST).write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(BundleError, match=field):
        Bundle.open(bundle)
