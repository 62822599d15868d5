"""One tiny model benched once for all tests; nothing here asserts a time."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from glimmer_export.exporter.bench import BenchOptions, BenchReport, run_bench
from glimmer_export.exporter.bench.ceilings import Ceilings
from tests.bench_work import prepared_options
from tests.once import Once


@pytest.fixture(scope="session")
def bench_options(once: Once) -> BenchOptions:
    return prepared_options(once)


@pytest.fixture(scope="session")
def bench_report(once: Once, bench_options: BenchOptions) -> BenchReport:
    """Of one process for all: two that bench in one folder would be in each other's way."""

    def make(directory: Path) -> None:
        report = run_bench(bench_options, ceilings=small_ceilings())
        (directory / "report.pickle").write_bytes(pickle.dumps(report))

    report: BenchReport = pickle.loads((once("bench report", make) / "report.pickle").read_bytes())
    return report


@pytest.fixture(scope="session")
def batch_report(bench_options: BenchOptions, bench_report: BenchReport) -> BenchReport:
    """Batches, in the same directory."""
    return run_bench(replace(bench_options, batch_size=3, repeats=1), ceilings=small_ceilings())


def small_ceilings() -> Ceilings:
    return Ceilings(1, matrix_size=32, copy_bytes=1 << 12)
