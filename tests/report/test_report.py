"""What every report is made of: tables, a page, pictures with axes, and progress in the unit of what is done."""

from __future__ import annotations

import io
import math
import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from rich.console import Console

from glimmer_export.exporter.cli.output import question_progress
from glimmer_export.exporter.report import progress, terminal
from glimmer_export.exporter.report.origin import Origin
from glimmer_export.exporter.report.page import Page, Picture, Section, html_from_page
from glimmer_export.exporter.report.svg import histogram_svg, scatter_svg, tick_places
from glimmer_export.exporter.report.tables import Bar, ReportTable, Verdict, print_table, times_faster

HOSTILE = "</td><img src=x onerror=alert(1)>&lt; {{ 7 * 7 }} [red]x[/red]\x1b[0m"
TABLE = ReportTable(
    "Times of " + HOSTILE, ("who", "ms", ""), [(HOSTILE, "12", Bar(0.5)), ("sure", Verdict("yes", good=True), Bar(1))],
    note="as of " + HOSTILE,
)  # fmt: skip


def page_of(*sections: Section) -> str:
    return html_from_page(Page(HOSTILE, HOSTILE, Origin(HOSTILE, "2026-01-02", {"numpy": HOSTILE}), sections))


def parse(page: str) -> ET.Element:
    return ET.fromstring(page.removeprefix("<!DOCTYPE html>\n"))


def test_a_page_is_text_wherever_it_was_given_text():
    page = page_of(Section(HOSTILE, [HOSTILE], [TABLE], verdict=Verdict(HOSTILE, good=False)), Section.of(TABLE))
    root = parse(page)
    assert {element.tag for element in root.iter()}.isdisjoint({"script", "link", "img", "iframe", "object"})
    assert "\x1b" not in page
    assert page.count("{{ 7 * 7 }}") == "".join(root.itertext()).count("{{ 7 * 7 }}") == 13
    assert [code.text for code in root.iter("code")] == [HOSTILE.replace("\x1b", r"\x1b")]


def test_a_page_fits_a_telephone_and_the_dark():
    """Every table scrolls by itself, no picture is wider than the page, and colours are said once for each scheme."""
    page = page_of(Section.of(TABLE), Section("Scores", pictures=[Picture(scatter_svg(np.eye(2, dtype=np.float32)))]))
    root = parse(page)
    viewport = {"name": "viewport", "content": "width=device-width, initial-scale=1"}
    assert viewport in [element.attrib for element in root.iter("meta")]
    parents = {child: parent for parent in root.iter() for child in parent}
    tables = list(root.iter("table"))
    assert len(tables) == 2
    assert all(parents[table].get("class") == "table" for table in tables)
    style = root.find("head/style").text
    for rule in (".table { overflow-x: auto }", "svg { max-width: 100%; height: auto }", "color-scheme: light dark"):
        assert rule in style
    light, dark = (
        set(re.findall(r"--\w+(?=:)", part)) for part in style.split("@media (prefers-color-scheme: dark)", 1)
    )
    assert light == dark
    assert {name.strip() for name in re.findall(r"var\((--\w+)\)", style)} <= light


def test_a_table_prints_without_its_bars():
    shown = io.StringIO()
    print_table(TABLE, Console(file=shown, width=120, markup=False))
    text = shown.getvalue()
    assert "[red]x[/red]" in text
    assert "\x1b" not in text
    assert {line.count("│") for line in text.splitlines() if "yes" in line} == {3}


@pytest.mark.parametrize(
    ("ratio", "words"),
    [(1.876, "1.88x faster"), (0.53, "1.89x the time"), (1.001, "the same time"), (0.999, "the same time"),
     (0.0, "-"), (math.inf, "-"), (math.nan, "-")],
)
def test_a_slower_one_is_not_so_many_times_faster(ratio, words):
    assert times_faster(ratio) == words


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.7, 12.2), (1e-9, 3e-9), (-74.1, -73.9), (0, 1e12), (5, 5)])
def test_ticks_are_round_and_within(low, high):
    ticks = tick_places(low, high)
    assert len(ticks) == 1 if low == high else 2 <= len(ticks) <= 5
    assert all(low <= tick <= high or math.isclose(tick, low) or math.isclose(tick, high) for tick in ticks)
    steps = {f"{second - first:.1e}"[:3] for first, second in pairwise(ticks)}
    assert steps < {"1.0", "2.0", "5.0"}
    assert len(steps) <= 1


def test_axes_have_ticks():
    scatter = ET.fromstring(scatter_svg(np.array([[0, 0.5], [10, 9]], np.float32)))
    words = [text.text for text in scatter.iter("text")]
    assert [words.count(word) for word in ("0", "5", "10", "reference", "candidate")] == [2, 2, 2, 1, 1]
    assert len([line for line in scatter.iter("line") if line.get("class") == "tick"]) == 6
    histogram = ET.fromstring(histogram_svg([1, 0, 2000], -4.0, 4.0))
    words = [text.text for text in histogram.iter("text")]
    assert words == ["-4", "-2", "0", "2", "4", "1", "1,000"]


def test_pictures_of_nothing_and_of_what_is_not_finite():
    for svg in (
        scatter_svg(np.zeros((0, 2), np.float32)),
        scatter_svg(np.array([[1, 2], [np.nan, 3], [-np.inf, 1]], np.float32)),
        scatter_svg(np.ones((3, 2), np.float32)),
        histogram_svg(np.zeros(8, np.int64), -1.0, 1.0),
        histogram_svg([1, 2, 3], 0.0, 0.0),
        histogram_svg([1, 2, 3], -math.inf, math.inf),
    ):
        assert "nan" not in svg
        assert "inf" not in svg
        assert ET.fromstring(svg) is not None


def test_progress_counts_what_is_done(monkeypatch):
    """Questions are no passages."""
    seen = io.StringIO()
    console = Console(file=seen, force_terminal=True, width=120)
    monkeypatch.setattr(terminal, "console", lambda *, stderr=False: console)
    with question_progress("Answering", 4) as advance:
        advance(2)
        advance(2)
    assert "questions/s" in seen.getvalue()
    assert "passages/s" not in seen.getvalue()
    with progress.progress_bar("Encoding", 4) as advance:
        advance(2)
        advance(2)
    assert "passages/s" in seen.getvalue()
