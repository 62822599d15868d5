"""The README's performance figures are those of the bench that is committed."""

from __future__ import annotations

import json
from pathlib import Path

from glimmer_export.exporter.bench.readme import main

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "docs" / "measurements" / "bench-base-cpu.json"


def test_the_readme_is_written_from_it():
    assert main([str(BENCH), "--readme", str(ROOT / "README.md"), "--check"]) == 0


def test_it_says_where_when_and_how():
    bench = json.loads(BENCH.read_text(encoding="utf-8"))
    assert bench["command"].startswith("glimmer-export bench --random base --k 25 --m 5 ")
    assert bench["date"][:2] == "20"
    assert bench["machine"]["cpu"]
    assert set(bench["ratios"]) == {"int8", "paper_form", "hf_fid_k5", "hf_fid_k25", "optimum_fid_k5"}
