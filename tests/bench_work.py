"""A tiny model's bench with everything exported, once for the tests of bench and of its command."""

from __future__ import annotations

from pathlib import Path

from glimmer_export.exporter.bench import BenchOptions
from glimmer_export.exporter.bench.workplace import prepare
from tests.exported import make_checkpoint
from tests.once import Once
from tests.optimum_line import HAS_OPTIMUM

__all__ = ["PEERS", "prepared_options"]

OF_OPTIMUM = ("optimum-fid-k2", "optimum-fid-k2-int8")
PEERS = (
    "int8", "paper-form", "rerank-layers-2", "hf-fid-k2", "hf-fid-k2-bf16", "hf-fid-k5",
    *(OF_OPTIMUM if HAS_OPTIMUM else ()),
)  # fmt: skip
"""The peers of optimum are measured where that is installed."""


def prepared_options(once: Once) -> BenchOptions:
    """Options of a bench whose work is done but for the measuring; its folder is read only."""

    def make(directory: Path) -> None:
        make_checkpoint(directory / "checkpoint", "glimmer", tokenizer=False, num_stage_b_layers=2)
        prepare(options_in(directory), directory / "work")

    return options_in(once("bench", make))


def options_in(directory: Path) -> BenchOptions:
    return BenchOptions(
        checkpoint=directory / "checkpoint", k=5, m=2, question_tokens=11, passage_tokens=20, answer_tokens=3,
        threads=1, repeats=3, block_seconds=0, peers=PEERS, peak_rss=False, work=directory / "work",
    )
