"""The page is one file of well-formed XML that fetches nothing, and has what the report has."""

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
from glimmer_export.exporter.parity.html import html_from_report, write_html
from glimmer_export.exporter.parity.svg import histogram_svg, scatter_svg
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
    write_html(report, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    text = " ".join(parse(page).itertext())
    parts = ("answers differ", "log-probability of equal answers", "Gate default", "not measured", "Scores", "<b>&")
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


def test_pictures_of_nothing_and_of_what_is_not_finite():
    for svg in (
        scatter_svg(np.zeros((0, 2), np.float32)),
        scatter_svg(np.array([[1, 2], [np.nan, 3], [-np.inf, 1]], np.float32)),
        histogram_svg(np.zeros(8, np.int64)),
        histogram_svg([1, 2, 3]),
    ):
        assert "nan" not in svg
        assert "inf" not in svg
        assert ET.fromstring(svg) is not None
