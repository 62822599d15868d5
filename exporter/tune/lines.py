"""The command lines that make a point again: its graphs, its store, its bundle, and its figures.

Made of the same values that the search builds with, so that what a line makes is what was measured. What is read is
named by its whole path; what is written stands below the folder that the lines are run in.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glimmer_export.exporter.tune.space import FP32, NONE, Point
from glimmer_export.runtime.contract import CPU_BACKEND

__all__ = ["BUILT_CODEC", "ROUNDING", "Inputs", "Ladder", "point_lines"]

BUILT_CODEC = "fp16"
"""Of the store that all others are converted from."""
ROUNDING = "onnxruntime-cpu-fp16-rounded"
ON_CPU = ("--backend", CPU_BACKEND, "--compute-precision", "fp32")
ANSWERING_BATCH = 8
"""Questions of one run where exact match is counted; latency is that of `batch`."""

Ladder = dict[str, tuple[str, ...]]
"""By a precision's name, the options of `quantize` that make it; none for float."""


@dataclass(frozen=True)
class Inputs:
    """What is read: `corpus` is what stores are built of, with its options; `given`: passages come with the questions.

    `codecs` are those that the graphs decode, none without memory. `quantize_for` is `cpu` or `tensorrt`, `reference`
    whether exact match is counted beside the float bundle, on graphs that are rounded as a GPU rounds them.
    """

    checkpoint: Path
    corpus: tuple[str, ...]
    questions: Path
    held_out: Path
    codecs: tuple[str, ...]
    samples: int
    given: bool
    quantize_for: str
    target: str
    policy: str
    timed: int
    ladder: Ladder

    @property
    def on_gpu(self) -> bool:
        """Whether the bundle is one for TensorRT."""
        return self.quantize_for == "tensorrt"


def point_lines(inputs: Inputs, point: Point, folder: str, *, held_out: bool = False) -> list[str]:
    """Run in this order they make `folder`/store and /bundle, of /float where it is rounded, and print the figures.

    `held_out`: a last line more, for the held-out questions.
    """
    path = {name: f"{folder}/{name}" for name in ("float", "store-fp16", "store", "bundle")}
    made = quantize_options(inputs, point)
    if made is None:
        path["float"] = path["bundle"]
    given = ("--passages", "given") if inputs.given else ()
    export: list[object] = ["export", inputs.checkpoint, "-o", path["float"]]
    for switch, option in (("stage_a", "--stage-a"), ("cross_attention", "--cross-attention")):
        if point[switch] is not None:
            export += [option, point[switch]]
    if inputs.codecs:
        export += ["--codecs", ",".join(inputs.codecs)]
    codec = point["codec"]
    direct = codec in (None, BUILT_CODEC)
    built = path["store"] if direct else path["store-fp16"]
    build = ["memory", "build", path["float"], *inputs.corpus, "--index", point["index"], "-o", built]
    if codec is not None:
        build += ["--codec", BUILT_CODEC]
    lines: list[Sequence[object]] = [export, build]
    if not direct:
        lines.append(["memory", "convert", built, "--codec", codec, "-o", path["store"]])
    if made is not None:
        if point["precision"] != FP32:
            lines.append([
                "calibrate", path["float"], "--store", path["store"], "--questions", inputs.questions, *given,
                "--samples", inputs.samples,
            ])  # fmt: skip
        lines.append(["quantize", path["float"], "-o", path["bundle"], *made])
    for questions in (inputs.questions, *([inputs.held_out] if held_out else [])):
        asked = ["--store", path["store"], "--questions", questions, *given, *_asked(inputs, point)]
        if inputs.on_gpu:
            lines.append([
                "parity", path["bundle"], "--reference", path["float"], *asked, "--backend", ROUNDING,
                "--batch-size", ANSWERING_BATCH,
            ])  # fmt: skip
        else:
            lines.append(["answer", path["bundle"], *asked, *ON_CPU, "--batch-size", ANSWERING_BATCH])
    if inputs.on_gpu:
        lines.append(["build", path["bundle"], "--target", inputs.target])
    else:
        lines.append([
            "answer", path["bundle"], "--store", path["store"], "--questions", inputs.questions, *given,
            *_asked(inputs, point), *ON_CPU, "--batch-size", point["batch"], "--limit", inputs.timed,
        ])  # fmt: skip
    return [shlex.join(["glimmer-export", *map(str, line)]) for line in lines]


def quantize_options(inputs: Inputs, point: Point) -> list[str] | None:
    """What `quantize` is told; None where the float bundle is what answers."""
    precision, few = str(point["precision"]), str(point["weight_only"])
    if precision == FP32 and few == NONE:
        return None
    made = ["--target", inputs.quantize_for, "--policy", inputs.policy]
    made += ["--gpu", inputs.target] if inputs.on_gpu else []
    if precision == FP32:
        made += ["--precision", FP32]
    else:
        made += [*inputs.ladder[precision], "--method", str(point["method"])]
    return made if few == NONE else [*made, "--weight-only", few]


def _asked(inputs: Inputs, point: Point) -> list[object]:
    """Options of `answer` and `parity`: how many passages, and how they are read."""
    asked: list[object] = ["--top-k", point["k"]]
    if point["m"] is not None:
        asked += ["--top-m", point["m"]]
    if point["mass"] is not None:
        asked += ["--mass", point["mass"]]
    if inputs.on_gpu:
        return asked
    return [*asked, "--draft-tokens", point["draft_tokens"], "--threads", point["threads"]]
