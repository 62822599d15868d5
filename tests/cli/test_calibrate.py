"""`glimmer-export calibrate`: what it prints, writes and refuses."""

from __future__ import annotations

import pytest

from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import BundleError, CalibrationError, OptionError, QuestionFileError, StoreError
from tests.bundle_factory import write_rows
from tests.exported import CORPUS, QUESTIONS, copy_bundle


@pytest.fixture
def questions(tmp_path):
    return write_rows(tmp_path / "questions.jsonl", [{"question": text} for text in QUESTIONS])


@pytest.fixture
def bundle(glimmer, tmp_path):
    return copy_bundle(glimmer, tmp_path / "bundle")


def test_prints_each_graph_its_headroom_and_the_warnings(cli, glimmer, bundle, questions):
    done = cli("calibrate", bundle, "--store", glimmer.store, "--questions", questions, "--threads", 1)
    assert (done.code, done.err) == (0, "")
    for word in (*glimmer.io, "FP16 headroom", "largest amax", "warning only 8 questions", "8 questions"):
        assert word in done.out
    assert len(Bundle.open(bundle).manifest.calibration) == 2
    assert cli("inspect", bundle, "--json").json["calibration"][0]["path"] == "calibration/ranges.json"


def test_json_has_every_tensor(cli, glimmer, bundle, questions):
    options = ("--samples", 3, "--method", "percentile", "--passages-per-question", 2, "--threads", 1, "--json")
    found = cli("calibrate", bundle, "--store", glimmer.store, "--questions", questions, *options).json
    assert (found["questions"], found["samples"], found["method"], found["errors"]) == (3, 3, "percentile", {})
    assert found["warnings"]
    assert found["graphs"].keys() == found["tensors"].keys() == glimmer.io.keys()
    states = found["tensors"]["memory_encoder"]["hidden_states"]
    assert states["amax"] == max(abs(states["minimum"]), abs(states["maximum"]))
    widest = found["graphs"]["memory_encoder"]
    assert widest["fp16_headroom"] == pytest.approx(65504 / widest["amax"])


def test_given_passages(cli, glimmer, bundle, tmp_path):
    ids = [CORPUS[0]["id"], CORPUS[1]["id"]]
    rows = write_rows(tmp_path / "given.jsonl", [{"question": QUESTIONS[0], "ctx_ids": ids}])
    options = ("--questions", rows, "--passages", "given", "--threads", 1, "--json")
    assert cli("calibrate", bundle, "--store", glimmer.store, *options).json["samples"] == 1


def test_bad_input_is_refused(refused, glimmer, exported, bundle, questions, tmp_path):
    strange = write_rows(tmp_path / "strange.jsonl", [{"question": "zzz"}])
    for errors, *arguments in (
        (BundleError, tmp_path / "none", "--store", glimmer.store, "--questions", questions),
        (QuestionFileError, bundle, "--store", glimmer.store, "--questions", tmp_path / "none"),
        (QuestionFileError, bundle, "--store", glimmer.store, "--questions", questions, "--passages", "given"),
        (StoreError, bundle, "--store", exported("lumen").store, "--questions", questions),
        (OptionError, bundle, "--questions", questions),
        (CalibrationError, bundle, "--store", glimmer.store, "--questions", strange),
    ):
        refused(errors, "calibrate", *arguments)
