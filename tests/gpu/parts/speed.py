"""(c) One size of random weights: each graph against its floor and against torch, and whole answers by batch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from statistics import median
from typing import Any

from tests.gpu.backends import build_engines_here
from tests.gpu.bundles import random_model, random_questions_of
from tests.gpu.floors import run_floors
from tests.gpu.kernels import count_kernels, engine_layers
from tests.gpu.ours import AT_ONCE, Ours, host_inputs
from tests.gpu.runner import Step
from tests.gpu.setting import Setting
from tests.gpu.timing import interleaved_ms, spread
from tests.gpu.torch_stages import TorchStages

__all__ = ["PRECISION", "preparation", "steps"]

PRECISION = "fp16"
TORCH_DTYPES = ("float16", "bfloat16")
INPUT_SETS = 6
"""Different inputs that a graph's runs take in turn, so that none finds the last one's in the cache."""


def steps(setting: Setting, size: str) -> list[Step]:
    """What is measured of ours alone; `peers` puts it beside others."""
    return [
        *preparation(setting, size),
        Step("ceilings", 30, partial(_ceilings, setting)),
        Step("stages", 120, partial(_stages, setting, size), needs=("engines",)),
        Step("answers", 90, partial(_answers, setting, size), needs=("engines",)),
    ]


def preparation(setting: Setting, size: str) -> list[Step]:
    """Export, calibrate, convert and compile; whatever is in the work folder already is not made again."""
    return [
        Step("model", 420, lambda _: random_model(setting.work, size, setting.scale, tiny=setting.rehearsal)[1]),
        Step("engines", 120, partial(_engines, setting, size), needs=("model",)),
    ]


def _engines(setting: Setting, size: str, _: Mapping[str, Any]) -> dict[str, Any]:
    model, _ = random_model(setting.work, size, setting.scale, tiny=setting.rehearsal)
    return build_engines_here(setting, model.bundle(PRECISION))


def _ceilings(setting: Setting, _: Mapping[str, Any]) -> dict[str, Any]:
    """What this GPU does at best through torch: a copy, bytes read and written counted, and a square FP16 product."""
    import torch

    scale, device = setting.scale, setting.torch_device
    source = torch.randint(0, 1 << 30, (scale.copy_bytes // 4,), dtype=torch.int32, device=device)
    target = torch.empty_like(source)
    first, second = (torch.randn(scale.matrix_size, scale.matrix_size, device=device).half() for _ in range(2))
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)

    def copy(_: int) -> None:
        target.copy_(source)
        wait()

    def product(_: int) -> None:
        first @ second
        wait()

    times = interleaved_ms({"copy": copy, "product": product}, repeats=setting.scale.repeats)
    return {
        "copy_gb_per_s": 2 * scale.copy_bytes / median(times["copy"]) / 1e6,
        "fp16_tflops": 2 * scale.matrix_size**3 / median(times["product"]) / 1e9,
    }


def _stages(setting: Setting, size: str, _: Mapping[str, Any]) -> dict[str, Any]:
    """Each graph alone on real inputs, ours and torch's in turn, with its floor and its kernels."""
    model, _ = random_model(setting.work, size, setting.scale, tiny=setting.rehearsal)
    questions = random_questions_of(model, setting.scale, INPUT_SETS, seed=2)
    floors = run_floors(model.bundle(PRECISION), setting.scale)
    found: dict[str, Any] = {}
    with Ours.open(setting, model, PRECISION) as ours:
        recorded = ours.record(questions)
        torch = {dtype: TorchStages(model, ours.bundle.manifest, setting.torch_device, dtype) for dtype in TORCH_DTYPES}
        for name, inputs in recorded.items():
            work = {"ours": ours.alone(name, inputs)}
            arrays = host_inputs(inputs)
            work |= {f"torch {dtype}": stages.work(name, arrays, AT_ONCE) for dtype, stages in torch.items()}
            times = interleaved_ms(work, repeats=setting.scale.stage_repeats)
            per_run = {who: [value / AT_ONCE for value in values] for who, values in times.items()}
            one = median(per_run["ours"])
            found[name] = {
                **floors[name], "of_floor": floors[name]["floor_ms"] / one,
                "ours": spread(per_run["ours"]),
                **{who: spread(values) for who, values in per_run.items() if who != "ours"},
                "ratios": {who: median(values) / one for who, values in per_run.items() if who != "ours"},
                "kernels": count_kernels(ours.once(name, inputs), engine_layers(ours.graphs[name])),
            }
    in_all = sum(stage["runs"] * stage["ours"]["median_ms"] for stage in found.values())
    floor = sum(stage["runs"] * stage["floor_ms"] for stage in found.values())
    return {"precision": PRECISION, "stages": found, "sum_ms": in_all, "floor_ms": floor}


def _answers(setting: Setting, size: str, _: Mapping[str, Any]) -> dict[str, Any]:
    """Whole answers, text to tokens, by batch."""
    model, _ = random_model(setting.work, size, setting.scale, tiny=setting.rehearsal)
    scale = setting.scale
    questions = random_questions_of(model, scale, 2 * max(scale.batches), seed=3)
    with Ours.open(setting, model, PRECISION) as ours:
        batches = {}
        for batch in scale.batches:
            groups = [questions[start : start + batch] for start in range(0, len(questions), batch)]
            work = {"ours": lambda run, groups=groups: ours.answer(groups[run % len(groups)])}
            times = interleaved_ms(work, repeats=scale.repeats)["ours"]
            batches[str(batch)] = {**spread(times), "questions_per_s": 1e3 * batch / median(times)}
        kernels = count_kernels(lambda: ours.answer(questions[:1]))
    return {"precision": PRECISION, "batches": batches, "kernels": kernels}
