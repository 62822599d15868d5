"""Stores in two codecs side by side: what the codec costs, and nothing else, is the store's."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from glimmer_export.calibration.calibrate import CalibrationOptions
from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.bundle.calibrate import calibrate_bundle
from glimmer_export.exporter.bundle.quantize import QuantizeOptions, quantize_bundle
from glimmer_export.exporter.memory import build_store, convert_store
from glimmer_export.exporter.parity import ParityOptions, compare_with_bundle, compare_with_checkpoint
from glimmer_export.runtime import Session
from glimmer_export.runtime.contract import CODEC_ARRAYS, MANIFEST, OptionError, StoreError, read_manifest
from tests.bundle_factory import entry, rewrite, write_rows
from tests.exported import CORPUS, QUESTIONS

ROWS = [Question(str(place), text, (), None, ()) for place, text in enumerate(QUESTIONS)]
MANY = [Question(f"m{place}", f"w{place} w{place % 7} w{place % 11}", (), None, ()) for place in range(40)]
"""Enough for some to be ranked otherwise from memory that is wrong."""
PARTS = ["memory_encoder_store", "memory_encoder_question", "live_stage_a", "live_stage_b", "decoder"]


@pytest.fixture(scope="module")
def source(exported):
    return exported("glimmer, codecs")


@pytest.fixture(scope="module")
def stores(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    build_store(source.bundle, write_rows(folder / "corpus.jsonl", CORPUS), folder / "fp16", threads=1)
    convert_store(folder / "fp16", folder / "int8", "int8")
    convert_store(folder / "fp16", folder / "pq16x", "pq16x")
    make_coarse(folder / "pq16x")
    return folder


def make_coarse(store):
    """Let each code stand for the channels of another: however well the codec was fitted, much is lost."""
    arrays = load_file(store / CODEC_ARRAYS)
    save_file({**arrays, "memory_codebook": np.roll(arrays["memory_codebook"], 1, axis=-1)}, store / CODEC_ARRAYS)
    rewrite(store / MANIFEST, codec_arrays=vars(entry(store, store / CODEC_ARRAYS)))


def options(stores, codec, **rest):
    return ParityOptions(reference_store=stores / codec, attribution=True, threads=1, **rest)


@pytest.mark.parametrize("reference", ["bundle", "checkpoint"])
def test_only_the_store_is_blamed_for_its_codec(source, stores, reference):
    settings = options(stores, "fp16")
    if reference == "bundle":
        report = compare_with_bundle(source.bundle, source.bundle, stores / "pq16x", MANY, settings)
    else:
        report = compare_with_checkpoint(source.bundle, source.checkpoint, stores / "pq16x", MANY, settings)
    # What both sides share is not swapped: of one bundle, all that reads no memory.
    parts = ["live_stage_a", "live_stage_b"] if reference == "bundle" else PARTS
    assert list(report.attribution) == ["store_codec", *parts]
    assert report.costliest_part == "store_codec"
    blamed = report.attribution["store_codec"]
    assert blamed.top_m_overlap == report.top_m_overlap < 1
    assert blamed.answers_equal == report.answers_equal
    for part in parts:
        assert report.attribution[part].top_m_overlap == report.attribution[part].answers_equal == 1.0
    # Graphs are compared on the reference's memory, in its codec.
    assert set(report.graphs) == {"memory_encoder", "live_stage_a", "live_stage_b", "decoder_step"}
    assert max(error.max_abs_err for error in report.graphs.values()) < 1e-3


def test_one_codec_on_both_sides_is_equal_to_the_last_token(source, stores):
    report = compare_with_checkpoint(source.bundle, source.checkpoint, stores / "int8", ROWS, ParityOptions(threads=1))
    assert report.answers_equal == report.top_m_overlap == 1.0
    assert report.memory_max_abs_err > 1e-3


def test_a_bundle_without_the_other_codec_is_named(source, stores, tmp_path):
    bundle = shutil.copytree(source.bundle, tmp_path / "bundle")
    manifest = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    kept = {name: graph for name, graph in manifest["graphs"].items() if "." not in name or name.endswith(".int8")}
    for name in ("live_stage_a", "live_stage_b"):
        del kept[name]
    for name in manifest["graphs"].keys() - kept.keys():
        (bundle / "graphs" / f"{name}.onnx").unlink()
    rewrite(bundle / MANIFEST, graphs=kept, codecs=["int8"])
    with pytest.raises((OptionError, StoreError), match="codec"):
        compare_with_bundle(bundle, source.bundle, stores / "int8", ROWS, options(stores, "fp16"))


def test_a_quantised_bundle_serves_the_codec_that_it_was_calibrated_on(source, stores, tmp_path):
    bundle = shutil.copytree(source.bundle, tmp_path / "bundle")
    calibrate_bundle(bundle, stores / "int8", ROWS, CalibrationOptions(threads=1))
    done = quantize_bundle(bundle, tmp_path / "int8", QuantizeOptions("int8", "cpu"))
    assert list(done) == ["memory_encoder", "live_stage_a", "live_stage_b", "decoder_step"]
    manifest = read_manifest(tmp_path / "int8")
    assert manifest.codecs == ("int8",)
    assert list(manifest.graphs) == ["memory_encoder", "live_stage_a.int8", "live_stage_b.int8", "decoder_step"]
    assert "int8" in manifest.graphs["live_stage_b.int8"].precision
    report = compare_with_bundle(tmp_path / "int8", source.bundle, stores / "int8", ROWS, ParityOptions(threads=1))
    assert report.top_m_overlap > 0.5
    with pytest.raises(StoreError, match="in a codec that it decodes, int8, found fp16"):
        Session.open(tmp_path / "int8", stores / "fp16", threads=1)
