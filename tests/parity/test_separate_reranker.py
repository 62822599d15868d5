"""A reranker of its own layers, lazy, from the export to the answers, in FP32 and quantised (`every option` is full).

Of one layer and of two: what differs is lazy stage A, which is one pass over the memory or not.
"""

from __future__ import annotations

import pytest

from glimmer_export.calibration.questions import Question
from glimmer_export.calibration.rounding import RoundingBackend
from glimmer_export.exporter.bundle.quantize import ANY_SPEED, QuantizeOptions, quantize_bundle
from glimmer_export.exporter.cost import CostRequest, cost_report
from glimmer_export.exporter.parity import ParityOptions, compare_with_bundle, compare_with_checkpoint
from glimmer_export.exporter.tolerances import MIN_SNR_DB
from tests.calibrated import calibrated
from tests.exported import QUESTIONS, RERANKERS, Exported

ROWS = [Question(str(place), text, (), None, ()) for place, text in enumerate(QUESTIONS)]
OPTIONS = ParityOptions(threads=1, batch_size=4)


@pytest.fixture(params=RERANKERS)
def source(request, exported) -> Exported:
    return exported(request.param)


def test_the_bundle_answers_as_the_checkpoint(source):
    report = compare_with_checkpoint(source.bundle, source.checkpoint, source.store, ROWS, OPTIONS)
    assert (report.questions, report.errors) == (len(ROWS), 0)
    assert (report.answers_equal, report.top_m_overlap) == (1.0, 1.0)
    chosen = {answer.passages[0].passage.id for answer in source.session.answer_many(QUESTIONS)}
    assert len(chosen) > 1


def test_stage_a_gives_scores_and_stage_b_reads_the_memory(source):
    outputs = [tensor.name for tensor in source.io["live_stage_a"].outputs]
    inputs = [tensor.name for tensor in source.io["live_stage_b"].inputs]
    assert outputs == ["scores"]
    assert inputs == ["question_states", "question_mask", "memory", "memory_scale", "memory_mask", "selected"]


def test_its_cost_is_that_of_its_graphs(source):
    report = cost_report(CostRequest(bundle=source.bundle))
    assert report.counted == report.ours
    work, model = report.workload, report.model
    live = work.num_selected * work.joint_tokens * source.shape.num_stage_b_layers * model.layer
    assert report.papers["glimmer"]["live_stage_b"] == live


def test_quantised_its_last_layer_stays_in_float_and_the_rest_agrees(exported, tmp_path):
    """In INT8 and FP16, rounded at every operator: the residual stream of the reranker is rescaled as any other."""
    source = exported("glimmer, separate reranker, two layers")
    done = quantize_bundle(
        calibrated(source), tmp_path / "quantized", QuantizeOptions("int8-fp16", "tensorrt", gpu=ANY_SPEED)
    )
    ranking = [name for name in (*done["live_stage_a"].int8, *done["live_stage_a"].kept) if "block" in name]
    assert {name.partition(".")[0] for name in ranking} == {"reranker"}
    last = f"reranker.block.{source.shape.num_stage_a_layers - 1}."
    assert not [name for name in done["live_stage_a"].int8 if name.startswith(last)]
    report = compare_with_bundle(
        tmp_path / "quantized", calibrated(source), source.store, ROWS, OPTIONS, backend=RoundingBackend(1)
    )
    low = {name: error.snr_db for name, error in report.graphs.items() if error.snr_db < MIN_SNR_DB["int8-fp16"]}
    assert low == {}
