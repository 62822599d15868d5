"""How sure the model is of its answer: what torch's log_softmax says of the tokens that were chosen."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from glimmer_export.calibration.fp16_limits import FP16_MAX
from glimmer_export.calibration.passes.operators import is_float
from glimmer_export.exporter.bundle.quantize import QuantizeOptions, quantize_bundle
from glimmer_export.exporter.parity.reference import ReferenceAnswer
from glimmer_export.exporter.tolerances import TOLERANCES
from glimmer_export.runtime import Answer, Session
from glimmer_export.runtime.contract import LOG_PROBABILITY
from tests.calibrated import calibrated
from tests.calibration.fp16_graphs import Arrays, graphs_of, run
from tests.exported import CORPUS, QUESTIONS, VARIANTS, load_graph
from tests.reference_answers import reference_answer

IDS = [row["id"] for row in CORPUS]
LIMIT = TOLERANCES["log_probability"].atol
PRECISIONS = {"fp16": "tensorrt", "int8": "cpu", "int8-fp16": "tensorrt"}
BOTH_FORMS = ["glimmer", "glimmer, exact algebra", "memory_fid", "fid"]


def of_own_logits(outputs: Arrays) -> np.ndarray:
    """log_softmax in float64 of the logits that a graph gives, at the tokens that it chose: (b, t)."""
    chosen = outputs["next_token"].astype(np.int64)
    logits = outputs["logits"].astype(np.float64).reshape(*chosen.shape, -1)
    below = logits - logits.max(axis=-1, keepdims=True)
    every = below - np.log(np.exp(below).sum(axis=-1, keepdims=True))
    return np.take_along_axis(every, chosen[..., None], axis=-1)[..., 0]


def decoder_graphs(source):
    return [(path, inputs) for path, inputs in graphs_of(source) if path.stem in ("decoder_prefill", "decoder_step")]


def assert_as_sure(answer: Answer, expected: ReferenceAnswer) -> None:
    assert list(answer.token_ids) == expected.tokens
    assert answer.log_probability is not None
    assert abs(answer.log_probability - expected.log_probability) <= LIMIT


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_session_is_as_sure_as_torch(exported, variant):
    """Of every question alone and of all together, from the store's memory; some answers end, and some are cut off."""
    source = exported(variant)
    given = [IDS[4 * number : 4 * number + 1 + number] for number in range(len(QUESTIONS))]
    together = source.session.answer_many(QUESTIONS, passages=given)
    for question, passages, answer in zip(QUESTIONS, given, together, strict=True):
        expected = reference_answer(source, question, passages, store=source.session.store)
        assert_as_sure(answer, expected)
        assert_as_sure(source.session.answer(question, passages=passages), expected)


def test_an_answer_that_is_cut_off_has_no_eos_to_count(exported):
    """Both kinds are among the random models' answers, so that the test above has seen both."""
    lengths = {
        len(answer.token_ids) == exported(variant).shape.max_new_tokens
        for variant in ("glimmer", "fid") for answer in exported(variant).session.answer_many(
            QUESTIONS, passages=[IDS[:3]] * len(QUESTIONS)
        )
    }
    assert lengths == {True, False}


def test_without_an_answer_there_is_nothing_to_be_sure_of(glimmer):
    answers = glimmer.session.answer_many(["nowhere", "", "w33"])
    assert [answer.answer is None for answer in answers] == [True, True, False]
    assert [answer.log_probability is None for answer in answers] == [True, True, False]


@pytest.mark.parametrize("variant", BOTH_FORMS)
def test_large_logits_overflow_nothing(exported, variant):
    """exp of what these heads give is infinite in FP32."""
    for path, inputs in decoder_graphs(exported(variant)):
        model = load_graph(path)
        head = next(value for name, value in model.graph.initializers.items() if name.startswith("lm_head"))
        head.const_value = ir.tensor(head.const_value.numpy() * np.float32(2.0**10), name=head.name)
        outputs = run(model, inputs, optimised=True)
        assert outputs["logits"].max() > 100
        assert outputs[LOG_PROBABILITY].dtype == np.float32
        assert np.abs(outputs[LOG_PROBABILITY] - of_own_logits(outputs)).max() <= LIMIT


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("variant", ["glimmer, exact algebra", "memory_fid"])
def test_it_is_computed_in_fp32_whatever_the_products_are(exported, tmp_path, variant, precision):
    """From the logits on nothing is FP16 or quantised, so that it fits them however rough they are."""
    source = exported(variant)
    options = QuantizeOptions(precision, PRECISIONS[precision], cpu="x86-vnni" if precision == "int8" else None)
    quantize_bundle(calibrated(source), tmp_path / "bundle", options)
    for path, inputs in decoder_graphs(tmp_path / "bundle"):
        model = load_graph(path)
        between = nodes_between(model, "logits", LOG_PROBABILITY)
        assert [node.op_type for node in between] == ["ReduceMax", "Sub", "Exp", "ReduceSum", "Log", "Neg"]
        for node in between:
            assert {value.dtype for value in (*node.inputs, *node.outputs) if is_float(value)} == {ir.DataType.FLOAT}
        outputs = run(model, inputs)
        assert np.abs(outputs["logits"]).max() < FP16_MAX
        assert np.abs(outputs[LOG_PROBABILITY] - of_own_logits(outputs)).max() <= 1e-5


def nodes_between(model: ir.Model, source: str, target: str) -> list[ir.Node]:
    """The nodes that make one output of a graph of another, in order."""
    outputs = {value.name: value for value in model.graph.outputs}
    wanted, found = [outputs[target]], set()
    while wanted:
        value = wanted.pop()
        node = value.producer()
        if value is not outputs[source] and node is not None and node not in found:
            found.add(node)
            wanted += [read for read in node.inputs if read is not None]
    return [node for node in model.graph if node in found]


def test_a_session_of_quantised_graphs_tells_it_too(exported, tmp_path):
    source = exported("glimmer, exact algebra")
    quantize_bundle(calibrated(source), tmp_path / "int8", QuantizeOptions("int8", "cpu", cpu="x86-vnni"))
    with Session.open(tmp_path / "int8", source.store, threads=1) as session:
        answers = session.answer_many(QUESTIONS)
    assert all(answer.log_probability is not None and answer.log_probability < 0 for answer in answers)
