"""A cascade, from the export to the answers: which passages the shortlist keeps, their scores, and what it spares."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from glimmer_export.calibration.questions import Question
from glimmer_export.calibration.rounding import RoundingBackend
from glimmer_export.exporter.bundle.quantize import ANY_SPEED, QuantizeOptions, quantize_bundle
from glimmer_export.exporter.cost import CostRequest, cost_report
from glimmer_export.exporter.parity import ParityOptions, compare_with_bundle, compare_with_checkpoint
from glimmer_export.exporter.parity.reference import TorchReference, graphs_from_model
from glimmer_export.exporter.stages import Masked, model_from_weights
from glimmer_export.exporter.tolerances import MIN_SNR_DB, TOLERANCES, max_abs_error
from glimmer_export.runtime.contract import OptionError
from tests.calibrated import calibrated
from tests.exported import CASCADES, CORPUS, QUESTIONS, Exported

ROWS = [Question(str(place), text, (), None, ()) for place, text in enumerate(QUESTIONS)]
OPTIONS = ParityOptions(threads=1, batch_size=4)


@pytest.fixture(params=CASCADES)
def source(request, exported) -> Exported:
    return exported(request.param)


@pytest.fixture
def cascade(exported) -> Exported:
    return exported("glimmer, cascade")


class Watched:
    """A graph that notes what it was given."""

    def __init__(self, graph):
        self._graph, self.runs = graph, []

    def run(self, inputs):
        self.runs.append(inputs)
        return self._graph.run(inputs)


@contextmanager
def graphs_of(session, changed):
    """A session that runs other graphs in the place of some of its own."""
    place = session._current.serving.reader._place
    before = place.graphs
    place.graphs = {**before, **changed}
    try:
        yield
    finally:
        place.graphs = before


@contextmanager
def watched(session):
    graphs = {name: Watched(session.graphs[name]) for name in ("live_shortlist", "live_stage_a", "live_stage_b")}
    with graphs_of(session, graphs):
        yield graphs


def without_cascade(source):
    """The checkpoint's model that ranks all passages by stage A."""
    model = source.model
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("shortlist_score")}
    return model_from_weights(model.config.model_copy(update={"num_shortlisted": None}), weights)


def test_the_bundle_answers_as_the_checkpoint(source):
    """In torch every layer runs for all five, and two are dropped afterwards."""
    report = compare_with_checkpoint(source.bundle, source.checkpoint, source.store, ROWS, OPTIONS)
    assert (report.questions, report.errors) == (len(ROWS), 0)
    assert (report.answers_equal, report.top_m_overlap) == (1.0, 1.0)
    assert {"live_shortlist", "live_stage_a"} <= report.graphs.keys()


@pytest.mark.parametrize("reference", ["checkpoint", "bundle"])
def test_beside_an_exact_ranking_the_shortlist_counts(cascade, reference, tmp_path):
    """The reference answers as the model without a shortlist, which reads what the shortlist dropped."""
    options = replace(OPTIONS, exact_ranking=True)
    if reference == "checkpoint":
        report = compare_with_checkpoint(cascade.bundle, cascade.checkpoint, cascade.store, ROWS, options)
    else:
        report = compare_with_bundle(cascade.bundle, cascade.bundle, cascade.store, ROWS, options)
    plain = TorchReference(without_cascade(cascade))
    same = []
    for answer in cascade.session.answer_many(QUESTIONS):
        text = cascade.session.text
        passages = [text.passage(item.passage.title, item.passage.text)[0] for item in answer.passages]
        expected = plain.answer(text.question(answer.question), passages, plain.memory(passages), 2)
        same.append(len({*expected.selected} & {*answer.selected}) / 2)
    assert report.top_m_overlap == pytest.approx(np.mean(same))
    assert 0 < report.top_m_overlap < 1
    assert report.to_json()["exact_ranking"] is True


def test_an_exact_ranking_is_of_a_cascade_and_of_whole_answers(cascade, exported):
    options = replace(OPTIONS, exact_ranking=True)
    plain = exported("glimmer")
    with pytest.raises(OptionError, match="ranks all passages"):
        compare_with_bundle(plain.bundle, plain.bundle, plain.store, ROWS, options)
    with pytest.raises(OptionError, match="attribution"):
        compare_with_bundle(
            cascade.bundle, cascade.bundle, cascade.store, ROWS, replace(options, attribution=True)
        )


def test_stage_a_runs_for_those_that_are_kept(source):
    with watched(source.session) as graphs:
        answers = source.session.answer_many(QUESTIONS)
    (shortlist,), (ranked,) = graphs["live_shortlist"].runs, graphs["live_stage_a"].runs
    assert shortlist["memory_mask"].shape[:2] == (len(QUESTIONS), 5)
    assert ranked["memory_mask"].shape[:2] == (len(QUESTIONS), 3)
    assert ranked["memory"].shape[:2] == (len(QUESTIONS), 3)
    assert len({answer.selected for answer in answers}) > 1


def test_a_shortlist_that_would_keep_all_is_not_asked(source):
    """And the answers are those of the model without a cascade: stage A ranks as many as there are."""
    plain = without_cascade(source)
    graphs = graphs_from_model(plain, source.forms, "fp16")
    with watched(source.session) as seen:
        answers = source.session.answer_many(QUESTIONS, top_k=3)
    assert not seen["live_shortlist"].runs
    reader = source.session._current.serving.reader
    shape, reader._shape = reader._shape, plain.config.shape
    try:
        with graphs_of(source.session, graphs):
            expected = source.session.answer_many(QUESTIONS, top_k=3)
    finally:
        reader._shape = shape
    for answer, wanted in zip(answers, expected, strict=True):
        assert (answer.token_ids, answer.selected) == (wanted.token_ids, wanted.selected)
        scores = np.array(wanted.scores, np.float32)
        assert max_abs_error(np.array(answer.scores, np.float32), scores) <= TOLERANCES["fp32"].limit(scores)


def test_in_the_papers_form_it_answers_alike(cascade):
    """Stage A in full, for those that are kept: torch in the graphs' place."""
    expected = cascade.session.answer_many(QUESTIONS)
    graphs = graphs_from_model(cascade.model, replace(cascade.forms, stage_a="full"), "fp16")
    with graphs_of(cascade.session, graphs):
        answers = cascade.session.answer_many(QUESTIONS)
    assert [answer.token_ids for answer in answers] == [answer.token_ids for answer in expected]
    assert [answer.selected for answer in answers] == [answer.selected for answer in expected]


def test_where_it_keeps_what_is_read_the_answer_is_that_without_it(cascade):
    """Of all questions of two words: stage A gives those that are kept the scores that it gives them among all."""
    question, memory = torch.randn(64, 4, 32), torch.randn(64, 5, 6, 32)
    plain = without_cascade(cascade)
    masks = torch.ones(64, 4, dtype=torch.int32), torch.ones(64, 5, 6, dtype=torch.int32)
    for model in (plain, cascade.model):
        model.encode_question = lambda *_: question
    try:
        found, expected = (
            model.encode(Masked(question, masks[0]), Masked(memory, masks[1]), 2) for model in (cascade.model, plain)
        )
    finally:
        del cascade.model.encode_question
    kept = (found.levels[0].argsort(1, descending=True)[:, :3, None] == expected.selected[:, None]).any(1).all(1)
    assert 0 < kept.sum() < 64
    assert torch.equal(found.selected[kept], expected.selected[kept])
    assert torch.equal(found.states[kept], expected.states[kept])
    assert (found.selected[~kept] != expected.selected[~kept]).any(1).all()


def test_the_dropped_stand_below_the_kept(source):
    """As far apart as the shortlist has them; `rank` drops none, and gives each what stage A gives it."""
    ids = [row["id"] for row in CORPUS[:5]]
    with watched(source.session) as graphs:
        scores = np.array(source.session.answer(QUESTIONS[0], passages=ids).scores)
        (run,) = graphs["live_shortlist"].runs
        ranking = source.session.rank(QUESTIONS[0], ids)
        assert len(graphs["live_shortlist"].runs) == 1
    first = source.session.graphs["live_shortlist"].run(run)["scores"][0]
    order = np.argsort(-first, kind="stable")
    kept, dropped = order[:3], order[3:]
    assert np.diff(scores[dropped]) == pytest.approx(np.diff(first[dropped]), abs=1e-4)
    last = scores[kept].min() + first[dropped[0]] - first[kept].min()
    assert scores[dropped[0]] == pytest.approx(last, abs=1e-4)
    by_id = {item.passage.id: item.score for item in ranking.passages}
    ranked = np.array([by_id[one] for one in ids])
    assert ranked[kept] == pytest.approx(scores[kept], abs=1e-4)
    assert ranked[dropped] != pytest.approx(scores[dropped], abs=1e-2)


def test_more_may_be_read_than_the_model_shortlists(source):
    with watched(source.session) as graphs:
        answer = source.session.answer(QUESTIONS[0], top_m=4)
    assert len(answer.selected) == 4
    assert graphs["live_stage_a"].runs[0]["memory_mask"].shape[1] == 4


def test_a_mass_reads_the_best_of_the_kept(source):
    for answer in source.session.answer_many(QUESTIONS, mass=1e-6):
        assert len(answer.selected) == 1
        assert answer.scores[answer.selected[0]] == max(answer.scores)


def test_its_cost_is_that_of_its_graphs(source):
    report = cost_report(CostRequest(bundle=source.bundle))
    assert report.counted == report.ours
    as_many = cost_report(CostRequest(bundle=source.bundle, k=3)).ours
    assert (report.ours["live_shortlist"].runs, as_many["live_shortlist"].runs) == (1, 0)
    assert report.ours["live_stage_a"] == as_many["live_stage_a"]


def test_quantised_the_shortlist_stays_in_float_and_the_rest_agrees(cascade, tmp_path):
    """In INT8 and FP16, rounded at every operator."""
    done = quantize_bundle(
        calibrated(cascade), tmp_path / "quantized", QuantizeOptions("int8-fp16", "tensorrt", gpu=ANY_SPEED)
    )
    assert not [name for name in done["live_shortlist"].int8 if "block" in name]
    assert "shortlist_score/MatMul" in done["live_shortlist"].kept
    report = compare_with_bundle(
        tmp_path / "quantized", calibrated(cascade), cascade.store, ROWS, OPTIONS, backend=RoundingBackend(1)
    )
    low = {name: error.snr_db for name, error in report.graphs.items() if error.snr_db < MIN_SNR_DB["int8-fp16"]}
    assert low == {}
