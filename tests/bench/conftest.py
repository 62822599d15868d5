"""One tiny model benched once for all tests; nothing here asserts a time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exporter.bench import BenchOptions, BenchReport, run_bench
from exporter.bench.ceilings import Ceilings
from tests.bench_work import prepared_options
from tests.once import Once


@pytest.fixture(scope="session")
def bench_options(once: Once) -> BenchOptions:
    return prepared_options(once)


@pytest.fixture(scope="session")
def bench_report(bench_options: BenchOptions) -> BenchReport:
    return run_bench(bench_options, ceilings=small_ceilings())


@pytest.fixture(scope="session")
def batch_report(bench_options: BenchOptions, bench_report: BenchReport) -> BenchReport:
    """Batches, in the same directory."""
    return run_bench(replace(bench_options, batch_size=3, repeats=1, warmup=0), ceilings=small_ceilings())


def small_ceilings() -> Ceilings:
    return Ceilings(1, matrix_size=32, copy_bytes=1 << 12)
