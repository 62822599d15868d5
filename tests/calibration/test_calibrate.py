"""Questions in, a table of ranges out."""

from __future__ import annotations

import numpy as np
import pytest

from glimmer_export.calibration import calibrate as calibrating
from glimmer_export.calibration.calibrate import CalibrationOptions, calibrate
from glimmer_export.calibration.questions import Question
from glimmer_export.runtime.contract import (
    MANIFEST,
    BackendError,
    CalibrationError,
    OptionError,
    QuestionFileError,
    StoreError,
)
from glimmer_export.runtime.decode import Reading
from glimmer_export.runtime.store import Passage
from tests.bundle_factory import rewrite
from tests.exported import CORPUS, QUESTIONS, copy_bundle


def rows(questions, passages=None):
    return [Question(str(place), text, (), passages, ()) for place, text in enumerate(questions)]


ONE_THREAD = CalibrationOptions(threads=1)


@pytest.mark.parametrize("variant", ["glimmer", "lumen", "memory_fid", "fid"])
def test_every_graph_has_ranges_and_the_same_again(exported, variant):
    source = exported(variant)
    done = []
    found = calibrate(source.bundle, source.store, rows(QUESTIONS), ONE_THREAD, advance=done.append)
    table = found.table
    assert (table.samples, found.questions, len(done), found.errors) == (len(QUESTIONS), len(QUESTIONS), 8, {})
    assert list(table.graphs) == list(source.io) == list(table.graph_digests)
    assert all(table.graphs.values())
    assert any("8 questions" in warning for warning in table.warnings)
    again = calibrate(source.bundle, source.store, rows(QUESTIONS), ONE_THREAD).table
    for graph, tensors in table.graphs.items():
        for name, tensor in tensors.items():
            other = again.graphs[graph][name]
            assert (tensor.minimum, tensor.maximum, tensor.count) == (other.minimum, other.maximum, other.count)
            np.testing.assert_array_equal(tensor.histogram, other.histogram)
    summary = found.to_json()
    assert summary["graphs"].keys() == summary["tensors"].keys()
    assert "memory" not in {row["tensor"] for row in summary["graphs"].values()}


def test_the_memory_encoder_sees_questions_and_the_passages_that_were_read(glimmer):
    table = calibrate(glimmer.bundle, glimmer.store, rows(QUESTIONS[3:4]), ONE_THREAD).table
    answer = glimmer.session.answer(QUESTIONS[3])
    texts = [glimmer.session.text.passage(item.passage.title, item.passage.text)[0]
             for item in answer.passages if item.read]  # fmt: skip
    texts.append(glimmer.session.text.question(QUESTIONS[3]))
    states = [
        glimmer.session.graphs["memory_encoder"].run(
            {"input_ids": np.array([ids], np.int32), "attention_mask": np.ones((1, len(ids)), np.int32)}
        )["hidden_states"] for ids in texts
    ]
    found = table.graphs["memory_encoder"]["hidden_states"]
    assert found.count == sum(item.size for item in states)
    expected = np.max([np.abs(item).max(axis=(0, 1)) for item in states], axis=0)
    np.testing.assert_allclose(found.channel_amax, expected, rtol=1e-5)


def test_samples_are_spread_over_the_file(glimmer):
    found = calibrate(glimmer.bundle, glimmer.store, rows(QUESTIONS), CalibrationOptions(samples=3, threads=1))
    assert (found.questions, found.table.samples) == (3, 3)


def test_given_passages(glimmer):
    options = CalibrationOptions(given=True, threads=1)
    given = (CORPUS[0]["id"], Passage(None, "", "w1 w2"))
    found = calibrate(glimmer.bundle, glimmer.store, rows(QUESTIONS[:2], given), options)
    assert found.table.samples == 2
    texts = (Passage(None, "w3", "w1 w2"),)
    assert calibrate(glimmer.bundle, None, rows(QUESTIONS[:2], texts), options).table.samples == 2
    with pytest.raises(QuestionFileError):
        calibrate(glimmer.bundle, glimmer.store, rows(QUESTIONS[:2]), options)


def test_questions_that_cannot_be_run_are_counted_and_said(glimmer):
    odd = ["", "zzz", " ".join(["w1"] * 40), QUESTIONS[3]]
    found = calibrate(glimmer.bundle, glimmer.store, rows(odd), ONE_THREAD)
    assert (found.questions, found.table.samples, found.nothing_retrieved) == (4, 1, 1)
    assert found.errors == {"QuestionError": 2}
    assert any("3 of 4 questions could not be run" in warning for warning in found.table.warnings)
    with pytest.raises(CalibrationError, match="at least one that retrieves"):
        calibrate(glimmer.bundle, glimmer.store, rows(odd[:3]), ONE_THREAD)
    with pytest.raises(CalibrationError, match="at least one that retrieves"):
        calibrate(glimmer.bundle, glimmer.store, [], ONE_THREAD)


def test_ranges_that_still_grow_are_said(glimmer, monkeypatch):
    monkeypatch.setattr(calibrating, "GROWTH", 1.0)
    found = calibrate(glimmer.bundle, glimmer.store, rows(QUESTIONS[:3]), ONE_THREAD)
    assert any("ranges still grew" in warning for warning in found.table.warnings)
    settled = calibrate(glimmer.bundle, glimmer.store, rows([QUESTIONS[3]] * 3), ONE_THREAD)
    assert not any("ranges still grew" in warning for warning in settled.table.warnings)


def test_a_graph_that_never_ran_is_said(glimmer, monkeypatch):
    def decode(*arguments, on_step, **options):
        on_step(0, reading := Reading([5]), True)
        return [reading]

    monkeypatch.setattr("glimmer_export.runtime.reader.greedy_decode", decode)
    found = calibrate(glimmer.bundle, glimmer.store, rows(QUESTIONS[3:4]), ONE_THREAD)
    assert found.table.graphs["decoder_step"] == {}
    assert any("decoder_step never ran" in warning for warning in found.table.warnings)
    assert found.by_graph()["decoder_step"]["amax"] is None


def test_what_is_refused(glimmer, exported, tmp_path):
    with pytest.raises(OptionError, match="max, percentile"):
        calibrate(glimmer.bundle, glimmer.store, rows(QUESTIONS), CalibrationOptions(method="best"))
    with pytest.raises(StoreError):
        calibrate(glimmer.bundle, exported("lumen").store, rows(QUESTIONS), ONE_THREAD)
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    entry = {"target": "tensorrt", "cpu_kind": None, "method": "max", "policy": None, "residual_scales": {}, "keep": []}
    rewrite(bundle / MANIFEST, quantization=entry)
    with pytest.raises(CalibrationError, match="calibrate the FP32 bundle"):
        calibrate(bundle, glimmer.store, rows(QUESTIONS), ONE_THREAD)


def test_without_onnx_runtime_the_backend_says_so(glimmer, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(BackendError):
        calibrate(glimmer.bundle, glimmer.store, rows(QUESTIONS), ONE_THREAD)
