"""The command bench; what it measures is tested in tests/bench."""

from __future__ import annotations

import shutil

import pytest

import glimmer_export.exporter.bench.run as bench_run
from glimmer_export.exporter.bench.ceilings import Ceilings
from glimmer_export.exporter.bench.load import CpuCounts, LoadWatch
from glimmer_export.runtime.contract import CheckpointError, OptionError, OutputError
from tests.bench_work import prepared_options
from tests.exported import make_checkpoint

SMALL = (
    "--top-k", 3, "--top-m", 2, "--question-tokens", 9, "--passage-tokens", 12, "--answer-tokens", 4, "--threads", 1,
)
QUICK = ("--repeats", 2, "--block-seconds", 0, "--no-peak-rss")


@pytest.fixture
def checkpoint(tmp_path):
    return make_checkpoint(tmp_path / "checkpoint", "glimmer", tokenizer=False)


def busy_machine():
    """Counters of a machine of a thousand CPUs; between two readings others had 350 of them."""
    readings = iter(CpuCounts(10.0 * place, 1000, 3500.0 * place, 0.0, 0.0) for place in range(1000))
    return lambda: next(readings)


def test_json_and_html(cli, once, tmp_path, monkeypatch):
    """In a copy of a folder with everything exported, so the lengths are those of that bench."""
    prepared = prepared_options(once)
    work = shutil.copytree(prepared.work, tmp_path / "work")
    monkeypatch.setattr(bench_run, "Ceilings", lambda threads: Ceilings(threads, matrix_size=16, copy_bytes=1 << 10))
    arguments = (
        "bench", "--checkpoint", prepared.checkpoint, "--top-k", 5, "--top-m", 2, "--question-tokens", 11,
        "--passage-tokens", 20, "--answer-tokens", 3, "--threads", 1, *QUICK, "--work", work,
    )  # fmt: skip
    report = cli(*arguments, "--peers", "none", "--html", tmp_path / "report.html", "--json").json
    assert report["ratios"] == {}
    assert report["end_to_end"]["questions_per_second"] > 0
    assert (tmp_path / "report.html").is_file()
    assert (report["settings"]["repeats"], report["settings"]["seconds"]) == (2, None)
    monkeypatch.setattr(bench_run, "LoadWatch", lambda: LoadWatch(busy_machine()))
    done = cli(*arguments, "--peers", "none", "--json", "--seconds", 0)
    assert done.json["load"]["worthless"] is True
    assert done.json["end_to_end"]["block_sizes"] == [1]
    assert "warning These times are worthless: other processes had 35.0% of the CPUs during" in done.err
    done = cli(*arguments, "--peers", "none", "--batch-size", 2)
    assert done.code == 0, done.err
    assert "ours" in done.out
    assert "live_stage_b" in done.out


def test_bad_input(refused, checkpoint, tmp_path):
    given = ("bench", "--checkpoint", checkpoint)
    assert "found neither" in refused(OptionError, "bench")
    assert "found both" in refused(OptionError, *given, "--random", "base")
    assert "--top-m: expected at most the 3" in refused(OptionError, *given, *SMALL, "--top-m", 4)
    assert "found 'hf'" in refused(OptionError, *given, *SMALL, "--peers", "hf")
    assert "--passage-tokens: expected at most 24" in refused(OptionError, *given, *SMALL, "--passage-tokens", 25)
    assert "size 'huge'" in refused(OptionError, "bench", "--random", "huge")
    assert "expected the name of a file" in refused(OutputError, *given, *SMALL, "--html", tmp_path)
    assert "a place apart from what is read" in refused(OutputError, *given, *SMALL, "--work", checkpoint)
    refused(CheckpointError, "bench", "--checkpoint", tmp_path / "nowhere")


def test_another_architecture(refused, tmp_path):
    lumen = make_checkpoint(tmp_path / "lumen", "lumen", tokenizer=False)
    assert "the architecture glimmer" in refused(OptionError, "bench", "--checkpoint", lumen)
