"""Checkpoints inflated without a change of their function: from the store's build to the answer, nothing is lost.

The whole road, as a user takes it: export, store by the FP32 encoder, calibrate, quantise, answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from glimmer_export.calibration.calibrate import CalibrationOptions
from glimmer_export.calibration.passes.convert_fp16 import ConvertFp16
from glimmer_export.calibration.passes.round_fp16 import RoundFp16
from glimmer_export.calibration.questions import Question, read_questions
from glimmer_export.calibration.rounding import RoundingBackend
from glimmer_export.exporter.answering.metrics import exact_match
from glimmer_export.exporter.bundle import export_bundle
from glimmer_export.exporter.bundle.calibrate import calibrate_bundle
from glimmer_export.exporter.bundle.forms import DEFAULT_FORMS
from glimmer_export.exporter.bundle.quantize import ANY_SPEED, QuantizeOptions, quantize_bundle
from glimmer_export.exporter.demo.data import write_demo
from glimmer_export.exporter.demo.world import CHECKPOINT
from glimmer_export.exporter.memory import build_store
from glimmer_export.runtime import Answer, Session
from glimmer_export.runtime.backends import Backend
from glimmer_export.runtime.contract import read_manifest
from tests.calibration.fp16_graphs import every_value
from tests.exported import PAPER_FORM, load_graph
from tests.inflation import inflate, inflate_checkpoint

NUM_CALIBRATED = 200
CACHED = ", cached"
"""Of a name: keys and values of the passages are projected once, stage A is run in full."""
QUICK = "feed-forward 2^8 seed 0 + values 2^8 seed 0 + position bias 4096"
INFLATIONS = [
    "residual 2^8", "residual 2^13", "residual 2^14", "feed-forward 2^5 seed 0", "feed-forward 2^8 seed 1",
    "norms 2^3 seed 1", "norms 2^6 seed 0", "norms 2^6 seed 2", "keys 2^8 seed 0", "rotation", "values 2^8 seed 0",
    "few values 2^4..8 seed 0", "position bias 256", "position bias 4096", QUICK,
    "residual 2^14 + norms 2^6 seed 0 + keys 2^8 seed 0", f"values 2^8 seed 1{CACHED}",
    f"few values 2^4..8 seed 1{CACHED}", f"rotation + values 2^8 seed 2 + position bias 256{CACHED}",
]


@dataclass(frozen=True)
class Size:
    """Numbers of questions, those with FP16 rounded at every operator fewer, and the top-m overlap to be held."""

    questions: int
    rounded: int
    overlap: float
    fp16_overlap: float


FEW = Size(600, 300, 0.975, 0.993)
"""The bars are of 4,000 questions: among these few the overlap, 0.983 to 0.987 there, is given room."""
ALL = Size(4000, 500, 0.98, 0.995)

QUICKLY = pytest.param(QUICK, FEW, id=f"{QUICK}, few")
INFLATED = [QUICKLY, *(pytest.param(name, ALL, marks=pytest.mark.slow, id=name) for name in INFLATIONS)]
CASES = [*INFLATED, pytest.param("plain", ALL, marks=pytest.mark.slow, id="plain")]


@dataclass(frozen=True)
class Road:
    """One checkpoint on its way to answers."""

    directory: Path
    questions: list[Question]

    def answers(
        self, bundle: Path, backend: Backend | str = "onnxruntime-cpu", count: int | None = None
    ) -> list[Answer]:
        count = count or len(self.questions)
        with Session.open(bundle, self.directory / "store", threads=1, backend=backend) as session:
            texts = [question.question for question in self.questions[:count]]
            return [answer for at in range(0, count, 32) for answer in session.answer_many(texts[at : at + 32])]

    @cached_property
    def reference(self) -> list[Answer]:
        return self.answers(self.directory / "fp32")

    def quantised(self, precision: str, target: str, policy: str = "int8") -> Path:
        output = self.directory / f"{policy}-{precision}-{target}"
        if not output.exists():
            gpu = ANY_SPEED if target == "tensorrt" else None  # the decoder in INT8 too, whatever it gains
            options = QuantizeOptions(precision, target, policy=policy, method="max", cpu=None, gpu=gpu)
            quantize_bundle(self.directory / "fp32", output, options)
        return output

    def compared(self, candidate: list[Answer], record: Callable[[str, object], None]) -> Compared:
        """`record` puts the figures into `--junitxml`."""
        count = len(candidate)
        found = Compared(self.questions[:count], self.reference[:count], candidate)
        for name in ("em_loss", "equal_of_correct", "overlap", "gold_loss"):
            record(name, getattr(found, name))
        return found


@dataclass(frozen=True)
class Compared:
    questions: list[Question]
    reference: list[Answer]
    candidate: list[Answer]

    def _right(self, answers: list[Answer]) -> np.ndarray:
        pairs = zip(answers, self.questions, strict=True)
        return np.array([exact_match(answer.answer or "", question.answers) for answer, question in pairs])

    @property
    def em_loss(self) -> float:
        """In points."""
        return 100 * float(self._right(self.reference).mean() - self._right(self.candidate).mean())

    @property
    def equal_of_correct(self) -> float:
        right = self._right(self.reference) > 0
        equal = [one.token_ids == two.token_ids for one, two in zip(self.reference, self.candidate, strict=True)]
        return float(np.mean(np.array(equal)[right]))

    @property
    def overlap(self) -> float:
        pairs = zip(self.reference, self.candidate, strict=True)
        return float(np.mean([len({*one.selected} & {*two.selected}) / len(one.selected) for one, two in pairs]))

    @property
    def gold_loss(self) -> float:
        """Of questions with a gold passage among those read, in points."""
        reference, candidate = (
            [any(answer.passages[place].passage.id in question.gold_ids for place in answer.selected)
             for answer, question in zip(answers, self.questions, strict=True)]
            for answers in (self.reference, self.candidate)
        )  # fmt: skip
        return 100 * (float(np.mean(reference)) - float(np.mean(candidate)))


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Size], Road]:
    """A checkpoint by its inflation, `plain` for none, up to its calibrated bundle."""
    made: dict[tuple[str, Size], Road] = {}
    worlds = tmp_path_factory.mktemp("worlds")

    def get(name: str, size: Size) -> Road:
        if (name, size) in made:
            return made[name, size]
        data = worlds / str(size.questions)
        if not data.exists():
            write_demo(data, num_questions=size.questions, seed=1)
        questions = read_questions(data / "questions.jsonl")
        directory = tmp_path_factory.mktemp("road")
        inflations = [] if name == "plain" else [inflate(name.removesuffix(CACHED))]
        inflate_checkpoint(CHECKPOINT, directory / "checkpoint", *inflations)
        form = PAPER_FORM if name.endswith(CACHED) else DEFAULT_FORMS
        export_bundle(directory / "checkpoint", directory / "fp32", form)
        build_store(directory / "fp32", data / "corpus.jsonl", directory / "store", threads=1)
        options = CalibrationOptions(samples=NUM_CALIBRATED, threads=1)
        calibrate_bundle(directory / "fp32", directory / "store", questions, options)
        made[name, size] = Road(directory, questions)
        return made[name, size]

    return get


@pytest.mark.slow
@pytest.mark.parametrize("name", INFLATIONS)
def test_fp32_answers_as_the_plain_checkpoint(road, name):
    plain, inflated = road("plain", ALL), road(name, ALL)
    assert [answer.token_ids for answer in inflated.reference] == [answer.token_ids for answer in plain.reference]
    # Beside 4,096 FP32 has no room for what is less than 2^-11, so the table itself is rounded; in other axes the
    # store's FP16 rounds other numbers. Scores of 1,000 questions then differ by 3e-3 and 5e-3.
    limit = 1e-2 if "4096" in name or "rotation" in name else 2e-3
    for one, two in zip(inflated.reference, plain.reference, strict=True):
        np.testing.assert_allclose(one.scores, two.scores, atol=limit)
    digests = [read_manifest(item.directory / "fp32").memory_digest for item in (plain, inflated)]
    assert digests[0] != digests[1] or "norms" not in name


@pytest.mark.parametrize(("precision", "target"), [("int8", "cpu"), ("int8", "tensorrt"), ("int8-fp16", "tensorrt")])
@pytest.mark.parametrize(("name", "size"), CASES)
def test_int8_holds_its_bars(road, name, size, precision, target, record_property):
    item = road(name, size)
    found = item.compared(item.answers(item.quantised(precision, target)), record_property)
    assert found.em_loss <= 0.5
    assert found.equal_of_correct >= 0.985
    assert found.gold_loss <= 0.3
    assert found.overlap >= size.overlap


@pytest.mark.parametrize("precision", ["fp16", "int8-fp16"])
@pytest.mark.parametrize(("name", "size"), CASES)
def test_fp16_holds_its_bars_where_every_operator_rounds(road, name, size, precision, record_property):
    item = road(name, size)
    answers = item.answers(item.quantised(precision, "tensorrt"), RoundingBackend(1), size.rounded)
    found = item.compared(answers, record_property)
    if precision == "fp16":
        assert abs(found.em_loss) <= 0.2
        assert found.overlap >= size.fp16_overlap
    else:
        assert found.equal_of_correct >= 0.985
        assert found.overlap >= size.overlap


@pytest.mark.parametrize(("name", "size"), INFLATED)
def test_naive_int8_loses_answers_where_channels_differ(road, name, size, record_property):
    """On 4,000 questions, equal among the right: plain 99.9%, rows times 2^7 28 to 33%, norms times 2^3 98.4%.

    The overlap: 90, 44 to 46 and 73%. Values are no part of what ranks; a constant in the bias is none of INT8.
    """
    item = road(name, size)
    found = item.compared(item.answers(item.quantised("int8", "cpu", policy="naive")), record_property)
    if name.startswith("residual") and " + " not in name:
        assert found.equal_of_correct >= 0.99  # every scale follows the stream
    elif "feed-forward 2^8" in name:
        assert found.equal_of_correct <= 0.8
        assert found.overlap <= 0.7
    elif name.startswith("norms"):
        assert found.overlap <= 0.82


def infinities(model: ir.Model) -> int:
    """Of all values of an FP16 memory encoder that rounds where FP16 does."""
    RoundFp16()(model)
    inputs = {"input_ids": np.arange(2, 12, dtype=np.int32)[None], "attention_mask": np.ones((1, 10), np.int32)}
    return sum(int(np.isinf(values).sum()) for values in every_value(model, inputs).values())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "overflows"), [("plain", False), ("residual 2^13", True), ("residual 2^14", True)])
def test_naive_fp16_overflows_where_ours_does_not(road, name, overflows):
    """Every operator in FP16, RMSNorm included: its sums of squares pass FP16's end, and what it writes becomes 0."""
    item = road(name, ALL)
    naive = load_graph(item.directory / "fp32" / "graphs" / "memory_encoder.onnx")
    ConvertFp16(keep_fp32=frozenset())(naive)
    assert (infinities(naive) > 0) == overflows
    ours = item.quantised("fp16", "tensorrt")
    assert infinities(load_graph(ours / "graphs" / "memory_encoder.onnx")) == 0
    assert ("memory_encoder" in read_manifest(ours).quantization.residual_scales) == overflows
