"""Compile every graph of random models with TensorRT-RTX: seconds, sizes of engines, and the most memory taken.

    python -m tests.engines.base_size -o docs/measurements/tensorrt-rtx-base.json

All architectures and forms, in FP16 and in INT8 with FP16; each graph in a process of its own, for sm_75, sm_80 and
sm_86 in one engine, with the T4's optimization profiles, whose batches are no larger than what fits there. Rows are
written model by model, and a second run goes on behind them. Nothing is run: there need be no GPU.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from glimmer_export.calibration.calibrate import CalibrationOptions
from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.bench.machine import describe_machine
from glimmer_export.exporter.bundle import FormOptions, export_bundle
from glimmer_export.exporter.bundle.calibrate import calibrate_bundle
from glimmer_export.exporter.bundle.quantize import ANY_SPEED, QuantizeOptions, quantize_bundle
from glimmer_export.exporter.checkpoint.init import init_random
from glimmer_export.exporter.checkpoint.options import ModelOptions
from glimmer_export.exporter.config.targets import read_target
from glimmer_export.exporter.demo.world import CHECKPOINT
from glimmer_export.exporter.engines.profiles import graph_profiles
from glimmer_export.exporter.lint import limits_of, lint_bundle
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import ARCHITECTURES, ShapeRange
from glimmer_export.runtime.store import Passage
from tests.engines.ahead_of_time import CAPABILITIES, compiler

TARGET = "t4"
PRECISIONS = ("fp16", "int8-fp16")
FORMS = ("absorbed", "cached")
"""Of cross-attention; where passages are ranked, stage A is lazy with the first and full with the second."""
QUESTIONS = [
    Question(text, text, (), (Passage(0, "Harbour", f"The {text}."), Passage(1, "", f"Nobody knows {text}.")), ())
    for text in ("where the harbour is", "who built the bridge")
]


def measure(size: str, output: Path) -> dict[str, Any]:
    """The report so far, written after each model."""
    report: dict[str, Any] = {
        "date": datetime.now(timezone.utc).date().isoformat(), "machine": describe_machine(), "size": size,
        "compiler": f"tensorrt_rtx {compiler(*CAPABILITIES).key.version}", "capabilities": list(CAPABILITIES),
        "profiles": f"those of {TARGET}", "models": {},
    }  # fmt: skip
    if output.exists():
        report = json.loads(output.read_text(encoding="utf-8"))
    for form in FORMS:
        for architecture in ARCHITECTURES:
            name = f"{architecture}, {form}"
            if name not in report["models"]:
                with tempfile.TemporaryDirectory() as work:
                    report["models"][name] = model_rows(size, architecture, form, Path(work))
                output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def model_rows(size: str, architecture: str, form: str, work: Path) -> dict[str, Any]:
    """By precision and graph: seconds of compiling, largest batch, bytes of graph, engine and memory at its peak."""
    init_random(size, work / "checkpoint", ModelOptions(architecture), tokenizer=CHECKPOINT / "tokenizer.json")
    stage_a = "full" if form == "cached" and ARCHITECTURES[architecture].selects else None
    export_bundle(work / "checkpoint", work / "bundle", FormOptions(stage_a, form))
    options = CalibrationOptions(samples=2, given=True, passages_per_question=2, threads=1)
    calibrate_bundle(work / "bundle", None, QUESTIONS, options)
    found: dict[str, Any] = {}
    for precision in PRECISIONS:
        quantize_bundle(work / "bundle", work / precision, QuantizeOptions(precision, "tensorrt", gpu=ANY_SPEED))
        bundle = Bundle.open(work / precision)
        gpu = read_target(TARGET).tensorrt
        assert gpu is not None
        assert lint_bundle(bundle, limits_of(gpu, "tensorrt-rtx")) == []
        found[precision] = {}
        for graph in bundle.manifest.graphs:
            # A process of its own: its memory is that of one graph.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                profiles = graph_profiles(bundle.manifest, graph, gpu)
                row = pool.apply(compile_graph, (bundle.graph_path(graph), profiles))
            row["max_batch"] = max(shapes.max[0] for profile in profiles for shapes in profile.values())
            row = {"graph_bytes": bundle.manifest.graphs[graph].num_bytes, **row}
            found[precision][graph] = row
            sys.stdout.write(f"{architecture}, {form}, {precision}, {graph}: {row}\n")
    return found


def compile_graph(path: Path, profiles: tuple[dict[str, ShapeRange], ...]) -> dict[str, Any]:
    """Compile one graph in this process.

    `cpu_seconds` are of the processor, whatever else ran on it; `peak_bytes` are those resident at most, Python and its
    libraries included.
    """
    started, processor = time.perf_counter(), time.process_time()
    engine = compiler(*CAPABILITIES).compile(path, profiles, path.with_suffix(".timings"))
    seconds = {
        "seconds": round(time.perf_counter() - started, 2), "cpu_seconds": round(time.process_time() - processor, 2)
    }
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024
    return {"engine_bytes": engine.nbytes, **seconds, "peak_bytes": peak}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--size", default="base")
    arguments = parser.parse_args()
    measure(arguments.size, arguments.output)
