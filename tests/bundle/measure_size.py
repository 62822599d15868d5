"""Seconds and peak memory of every step from a random model to its bundles, each step in processes of its own.

    python -m tests.bundle.measure_size xl --work DIR --report size.json

A step that the report has is not run again; `--steps` names those to run, and what they need must be in DIR.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glimmer_export.exporter.bench.machine import describe_machine
from glimmer_export.exporter.checkpoint.initialise import RandomWeights
from glimmer_export.exporter.checkpoint.lazy_tensors import TensorSpec
from glimmer_export.exporter.checkpoint.options import ModelOptions, config_from_options
from glimmer_export.exporter.checkpoint.safetensors_files import write_safetensors
from glimmer_export.exporter.checkpoint.t5_shape import preset
from glimmer_export.exporter.demo.world import CHECKPOINT

COMMAND = [sys.executable, "-c", "from glimmer_export.exporter.cli import main; main()"]
EXPORT = ["export", "partitioned", "--codecs", "fp16", "--json"]
STEPS: dict[str, list[str]] = {
    "init --random": ["init", "--random", "{size}", "-o", "checkpoint"],
    "init --from-t5": ["init", "--from-t5", "t5", "--tokenizer", "{tokenizer}", "-o", "partitioned"],
    "convert --from huggingface": [
        "convert", "t5", "--from", "huggingface", "--tokenizer", "{tokenizer}", "-o", "converted",
    ],
    "export --precision fp16 --no-check": [*EXPORT, "--precision", "fp16", "--no-check", "-o", "fp16"],
    "export --no-check": [*EXPORT, "--no-check", "-o", "fp32"],
    "export": [*EXPORT, "-o", "checked"],
    "calibrate": ["calibrate", "fp32", "--questions", "questions.jsonl", "--passages", "given", "--json"],
    "quantize": ["quantize", "fp32", "-o", "int8", "--json"],
    "quantize --precision int8-fp16 --target tensorrt": [
        "quantize", "fp32", "-o", "int8-fp16", "--precision", "int8-fp16", "--target", "tensorrt", "--json",
    ],
}
"""The T5 is in FP16, and so is the checkpoint that is made of it and exported."""
INTERVAL_SECONDS = 0.05


@dataclass(frozen=True)
class Peak:
    """Of a step: seconds, of one processor's work and in all, and its largest process.

    `resident` and `anonymous` are bytes at most; the rest is of mapped files, which the system can drop.
    """

    seconds: float
    processor_seconds: float
    resident: int
    anonymous: int


def measure_command(command: list[str], directory: Path) -> Peak:
    """Run a command to its end and watch its processes; raises RuntimeError where it fails."""
    started = time.perf_counter()
    peaks: dict[int, dict[str, int]] = {}
    # A file, as nobody reads a pipe before the end.
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, cwd=directory, stdout=said, stderr=subprocess.STDOUT) as process,
    ):
        while process.poll() is None:
            for pid in _tree(process.pid):
                peak = peaks.setdefault(pid, {})
                for name, size in _status(pid).items():
                    peak[name] = max(size, peak.get(name, 0))
            time.sleep(INTERVAL_SECONDS)
        said.seek(0)
        if process.returncode:
            raise RuntimeError(f"{command} failed:\n{said.read().decode()}")
    largest = max(peaks.values(), key=lambda peak: peak.get("VmHWM", 0))
    seconds, used = time.perf_counter() - started, sum(peak.get("cpu", 0) for peak in peaks.values()) / 100
    return Peak(round(seconds, 1), round(used, 1), largest["VmHWM"], largest["RssAnon"])


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:  # grows as it goes
        try:
            text = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="utf-8")
        except OSError:
            continue
        found += [int(child) for child in text.split()]
    return found


def _status(pid: int) -> dict[str, int]:
    """Bytes by the kernel's names, and hundredths of a second of the processor's work."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return {}
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmHWM", "RssAnon"))}
    return sizes | {"cpu": int(fields[11]) + int(fields[12])}


def write_inputs(size: str, directory: Path) -> int:
    """A random T5 in FP16, and two questions with passages; returns the bytes of the checkpoint in FP16."""
    config = config_from_options(ModelOptions("glimmer"), preset(size), subject=size)
    drawn = RandomWeights(config, seed=0)
    directory.mkdir(parents=True, exist_ok=True)
    rows = [
        {"question": text, "answers": ["-"], "ctxs": [{"title": "Harbour", "text": f"The {text}."}] * 5}
        for text in ("where the harbour is", "who built the bridge")
    ]
    (directory / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if not (directory / "t5").exists():
        _write_t5(drawn, config, directory / "t5")
    return 2 * sum(spec.size for spec in drawn.specs.values())


def _write_t5(drawn: RandomWeights, config: Any, directory: Path) -> None:
    import torch
    from transformers import T5Config

    from glimmer_export.exporter.bench.peers import T5_FIELDS, _t5_name

    shape = {name: getattr(config, name) for name in T5_FIELDS}
    theirs: Any = T5Config(
        num_layers=config.num_memory_layers + config.num_live_layers, **shape
    )
    directory.mkdir()
    theirs.save_pretrained(directory)
    names = {name: _t5_name(name, config.num_memory_layers) for name in drawn}
    specs = {their: TensorSpec(drawn.specs[name].shape, torch.float16) for name, their in names.items() if their}
    stream = ((str(names[name]), tensor.half()) for name, tensor in drawn.stream() if names[name])
    write_safetensors(directory / "model.safetensors", specs, stream)


def measure(size: str, work: Path, report_path: Path, steps: list[str]) -> dict[str, Any]:
    """The report so far, written after each step."""
    report: dict[str, Any] = json.loads(report_path.read_text(encoding="utf-8")) if report_path.exists() else {}
    report.setdefault("machine", describe_machine())
    entry = report.setdefault("sizes", {}).setdefault(size, {"steps": {}})
    directory = (work / size).resolve()
    entry["fp16_bytes"] = write_inputs(size, directory)
    for step in steps:
        if step not in entry["steps"]:
            values = {"size": size, "tokenizer": str(CHECKPOINT / "tokenizer.json")}
            peak = measure_command([*COMMAND, *(part.format(**values) for part in STEPS[step])], directory)
            entry["steps"][step] = asdict(peak)
            report_path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            sys.stdout.write(f"{size}: {step}: {peak}\n")
            sys.stdout.flush()
    return report


def table(report: dict[str, Any]) -> str:
    """The report as lines of Markdown."""
    lines = ["| size | step | s | s of a processor | peak RSS | of it anonymous | x FP16 checkpoint |",
             "| --- | --- | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for size, entry in report["sizes"].items():
        for step, peak in entry["steps"].items():
            seconds = f"{peak['seconds']:.0f} | {peak['processor_seconds']:.0f}"
            sizes = f"{peak['resident'] / 1e9:.2f} GB | {peak['anonymous'] / 1e9:.2f} GB"
            ratio = peak["resident"] / entry["fp16_bytes"]
            lines.append(f"| {size} | {step} | {seconds} | {sizes} | {ratio:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--steps", nargs="*", choices=STEPS, default=list(STEPS))
    options = parser.parse_args()
    sys.stdout.write(table(measure(options.size, options.work, options.report, options.steps)) + "\n")
