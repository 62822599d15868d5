"""The guide's and the README's performance figures are those of the bench that is committed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glimmer_export.exporter.bench import bars
from glimmer_export.exporter.bench.readme import main
from tests.demo.draft_replays import FOUND, PAGE, REPLAYS, with_table

ROOT = Path(__file__).parents[2]
GUIDE, README = ROOT / "docs" / "guide" / "bench.md", ROOT / "README.md"
BENCH, SPEED = (ROOT / "docs" / "measurements" / name for name in ("bench-base-cpu.json", "speed.json"))


@pytest.mark.parametrize("page", [GUIDE, README], ids=lambda page: page.name)
def test_the_pages_are_written_from_it(page):
    assert main([str(BENCH), "--page", str(page), "--check"]) == 0


def test_speed_is_written_from_its_run():
    assert bars.main([str(SPEED), "--page", str(SPEED.with_suffix(".md")), "--check"]) == 0


def test_the_table_of_drafts_is_of_its_replays():
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    replays = json.loads((ROOT / FOUND).read_text(encoding="utf-8"))["replays"]
    assert [(one["trace"], one["batch_size"]) for one in replays] == list(REPLAYS)
    assert with_table(page, replays) == page
    assert with_table(page, replays[:1]) != page


def test_the_bench_is_the_runs_first_group():
    run = json.loads(SPEED.read_text(encoding="utf-8"))
    assert json.loads(BENCH.read_text(encoding="utf-8")) == run["groups"]["default"]


def test_it_is_of_a_quiet_machine_and_of_blocks():
    bench = json.loads(BENCH.read_text(encoding="utf-8"))
    assert bench["load"]["worthless"] is False
    assert bench["settings"]["block_seconds"] >= 3
    for times in (bench["end_to_end"], *bench["peers"].values()):
        assert len(times["block_sizes"]) >= 2
        assert len(times["times_ms"]) == sum(times["block_sizes"])


def test_it_says_where_when_and_how():
    bench = json.loads(BENCH.read_text(encoding="utf-8"))
    assert bench["command"].startswith("glimmer-export bench --random base --top-k 25 --top-m 5 ")
    assert bench["date"][:2] == "20"
    assert bench["machine"]["cpu"]
    assert set(bench["ratios"]) == {
        "int8", "paper_form", "hf_fid_k5", "hf_fid_k25", "optimum_fid_k5", "optimum_fid_k25",
    }
