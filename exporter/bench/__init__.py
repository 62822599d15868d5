"""Bench: whole questions timed side by side with peers on the same inputs and weights, and what the machine allows."""

from glimmer_export.exporter.bench.options import DEFAULT_PEERS, BenchOptions
from glimmer_export.exporter.bench.report import BenchReport
from glimmer_export.exporter.bench.run import prepare_bench, run_bench

__all__ = ["DEFAULT_PEERS", "BenchOptions", "BenchReport", "prepare_bench", "run_bench"]
