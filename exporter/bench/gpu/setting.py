"""What is measured where: the sizes, the engines that may run there, and where their files are.

A rehearsal runs the same steps at tiny sizes on the CPU, on fakes of the GPU: to find mistakes, not times.
"""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from glimmer_export.exporter.bench.machine import describe_machine

__all__ = ["ENGINES", "ORT_CUDA", "REHEARSAL", "RTX", "SHIPPED", "TINY", "TORCH", "Scale", "Setting", "describe"]

RTX, ORT_CUDA, TORCH = "tensorrt-rtx", "onnxruntime-cuda", "torch stages"
ENGINES = (RTX, ORT_CUDA, TORCH)
"""What may run our graphs, the best first. The last is our own stages run by torch through the runtime's CUDA layer."""
SHIPPED = (RTX, ORT_CUDA)
"""Those that a user has: a bar is theirs to pass."""
REHEARSAL = "cpu (rehearsal)"
PACKAGES = (
    "numpy", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "onnxruntime-gpu", "torch", "transformers", "triton",
    "cuda-bindings", "tensorrt-rtx-cu12-bindings", "polygraphy", "pydantic", "tokenizers",
)  # fmt: skip
QUERY = "name,driver_version,memory.total,clocks.sm,clocks.mem"


@dataclass(frozen=True)
class Scale:
    """How much of everything; a rehearsal has the least that still goes every way.

    `questions`: the default gate tells nothing of fewer than 1,000 that are answered and differ; some may not be.
    """

    questions: int = 1200
    calibration_questions: int = 64
    k: int = 25
    m: int = 5
    question_tokens: int = 48
    passage_tokens: int = 304
    answer_tokens: int = 16
    fid_passages: tuple[int, ...] = (5, 25)
    batches: tuple[int, ...] = (1, 16, 64)
    fid_batches: tuple[int, ...] = (1, 8, 32)
    repeats: int = 15
    stage_repeats: int = 30
    step_layers: tuple[tuple[str, int], ...] = (("xl", 8), ("xxl", 3))
    copy_bytes: int = 4 << 30
    matrix_size: int = 8192


TINY = Scale(
    questions=12, calibration_questions=4, k=5, m=2, question_tokens=8, passage_tokens=40, answer_tokens=7,
    fid_passages=(2, 3), batches=(1, 2, 3), fid_batches=(1, 2, 3), repeats=2, stage_repeats=2,
    step_layers=(("xl", 2), ("xxl", 3)), copy_bytes=1 << 16, matrix_size=64,
)  # fmt: skip
"""Joint lengths beyond one bucket of the runtime's, and answers beyond one interval of looks for EOS."""


@dataclass(frozen=True)
class Setting:
    """`work` keeps what is exported and built, for as long as the machine is there; `out` holds the parts' files.

    `carried` is where unpack.py put what the machine lacks, in folders of their own: only the steps that use ONNX
    Runtime's CUDA provider look into `onnxruntime`, which stands in the way of the machine's own, and only those that
    use TensorRT-RTX into `rtx`. `torch_device` is where the peers run.
    """

    work: Path
    out: Path
    rehearsal: bool
    scale: Scale
    torch_device: str
    carried: Path | None = None

    @classmethod
    def of(cls, work: Path, out: Path, *, rehearsal: bool, carried: Path | None = None) -> Setting:
        """The GPU's, or a rehearsal's."""
        if rehearsal:
            return cls(work, out, True, TINY, "cpu")
        return cls(work, out, False, Scale(), "cuda", carried)

    @property
    def compiler(self) -> str:
        """torch.compile's backend: a rehearsal only traces."""
        return "eager" if self.rehearsal else "inductor"


def describe(setting: Setting, command: str) -> dict[str, Any]:
    """Where and with what: device, driver, versions, command. Nothing of CUDA is begun in this process."""
    return {
        "command": command,
        "device": REHEARSAL if setting.rehearsal else _gpu()["name"],
        "gpu": {} if setting.rehearsal else _gpu(),
        "machine": describe_machine(),
        "versions": {"python": platform.python_version(), **_versions()},
        "threads": os.environ.get("OMP_NUM_THREADS", "not set"),
    }


def _gpu() -> dict[str, str]:
    """What nvidia-smi says; the name is `unknown` where it says nothing."""
    try:
        asked = subprocess.run(
            ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        return {"name": "unknown", "error": str(error)}
    values = asked.stdout.splitlines()[0].split(", ")
    return dict(zip(QUERY.split(","), values, strict=False))


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
