"""One tiny model benched once for all tests; nothing here asserts a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from exporter.bench import BenchOptions, BenchReport, run_bench
from exporter.bench.ceilings import Ceilings
from tests.exported import make_checkpoint

PEERS = ("int8", "paper-form", "hf-fid-k2", "hf-fid-k5", "optimum-fid-k2")


@pytest.fixture(scope="session")
def bench_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("bench") / "checkpoint", "glimmer", tokenizer=False)


@pytest.fixture(scope="session")
def bench_options(bench_checkpoint: Path) -> BenchOptions:
    return BenchOptions(
        checkpoint=bench_checkpoint, k=5, m=2, question_tokens=11, passage_tokens=20, answer_tokens=3, threads=1,
        repeats=3, warmup=1, peers=PEERS, peak_rss=False, work=bench_checkpoint.parent / "work",
    )


@pytest.fixture(scope="session")
def bench_report(bench_options: BenchOptions) -> BenchReport:
    return run_bench(bench_options, ceilings=small_ceilings())


@pytest.fixture(scope="session")
def batch_report(bench_options: BenchOptions, bench_report: BenchReport) -> BenchReport:
    """Batches, in the directory that the first bench left."""
    return run_bench(replace(bench_options, batch_size=3, repeats=1, warmup=0), ceilings=small_ceilings())


def small_ceilings() -> Ceilings:
    return Ceilings(1, matrix_size=32, copy_bytes=1 << 12)
