"""The page of a parity report: well-formed XML that fetches nothing, and has what the report has."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from glimmer_export.calibration.questions import Question
from glimmer_export.calibration.ranges import RangeTable, TensorRange
from glimmer_export.exporter.parity import ParityOptions, compare_with_bundle
from glimmer_export.exporter.parity.gate import judge, read_gate
from glimmer_export.exporter.parity.report import Sample
from glimmer_export.exporter.parity.show import html_from_report, write_html
from glimmer_export.exporter.report.visible import visible
from tests.exported import QUESTIONS
from tests.parity.noise import noisy_bundle


@pytest.fixture(scope="module")
def report(glimmer, tmp_path_factory):
    bundle = noisy_bundle(glimmer, tmp_path_factory.mktemp("html") / "<b>&", "live_stage_b", 1.0)
    answers = [answer.answer for answer in glimmer.session.answer_many(QUESTIONS)]
    rows = [Question("q", text, (answer,), None, ()) for text, answer in zip(QUESTIONS, answers, strict=True)]
    options = ParityOptions(attribution=True, threads=1)
    found = compare_with_bundle(bundle, glimmer.bundle, glimmer.store, rows, options)
    return replace(found, gate=judge(*read_gate("default"), found))


def parse(page: str) -> ET.Element:
    return ET.fromstring(page.removeprefix("<!DOCTYPE html>\n"))


def test_the_page_has_every_part(report, glimmer, tmp_path):
    write_html(report, tmp_path / "page.html", command="glimmer-export parity <b>&")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    text = " ".join(parse(page).itertext())
    parts = ("answers differ", "log-probability of equal answers", "Gate default", "not measured", "Scores", "<b>&",
             "glimmer-export parity <b>&", "onnxruntime", "Sample answers", *QUESTIONS[:1])
    for words in (*glimmer.io, *report.attribution, *parts):
        assert words in text
    assert len(re.findall("<circle", page)) == len(report.score_pairs) > 20
    assert not re.search(r"(?:src|href)=|url\(|<script|https?://", page)


def test_range_histograms_are_of_the_widest_tensors(report):
    def tensor(amax: float) -> TensorRange:
        counts = np.zeros(256, np.int64)
        counts[128] = 100
        return TensorRange(-amax / 2, amax, 100, 256.0, counts, None)

    graphs = {"live_stage_b": {f"tensor{number}": tensor(float(number)) for number in range(20)}}
    page = html_from_report(report, RangeTable("max", 4, {}, graphs, ()))
    captions = re.findall(r"<figcaption>live_stage_b: (\w+)<br/>", page)
    assert captions == [f"tensor{number}" for number in range(19, 7, -1)]
    assert parse(page) is not None
    assert "Widest ranges" not in html_from_report(report)


def test_a_page_of_equal_answers_shows_some(report):
    """A reader sees what was asked and said where nothing differs, too."""
    equal = replace(
        report, differences=[], samples=(*report.samples[:1], Sample("who?", "<i>she</i>", "<i>she</i>", equal=True))
    )
    page = html_from_report(equal)
    rows = ["|".join(cell.text or "" for cell in row) for row in parse(page).iter("tr")]
    assert "who?|<i>she</i>|<i>she</i>|yes" in rows
    assert "<i>" not in page


def test_samples_reach_from_the_first_question_to_the_last(report):
    asked = [sample.question for sample in report.samples]
    assert asked == [QUESTIONS[place] for place in sorted(map(QUESTIONS.index, asked))]
    assert len(asked) == min(8, report.coverage.answered)
    assert sum(not sample.equal for sample in report.samples) <= report.first_difference.count


def test_hostile_questions_stay_text(report):
    hostile = "</td><script>alert(1)</script>&amp; {{ page }} {% raw %}\x1b[31m\x00 \u202eabc ]]>"
    page = html_from_report(replace(
        report, samples=(Sample(hostile, hostile, hostile, equal=False),),
        differences=[replace(report.differences[0], question=hostile, reference=hostile, candidate=hostile)],
    ), command=hostile)  # fmt: skip
    assert "<script" not in page
    assert "\x1b" not in page
    cells = [cell.text for cell in parse(page).iter("td")]
    shown = visible(hostile)
    assert "{{ page }} {% raw %}" in shown
    assert cells.count(shown) == 6
    assert [code.text for code in parse(page).iter("code")] == [shown]


def test_a_candidate_that_is_slower_is_not_called_faster(report):
    """0.53 times faster is 1.89 times the time."""
    assert "0.53x" not in html_from_report(replace(report, speed=0.53))
    assert "1.89x the time" in html_from_report(replace(report, speed=0.53))
    assert "1.20x faster" in html_from_report(replace(report, speed=1.2))
