"""One written graph against torch, from the checkpoint's files: here, or in a process whose memory goes back."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from glimmer_export.exporter.graphs.blank_weights import BlankWeights
from glimmer_export.exporter.graphs.check import check_runs, check_written, reference_runs
from glimmer_export.runtime.contract import ExportError, Forms, codec_of, graph_io

__all__ = ["APART_BYTES", "StageCheck"]

APART_BYTES = 512_000_000
"""Weights, in FP32, above which a check is worth the seconds that a process takes to start."""


@dataclass(frozen=True)
class StageCheck:
    """What to check: a graph file whose stage needs the large weights of these names."""

    checkpoint: Path
    path: Path
    forms: Forms
    weights: frozenset[str]
    precision: str

    def run(self) -> float:
        """Largest absolute error against torch; torch's weights are let go before ONNX Runtime reads the graph's.

        Raises ExportError as `check_runs` does.
        """
        from glimmer_export.exporter.checkpoint import open_tensors, read_config
        from glimmer_export.exporter.stages import stage_from_model

        check_written(self.path)
        config, name = read_config(self.checkpoint), self.path.stem
        model = BlankWeights(open_tensors(self.checkpoint)).filled_model(config, self.weights)
        io = graph_io(config.shape, self.forms)[name]
        stage = stage_from_model(model, name, self.forms)
        runs = reference_runs(stage, io, config.shape, codec_of(name))
        del model, stage
        return check_runs(self.path, runs, precision=self.precision)

    def run_apart(self) -> float:
        """The same in a process of its own; raises ExportError too where the system ends that for want of memory."""
        spawn = multiprocessing.get_context("spawn")
        try:
            with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                return pool.submit(self.run).result()
        except BrokenProcessPool:
            raise ExportError(
                f"graph {self.path.stem}", expected="memory to check it in: its weights twice, in FP32",
                found="a check that the system stopped", fix="check it on a larger machine, or pass --no-check",
            ) from None
