"""Files that earlier versions wrote still open, and mean what they meant: tests/golden, by tests/golden/write.py."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from glimmer_export.calibration.questions import Question
from glimmer_export.calibration.ranges_file import read_ranges
from glimmer_export.exporter.bundle.quantize import QuantizeOptions, quantize_bundle
from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.memory import append_passages, compact_store, convert_store, verify_store
from glimmer_export.exporter.parity import ParityOptions, compare_with_checkpoint
from glimmer_export.exporter.stages import model_from_checkpoint
from glimmer_export.exporter.tolerances import TOLERANCES
from glimmer_export.runtime import Passage, PassageTruncatedWarning, Session
from glimmer_export.runtime.contract import (
    BUNDLE_SCHEMA_VERSION,
    MANIFEST,
    PARITY_RECORD,
    PARITY_SCHEMA_VERSION,
    STORE_SCHEMA_VERSION,
    BundleError,
    read_manifest,
    read_parity_records,
    read_store_manifest,
)
from tests.bundle_factory import write_rows
from tests.exported import CORPUS, QUESTIONS
from tests.golden.whole import whole
from tests.golden.write_store import CODEC, decoded

GOLDEN = Path(__file__).with_name("golden")
SCHEMA_5, SCHEMA_6, SCHEMA_7, SCHEMA_8, SCHEMA_9 = (whole(f"schema{number}") for number in (5, 6, 7, 8, 9))
STORES = [*(f"store-{codec}" for codec in ("fp16", "int8", "int4", "pq8x", "pq16x")), "store-tantivy"]
STORE_5 = GOLDEN / "store5" / "store-segments"
STORE_6 = GOLDEN / "store6"
STORE_ANSWERS_5, STORE_ANSWERS_6 = (
    json.loads((GOLDEN / name / "answers.json").read_text(encoding="utf-8")) for name in ("store5", "store6")
)
ANSWERS = json.loads((GOLDEN / "answers.json").read_text(encoding="utf-8"))
ANSWERS_5, ANSWERS_6, ANSWERS_7, ANSWERS_8, ANSWERS_9 = (
    json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    for folder in (SCHEMA_5, SCHEMA_6, SCHEMA_7, SCHEMA_8, SCHEMA_9)
)


def of_schema(bundle: Path) -> str:
    return f"{bundle.parent.name}/{bundle.name}"


def assert_same_answers(answers, expected):
    for answer, row in zip(answers, expected, strict=True):
        assert list(answer.token_ids) == row["tokens"]
        assert [item.passage.id for item in answer.passages] == row["ids"]
        if not row["scores"]:
            continue
        scores = np.array(row["scores"], np.float32)
        limit = TOLERANCES["fp32"].limit(scores) + 5e-5  # the file has four decimals
        assert np.abs(np.array(answer.scores, np.float32) - scores).max() <= limit


@pytest.mark.parametrize("store", STORES)
def test_a_store_is_read_as_it_was(store):
    with Session.open(GOLDEN / "bundle", GOLDEN / store, threads=1) as session:
        assert_same_answers(session.answer_many(QUESTIONS), ANSWERS[store])
    assert not verify_store(GOLDEN / store).damaged


@pytest.mark.parametrize("store", ["store-fp16", "store-int8", "store-tantivy"])
def test_a_store_goes_on_being_changed(store, tmp_path):
    directory = shutil.copytree(GOLDEN / store, tmp_path / "store")
    corpus = write_rows(tmp_path / "new.jsonl", [{"id": "added", "title": "w59", "text": "w58 w58 w59"}])
    append_passages(directory, GOLDEN / "bundle", corpus, threads=1)
    compact_store(directory)
    with Session.open(GOLDEN / "bundle", directory, threads=1) as session:
        answer = session.answer("w59 w58")
    assert "added" in [item.passage.id for item in answer.passages]
    expected = set(ANSWERS[store][QUESTIONS.index("w59 w58")]["ids"])
    assert len(expected - {item.passage.id for item in answer.passages}) <= 1


@pytest.mark.parametrize("retrieval", ["bm25", "dense", "hybrid"])
def test_a_store_of_segments_is_read_as_it_was(retrieval):
    with Session.open(GOLDEN / "bundle", STORE_5, threads=1, retrieval=retrieval) as session:
        assert_same_answers(session.answer_many(QUESTIONS), STORE_ANSWERS_5[retrieval])


def test_a_store_of_segments_has_been_changed_in_all_its_parts():
    """Several segments of each kind, deleted passages, and the build's last shard, of 4, with 7 appended."""
    manifest = json.loads((STORE_5 / MANIFEST).read_text(encoding="utf-8"))
    assert manifest["schema_version"] == 5
    assert [row["num_passages"] for row in manifest["segments"]] == [20, 4, 4, 1]
    assert [row["num_passages"] for row in manifest["shards"]] == [16, 11, 1, 1]
    assert len(manifest["vectors"]["segments"]) > 2
    assert manifest["tombstones"] == [3, 21, 28]
    assert not verify_store(STORE_5).damaged


def test_a_store_of_segments_goes_on_being_changed(tmp_path):
    """Its vectors too, by the encoder that it keeps."""
    directory = shutil.copytree(STORE_5, tmp_path / "store")
    corpus = write_rows(tmp_path / "new.jsonl", [{"id": "added", "title": "w59", "text": "w58 w58 w59"}])
    append_passages(directory, GOLDEN / "bundle", corpus, threads=1)
    compact_store(directory)
    assert not verify_store(directory).damaged
    for retrieval in ("bm25", "dense"):
        with Session.open(GOLDEN / "bundle", directory, threads=1, retrieval=retrieval) as session:
            found = [item.passage.id for item in session.answer("w59 w58").passages]
        assert retrieval == "dense" or "added" in found
        assert not {"row-1", "row-8"} & set(found)


@pytest.mark.parametrize(
    ("store", "retrieval"),
    [("store-segments", "bm25"), ("store-segments", "dense"), ("store-segments", "hybrid"), ("store-fts5", "bm25")],
)
def test_a_store_of_schema_6_is_read_as_it_was(store, retrieval):
    with Session.open(GOLDEN / "bundle", STORE_6 / store, threads=1, retrieval=retrieval) as session:
        assert_same_answers(session.answer_many(QUESTIONS), STORE_ANSWERS_6[store][retrieval])


def test_the_stores_of_schema_6_have_what_they_stand_for():
    """Texts and index that end where each was merged, checksums of both, and vectors that codes find."""
    manifest = read_store_manifest(STORE_6 / "store-segments")
    assert manifest.schema_version == 6
    assert [part.first for part in manifest.texts] != [part.first for part in manifest.segments]
    assert all(part.checksums for part in manifest.texts)
    assert manifest.vectors.quantiser is not None
    assert all(part.codes and part.checksums for part in manifest.vectors.segments)
    assert manifest.tombstones == (3, 277, 284)
    for name in ("store-segments", "store-fts5", "store-rq16x"):
        assert not verify_store(STORE_6 / name).damaged


def test_memory_of_residual_codes_is_decoded_as_it_was():
    found, expected = decoded(STORE_6 / f"store-{CODEC}"), np.load(STORE_6 / "decoded.npy")
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCES["fp32"].limit(expected)


@pytest.mark.parametrize("store", ["store-segments", "store-fts5"])
def test_a_store_of_schema_6_goes_on_being_changed(store, tmp_path):
    directory = shutil.copytree(STORE_6 / store, tmp_path / "store")
    corpus = write_rows(tmp_path / "new.jsonl", [{"id": "added", "title": "w59", "text": "w58 w58 w59"}])
    append_passages(directory, GOLDEN / "bundle", corpus, threads=1)
    compact_store(directory)
    assert not verify_store(directory).damaged
    with Session.open(GOLDEN / "bundle", directory, threads=1) as session:
        found = [item.passage.id for item in session.answer("w59 w58").passages]
    assert "added" in found
    assert not {"row-1", "row-8"} & set(found)


def test_a_store_is_converted(tmp_path):
    convert_store(GOLDEN / "store-fp16", tmp_path / "store", "int8")
    with Session.open(GOLDEN / "bundle", tmp_path / "store", threads=1) as session:
        found = [[item.passage.id for item in answer.passages] for answer in session.answer_many(QUESTIONS)]
    assert found == [row["ids"] for row in ANSWERS["store-fp16"]]


def test_a_checkpoint_is_read():
    model = model_from_checkpoint(read_checkpoint(GOLDEN / "checkpoint"))
    assert model.config.architecture == "glimmer"


def test_a_table_of_ranges_is_read():
    assert read_ranges(GOLDEN / "bundle", read_manifest(GOLDEN / "bundle"))


def test_a_quantised_bundle_opens():
    with Session.open(GOLDEN / "bundle-int8", GOLDEN / "store-int8", threads=1) as session:
        assert all(answer.error is None for answer in session.answer_many(QUESTIONS))


def test_a_parity_record_is_read():
    found = read_parity_records(GOLDEN / "bundle")
    assert (found.schema_version, [record.backend for record in found.records]) == (
        PARITY_SCHEMA_VERSION, ["onnxruntime-cpu"],
    )
    assert found.records[0].gate.passed
    Session.open(GOLDEN / "bundle", GOLDEN / "store-int8", threads=1, require_parity=True).close()
    with pytest.raises(BundleError, match="--backend tensorrt "):
        Session.open(GOLDEN / "bundle", backend="tensorrt", require_parity=True)
    with pytest.raises(BundleError, match="the device itself"):
        Session.open(GOLDEN / "bundle", threads=1, require_parity="device")


WITH_STORES = {
    "schema 5": (SCHEMA_5, ANSWERS_5), "schema 6": (SCHEMA_6, ANSWERS_6), "schema 7": (SCHEMA_7, ANSWERS_7),
    "schema 8": (SCHEMA_8, ANSWERS_8),
}
WITH_FIDS = {**WITH_STORES, "schema 9": (SCHEMA_9, ANSWERS_9)}


@pytest.mark.parametrize(("folder", "expected"), WITH_STORES.values(), ids=WITH_STORES)
@pytest.mark.parametrize("store", ["store-fp16", "store-int8"])
def test_a_bundle_of_schemas_5_to_8_answers_as_it_did(folder, expected, store):
    with Session.open(folder / "bundle", folder / store, threads=1) as session:
        assert_same_answers(session.answer_many(QUESTIONS), expected[store])
    assert not verify_store(folder / store).damaged


@pytest.mark.parametrize(("folder", "expected"), WITH_FIDS.values(), ids=WITH_FIDS)
def test_a_fid_of_schemas_5_to_9_answers_as_it_did(folder, expected):
    given = [Passage(row["id"], row["title"], row["text"]) for row in CORPUS[:4]]
    with Session.open(folder / "bundle-fid", threads=1) as session, warnings.catch_warnings():
        warnings.simplefilter("ignore", PassageTruncatedWarning)
        answers = session.answer_many(QUESTIONS, passages=[given] * len(QUESTIONS))
    assert_same_answers(answers, expected["bundle-fid"])


def test_graphs_of_an_fp16_bundle_of_schema_6_hand_over_fp32():
    """It has no `fp16_boundaries`, and answers with the log-probabilities of the FP32 bundle, within FP16's error."""
    manifest = read_manifest(SCHEMA_6 / "bundle-fp16")
    assert (manifest.schema_version, manifest.fp16_boundaries) == (BUNDLE_SCHEMA_VERSION, ())
    assert {tensor.dtype for graph in manifest.graphs.values() for tensor in graph.outputs} == {"float32", "int32"}
    found = []
    for bundle in ("bundle", "bundle-fp16"):
        with Session.open(SCHEMA_6 / bundle, SCHEMA_6 / "store-int8", threads=1) as session:
            found.append(session.answer_many(QUESTIONS))
    for one, other in zip(*found, strict=True):
        assert one.token_ids == other.token_ids
        limit = TOLERANCES["fp16"].limit(np.array([one.log_probability]))
        assert abs(one.log_probability - other.log_probability) <= limit


def test_a_quantised_bundle_of_schema_5_opens_and_its_record_holds():
    with Session.open(SCHEMA_5 / "bundle-int8", SCHEMA_5 / "store-int8", threads=1) as session:
        assert all(answer.error is None for answer in session.answer_many(QUESTIONS))
    found = read_parity_records(SCHEMA_5 / "bundle")
    assert [record.codec for record in found.records] == ["int8"]


@pytest.mark.parametrize("bundle", [GOLDEN / "bundle", SCHEMA_5 / "bundle", SCHEMA_5 / "bundle-int8"], ids=of_schema)
def test_a_bundle_of_before_does_not_tell_how_sure_it_is(bundle):
    with Session.open(bundle, GOLDEN / "store-int8", threads=1) as session:
        answers = session.answer_many(QUESTIONS)
    assert all(answer.answer is not None and answer.log_probability is None for answer in answers)


def test_a_bundle_of_before_goes_on_being_compared_and_quantised(tmp_path):
    """The torch side is taken in the bundle's form; the INT8 bundle has the graphs that the old one had."""
    rows = [Question(str(place), text, (), None, ()) for place, text in enumerate(QUESTIONS)]
    options = ParityOptions(threads=1)
    report = compare_with_checkpoint(SCHEMA_5 / "bundle", GOLDEN / "checkpoint", GOLDEN / "store-int8", rows, options)
    assert (report.answers_equal, report.log_probability) == (1.0, None)
    assert report.to_json()["log_probability"] is None
    quantize_bundle(GOLDEN / "bundle", tmp_path / "int8", QuantizeOptions("int8", "cpu", cpu="x86-vnni"))
    manifest = json.loads((tmp_path / "int8" / MANIFEST).read_text(encoding="utf-8"))
    assert (manifest["schema_version"], manifest["log_probability"]) == (BUNDLE_SCHEMA_VERSION, False)
    with Session.open(tmp_path / "int8", GOLDEN / "store-int8", threads=1) as session:
        assert session.answer(QUESTIONS[0]).log_probability is None


def test_files_of_before_they_named_their_format_are_taken(tmp_path):
    """A bundle's manifest and parity record, and a store's manifest; what is written of them names it."""
    for name in (f"bundle/{MANIFEST}", f"bundle/{PARITY_RECORD}", f"store-fp16/{MANIFEST}"):
        assert "format" not in json.loads((SCHEMA_7 / name).read_text(encoding="utf-8"))
    manifest = read_manifest(SCHEMA_7 / "bundle")
    assert (manifest.format, manifest.schema_version) == ("glimmer-bundle", BUNDLE_SCHEMA_VERSION)
    assert read_parity_records(SCHEMA_7 / "bundle").format == "glimmer-parity"
    convert_store(SCHEMA_7 / "store-fp16", tmp_path / "store", "int8")
    written = json.loads((tmp_path / "store" / MANIFEST).read_text(encoding="utf-8"))
    assert [*written][:2] == ["format", "schema_version"]
    assert written["format"] == "glimmer-store"
    assert written["schema_version"] == STORE_SCHEMA_VERSION


@pytest.mark.parametrize("bundle", ["bundle", "bundle-fid"])
def test_a_bundle_of_schema_8_has_no_separate_reranker(bundle):
    """It does not say so; what is written of it today does."""
    assert "separate_reranker" not in json.loads((SCHEMA_8 / bundle / MANIFEST).read_text(encoding="utf-8"))["model"]
    manifest = read_manifest(SCHEMA_8 / bundle)
    assert (manifest.schema_version, manifest.model.separate_reranker) == (BUNDLE_SCHEMA_VERSION, False)


@pytest.mark.parametrize("bundle", [SCHEMA_8 / "bundle", SCHEMA_9 / "bundle-fid"], ids=of_schema)
def test_a_bundle_of_before_schema_10_takes_no_drafts(bundle):
    """Its decoder steps take one token and say so; its logits have no axis for more."""
    manifest = read_manifest(bundle)
    step = manifest.graphs["decoder_step"]
    dims = {tensor.name: tensor.dims for tensor in (*step.inputs, *step.outputs)}
    assert (manifest.schema_version, manifest.takes_drafts) == (BUNDLE_SCHEMA_VERSION, False)
    assert dims["decoder_input_ids"] == dims["next_token"] == ("batch", 1)
    assert dims["logits"] == ("batch", manifest.model.vocab_size)
