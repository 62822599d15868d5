"""The guide's and the README's performance figures are those of the bench that is committed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glimmer_export.exporter.bench.readme import main

ROOT = Path(__file__).parents[2]
GUIDE, README = ROOT / "docs" / "guide" / "bench.md", ROOT / "README.md"
BENCH, LOADED = (ROOT / "docs" / "measurements" / f"bench-base-cpu{name}.json" for name in ("", "-loaded"))


def rows(page: Path) -> list[list[str]]:
    """Cells of the tables of a page that the bench writes."""
    lines = page.read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


@pytest.mark.parametrize("page", [GUIDE, README], ids=lambda page: page.name)
def test_the_pages_have_its_medians_in_its_order(page):
    bench = json.loads(BENCH.read_text(encoding="utf-8"))
    contenders = [bench["end_to_end"], *bench["peers"].values()]
    table = rows(page)
    first = next(place for place, cells in enumerate(table) if cells[0] == "**glimmer-export**")
    medians = [cells[1] for cells in table[first : first + len(contenders)]]
    assert medians == [f"{times['median_ms']:,.0f}" for times in contenders]


def test_pages_are_written_from_no_bench_whose_load_nobody_watched():
    """As the committed one, which is of before blocks, and the one whose load was watched and found."""
    for bench in (BENCH, LOADED):
        assert main([str(bench), "--page", str(GUIDE), "--check"]) == 2


def test_the_minima_that_the_guide_names():
    bench = json.loads(LOADED.read_text(encoding="utf-8"))
    assert bench["load"]["worthless"] is True
    assert bench["settings"]["block_seconds"] >= 3
    text = " ".join(GUIDE.read_text(encoding="utf-8").split())
    for times in (bench["end_to_end"], *bench["peers"].values()):
        assert len(times["times_ms"]) == sum(times["block_sizes"])
        assert f"{times['min_ms']:,.0f}" in text.partition("above its minima:")[2]


def test_it_says_where_when_and_how():
    bench = json.loads(BENCH.read_text(encoding="utf-8"))
    assert bench["command"].startswith("glimmer-export bench --random base --top-k 25 --top-m 5 ")
    assert bench["date"][:2] == "20"
    assert bench["machine"]["cpu"]
    assert set(bench["ratios"]) == {"int8", "paper_form", "hf_fid_k5", "hf_fid_k25", "optimum_fid_k5"}
