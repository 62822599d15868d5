"""The guide's and the README's performance figures are those of the bench that is committed."""

from __future__ import annotations

import json
from pathlib import Path

from glimmer_export.exporter.bench.readme import main

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guide" / "bench.md"
BENCH = ROOT / "docs" / "measurements" / "bench-base-cpu.json"


def test_the_guide_is_written_from_it():
    assert main([str(BENCH), "--page", str(GUIDE), "--check"]) == 0


def test_the_readmes_table_is_the_guides():
    readme = (ROOT / "README.md").read_text(encoding="utf-8").partition("## How fast")[2].partition("\n## ")[0]
    table = [line for line in readme.splitlines() if line.startswith("|")]
    assert len(table) > 5
    assert "\n".join(table) in GUIDE.read_text(encoding="utf-8")


def test_it_says_where_when_and_how():
    bench = json.loads(BENCH.read_text(encoding="utf-8"))
    assert bench["command"].startswith("glimmer-export bench --random base --top-k 25 --top-m 5 ")
    assert bench["date"][:2] == "20"
    assert bench["machine"]["cpu"]
    assert set(bench["ratios"]) == {"int8", "paper_form", "hf_fid_k5", "hf_fid_k25", "optimum_fid_k5"}
